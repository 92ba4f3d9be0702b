"""An uploaded file becomes RGB pixels or one sentence."""

import io
import re
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from histopath.uploads import MOST_BYTES, read_upload


def pixels(height=40, width=60):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype="uint8")


@pytest.mark.parametrize("kind", ["png", "tiff", "webp"])
def test_formats_without_loss_give_their_pixels(kind, tmp_path):
    Image.fromarray(pixels()).save(tmp_path / f"a.{kind}", lossless=True)
    np.testing.assert_array_equal(read_upload(tmp_path / f"a.{kind}"), pixels())


def test_the_rotation_of_a_camera_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.fromarray(pixels()).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_upload(tmp_path / "a.png"), np.rot90(pixels(), -1))


def test_what_is_transparent_becomes_white(tmp_path):
    clear = np.dstack([pixels(), np.zeros((40, 60), "uint8")])
    Image.fromarray(clear).save(tmp_path / "a.png")
    assert (read_upload(tmp_path / "a.png") == 255).all()


@pytest.mark.parametrize(("mode", "same"), [("L", True), ("P", False)])
def test_grey_and_palettes_become_three_channels(mode, same, tmp_path):
    Image.fromarray(pixels()).convert(mode).save(tmp_path / "a.png")
    read = read_upload(tmp_path / "a.png")
    assert read.shape == (40, 60, 3) and (np.ptp(read, axis=2) == 0).all() == same


def bomb():
    """A PNG of 60,000×60,000 pixels in a few kilobytes: only its header is true."""
    stream = io.BytesIO()
    Image.new("L", (1, 1)).save(stream, "png")
    content = bytearray(stream.getvalue())
    content[16:24] = (60_000).to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    return bytes(content)


def damaged_exif():
    """A JPEG that is to be turned, and whose width in the EXIF block is a word."""
    entries = struct.pack(">HHIHH", 0x112, 3, 1, 6, 0) + struct.pack(">HHI4s", 0x100, 2, 4, b"abc\0")
    exif = b"Exif\0\0MM\0*" + struct.pack(">IH", 8, 2) + entries + bytes(4)
    stream = io.BytesIO()
    Image.new("RGB", (60, 40)).save(stream, "jpeg", exif=exif)
    return stream.getvalue()


def text_bomb():
    """A PNG with a comment of many megabytes, compressed."""
    said, stream = PngImagePlugin.PngInfo(), io.BytesIO()
    said.add_text("Comment", "a" * 80_000_000, zip=True)
    Image.new("RGB", (60, 40)).save(stream, "png", pnginfo=said)
    return stream.getvalue()


def saved(mode, kind, size=(60, 40)):
    stream = io.BytesIO()
    Image.new(mode, size).save(stream, kind)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>", "is not a PNG, JPEG, TIFF or WebP image"),
        (b"", "is not a PNG, JPEG, TIFF or WebP image"),
        (b"%PDF-1.7 and so on", "is not a PNG"),
        (saved("RGB", "gif"), "is not a PNG"),
        (bomb(), "unpacks to far too many pixels"),
        (saved("RGB", "png", (5000, 4000)), "5,000×4,000 pixels, and this page takes 16 million"),
        (saved("I;16", "png"), "pixels of the kind I;16"),
        (saved("CMYK", "jpeg"), "pixels of the kind CMYK"),
        (saved("F", "tiff"), "pixels of the kind F"),
        (saved("RGB", "jpeg", (400, 400))[:600], "is damaged or cut off"),
        (saved("RGB", "png", (400, 400))[:200], "is damaged or cut off"),
        (saved("RGB", "tiff", (400, 400))[:4000], "is damaged or cut off"),
        (damaged_exif(), "is damaged or cut off"),
        (text_bomb(), "is damaged or cut off"),
    ],
)
def test_what_is_no_such_image_ends_in_a_sentence(content, sentence, tmp_path):
    (tmp_path / "sent.png").write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(sentence)) as error:
        read_upload(tmp_path / "sent.png")
    assert str(error.value).startswith("sent.png ") and str(tmp_path) not in str(error.value)


def test_a_file_that_is_too_large_is_not_opened(tmp_path):
    with open(tmp_path / "large.png", "wb") as file:
        file.truncate(MOST_BYTES + 1)
    with pytest.raises(ValueError, match="has 20 MB, and this page takes 20; cut out a part"):
        read_upload(tmp_path / "large.png")
