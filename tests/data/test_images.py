"""Image files of every format become RGB pixels or one sentence; nothing is half decoded."""

import functools
import io
import re
import struct
import zlib

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, PngImagePlugin

from histopath.data.images import MAX_UPLOAD_BYTES, decode_rgb, read_image, read_upload, resize

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # of damaged tags


@functools.cache
def make_rgb(height: int = 48, width: int = 48) -> np.ndarray:
    """Returns smooth colored noise."""
    coarse = np.random.default_rng(0).integers(0, 256, (6, 6, 3), dtype="uint8")
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def save(pixels: np.ndarray, kind: str, mode: str | None = None, **options) -> bytes:
    stream, image = io.BytesIO(), Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(stream, kind, **options)
    return stream.getvalue()


def save_tiff(pixels: np.ndarray, **options) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, pixels, **options)
    return stream.getvalue()


def save_png(pixels: np.ndarray) -> bytes:
    """Returns a PNG as OpenCV writes it, which can have 16 bits."""
    return cv2.imencode(".png", pixels)[1].tobytes()


def save_frames(kind: str) -> bytes:
    second = Image.fromarray(make_rgb()[::-1])
    return save(make_rgb(), kind, save_all=True, append_images=[second])


def add_alpha(alpha: int) -> np.ndarray:
    """Returns RGBA pixels, opaque but for one of them."""
    rgba = np.dstack([make_rgb(), np.full((48, 48), 255, "uint8")])
    rgba[5, 5, 3] = alpha
    return rgba


LOSSLESS_TIFFS = {
    "tiff": {},
    "big-endian": {"byteorder": ">"},
    "bigtiff": {"bigtiff": True},
    "strips": {"rowsperstrip": 5},
    "tiles": {"tile": (32, 32)},
    "planes": {"planarconfig": "separate"},
    "deflate": {"compression": "zlib"},
}


@functools.cache
def save_every_format() -> dict[str, bytes]:
    rgb, planes = make_rgb(), make_rgb().transpose(2, 0, 1)
    found = {
        name: save_tiff(planes if name == "planes" else rgb, photometric="rgb", **options)
        for name, options in LOSSLESS_TIFFS.items()
    }
    found |= {"lzw": save(rgb, "TIFF", compression="tiff_lzw"), "webp": save(rgb, "WEBP")}
    found |= {"jpeg": save(rgb, "JPEG"), "progressive": save(rgb, "JPEG", progressive=True)}
    found |= {"png": save(rgb, "PNG"), "palette": save(rgb, "PNG", "P"), "bmp": save(rgb, "BMP")}
    return found | {"gif": save(rgb, "GIF"), "interlaced": save(rgb, "GIF", interlace=1)}


def refusal(data: bytes, size: int | None = None) -> str:
    with pytest.raises(ValueError) as caught:
        decode_rgb(data, "file", size)
    text = str(caught.value)
    assert text.startswith("file ") and "; " in text and text.endswith(".") and "\n" not in text
    return text


@pytest.mark.parametrize("name", [*LOSSLESS_TIFFS, "lzw", "png", "bmp"])
def test_lossless_formats_give_their_pixels(name):
    pixels = decode_rgb(save_every_format()[name], name)
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, make_rgb())


def test_jpegs_decode_as_opencv_decodes_them(shared):
    """The scores of the included model were measured on pixels that OpenCV decoded."""
    for path in sorted((shared / "pcam-jpeg" / "valid").rglob("*.jpg"))[::50]:
        np.testing.assert_array_equal(read_image(path)[0], cv2.imread(str(path))[..., ::-1])


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_truncated_file_is_refused_unless_all_its_pixels_are_there(data):
    name = data.draw(st.sampled_from(sorted(save_every_format())))
    whole = save_every_format()[name]
    length = data.draw(st.integers(0, len(whole) - 1))
    try:
        pixels = decode_rgb(whole[:length], name)
    except ValueError as error:
        assert str(error).startswith(f"{name} ") and "; " in str(error)
    else:
        np.testing.assert_array_equal(pixels, decode_rgb(whole, name))


@pytest.mark.parametrize("name", sorted(save_every_format()))
@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_a_file_that_lost_pixels_is_refused(name, share):
    whole = save_every_format()[name]
    assert re.search("not a complete image|truncated or damaged", refusal(whole[: int(share * len(whole))]))


@pytest.mark.parametrize("name", ["tiff", "strips", "jpeg", "webp", "bmp"])
def test_one_missing_byte_is_noticed_where_pixels_are_last(name):
    assert "is truncated or damaged" in refusal(save_every_format()[name][:-1])


def test_truncated_files_are_refused_after_a_notebook_allowed_them(monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    assert "is truncated or damaged" in refusal(save_every_format()["jpeg"][:-30])


def test_a_thumbnail_does_not_hide_a_truncated_jpeg():
    whole, thumbnail = save(make_rgb(), "JPEG"), save(make_rgb(8, 8), "JPEG")
    segment = b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail
    with_thumbnail = whole[:2] + segment + whole[2:]
    assert decode_rgb(with_thumbnail, "file").shape == (48, 48, 3)
    assert "is truncated" in refusal(with_thumbnail[:-40])


def test_a_changed_bit_in_a_png_is_noticed():
    content = bytearray(save_every_format()["png"])
    content[len(content) // 2] ^= 1
    assert "is truncated or damaged" in refusal(bytes(content))


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_damaged_file_is_an_image_or_one_sentence(data):
    content = bytearray(save_every_format()[data.draw(st.sampled_from(sorted(save_every_format())))])
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, min(len(content) - 1, 400)))
        content[position] = data.draw(st.integers(0, 255))
    size = data.draw(st.sampled_from([None, 32]))
    try:
        assert decode_rgb(bytes(content), "file", size).dtype == np.uint8
    except ValueError as error:
        text = str(error)
        assert text.startswith("file ") and "; " in text and "\n" not in text


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "is empty"),
        (b"not an image", "is not a complete image in a supported format"),
        (b"MM and so on", "is not a complete image"),
        (b"RIFF\x04\0\0\0WAVE", "is not a complete image"),
        (save_tiff(make_rgb().astype("float32"), photometric="rgb"), "is not a complete image"),
        (save_tiff(make_rgb().astype("uint16"), photometric="rgb"), "has 16 bits per channel"),
        (
            save_tiff(make_rgb().transpose(2, 0, 1).astype("uint16"), photometric="rgb", planarconfig="separate"),
            "has 16 bits per channel",
        ),
        (save_png(make_rgb().astype("uint16")), "has 16 bits per channel"),
        (save_png(make_rgb()[..., 0].astype("uint16")), "has 16 bits per channel"),
        (save(make_rgb(), "JPEG", "CMYK"), "has the color mode CMYK"),
        (save(make_rgb(), "TIFF", "LAB"), "has the color mode LAB"),
        (save(add_alpha(254), "PNG"), "has transparent pixels"),
        (save(make_rgb(), "PNG", transparency=tuple(map(int, make_rgb()[0, 0]))), "has transparent pixels"),
        (save_frames("GIF"), "is animated"),
        (save_frames("PNG"), "is animated"),
        (save_frames("WEBP"), "is animated"),
    ],
)
@pytest.mark.parametrize("size", [None, 32])
def test_other_kinds_of_files_are_refused(data, expected, size):
    assert refusal(data, size).startswith(f"file {expected}")


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_opaque_rgba_is_read_as_rgb(kind):
    np.testing.assert_array_equal(decode_rgb(save(add_alpha(255), kind), "file"), make_rgb())


@pytest.mark.parametrize("name", ["palette", "gif", "interlaced"])
def test_palettes_become_rgb(name):
    data = save_every_format()[name]
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    np.testing.assert_array_equal(decode_rgb(data, "file"), expected)
    assert np.ptp(expected, axis=2).max() > 0


def test_a_tiff_of_several_pages_gives_the_first():
    np.testing.assert_array_equal(decode_rgb(save_frames("TIFF"), "file"), make_rgb())


def test_the_orientation_of_a_tiff_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 3  # turned by 180 degrees
    data = save(make_rgb(), "TIFF", exif=exif)
    np.testing.assert_array_equal(decode_rgb(data, "file"), make_rgb()[::-1, ::-1])


def test_grayscale_is_converted_when_resized_and_refused_otherwise():
    for kind, mode in (("PNG", "L"), ("PNG", "1"), ("JPEG", "L"), ("TIFF", "L")):
        data = save(make_rgb(), kind, mode)
        assert "is grayscale" in refusal(data)
        pixels = decode_rgb(data, "file", 48)
        assert np.ptp(pixels, axis=2).max() == 0 and pixels.std() > 10


@pytest.mark.parametrize(("height", "width"), [(1, 1), (15, 96), (96, 15)])
def test_an_image_of_a_few_pixels_is_refused_when_resized(height, width):
    data = save(make_rgb(height, width), "PNG")
    assert f"is {width}×{height} pixels, expected at least 16 per side" in refusal(data, 32)
    assert decode_rgb(data, "file").shape == (height, width, 3)
    assert decode_rgb(save(make_rgb(16, 16), "PNG"), "file", 32).shape == (32, 32, 3)


def claim_pixels(name: str, width: int, height: int) -> bytes:
    """Returns a small file whose header says that it is `width`×`height` pixels."""
    data, size = bytearray(save_every_format()[name]), struct.pack(">II", width, height)
    if name == "png":
        data[16:24] = size
        data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    elif name == "jpeg":
        place = data.index(b"\xff\xc0") + 5
        data[place : place + 4] = struct.pack(">HH", height, width)
    else:
        for tag, value in ((256, width), (257, height)):
            place = data.index(struct.pack("<HHI", tag, 4, 1))
            data[place + 8 : place + 12] = struct.pack("<I", value)
    return bytes(data)


@pytest.mark.parametrize("name", ["png", "jpeg", "tiff"])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(name, monkeypatch):
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda *arguments: pytest.fail("was decoded"))
    assert "has too many pixels" in refusal(claim_pixels(name, 60_000, 60_000))


def test_reading_a_file_gives_its_size_and_time(tmp_path):
    path = tmp_path / "a.tif"
    path.write_bytes(save_every_format()["tiff"])
    pixels, status = read_image(path)
    assert status == (path.stat().st_size, path.stat().st_mtime_ns)
    np.testing.assert_array_equal(pixels, make_rgb())


def test_a_missing_file_is_one_sentence(tmp_path):
    with pytest.raises(ValueError, match=r"a.tif cannot be read \(No such file or directory\); restore"):
        read_image(tmp_path / "a.tif")


def test_shrinking_averages_over_areas_and_may_squeeze():
    pixels = make_rgb(32, 64)
    expected = pixels.reshape(16, 2, 16, 4, 3).astype(float).mean(axis=(1, 3))
    assert np.abs(resize(pixels, 16) - expected).max() <= 0.5  # rounded to whole levels


def test_a_side_that_shrinks_is_averaged_while_the_other_grows():
    """Stripes of one pixel vanish; OpenCV's area interpolation alone would keep some of them here."""
    pixels = np.zeros((400, 20, 3), np.uint8)
    pixels[::2] = 200
    assert (resize(pixels, 40) == 100).all()


def test_enlarging_is_cubic_and_the_original_size_changes_nothing():
    np.testing.assert_array_equal(resize(make_rgb(), 48), make_rgb())
    enlarged = cv2.resize(make_rgb(), (96, 96), interpolation=cv2.INTER_CUBIC)
    np.testing.assert_array_equal(decode_rgb(save(make_rgb(), "PNG"), "file", 96), enlarged)


# Uploads --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG"])
def test_the_rotation_of_a_camera_is_applied_to_an_upload(kind, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    (tmp_path / "a.png").write_bytes(save(make_rgb(32, 48), kind, exif=exif))
    difference = read_upload(tmp_path / "a.png").astype(int) - np.rot90(make_rgb(32, 48), -1)
    assert np.abs(difference).mean() < (10 if kind == "JPEG" else 1e-9)


def test_a_grayscale_upload_becomes_three_channels(tmp_path):
    (tmp_path / "a.png").write_bytes(save(make_rgb(), "PNG", "L"))
    pixels = read_upload(tmp_path / "a.png")
    assert pixels.shape == (48, 48, 3) and np.ptp(pixels, axis=2).max() == 0


def save_damaged_exif() -> bytes:
    """Returns a JPEG that is to be turned, and whose width in the EXIF block is a word."""
    entries = struct.pack(">HHIHH", 0x112, 3, 1, 6, 0) + struct.pack(">HHI4s", 0x100, 2, 4, b"abc\0")
    exif = b"Exif\0\0MM\0*" + struct.pack(">IH", 8, 2) + entries + bytes(4)
    return save(make_rgb(), "JPEG", exif=exif)


def save_text_bomb() -> bytes:
    """Returns a PNG with a compressed comment of many megabytes."""
    comment = PngImagePlugin.PngInfo()
    comment.add_text("Comment", "a" * 80_000_000, zip=True)
    return save(make_rgb(), "PNG", pnginfo=comment)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>", "is not a complete image"),
        (save(make_rgb(), "EPS"), "is not a complete image in a supported format"),
        (save(np.zeros((4000, 5000, 3), "uint8"), "PNG"), "5,000×4,000 pixels, more than 16 million; crop it"),
        (claim_pixels("png", 60_000, 60_000), "has too many pixels"),
        (save_png(make_rgb().astype("uint16")), "has 16 bits per channel"),
        (save(add_alpha(0), "PNG"), "has transparent pixels"),
        (save(make_rgb(), "PNG")[:900], "is truncated or damaged"),
        (save_damaged_exif(), "is truncated or damaged"),
        (save_text_bomb(), "is truncated or damaged"),
    ],
)
def test_a_bad_upload_is_one_sentence_without_its_folder(content, expected, tmp_path):
    (tmp_path / "sent.png").write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(expected)) as error:
        read_upload(tmp_path / "sent.png")
    assert str(error.value).startswith("sent.png ") and str(tmp_path) not in str(error.value)


def test_an_upload_of_too_many_bytes_is_not_opened(tmp_path):
    with open(tmp_path / "large.png", "wb") as file:
        file.truncate(MAX_UPLOAD_BYTES + 1_000_000)
    with pytest.raises(ValueError, match="large.png has 21 MB, more than 20 MB; crop it"):
        read_upload(tmp_path / "large.png")
