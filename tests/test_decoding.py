"""Image files of every format are decoded, resized, or answered with one sentence; none is half decoded."""

import functools
import io
import struct
import zlib

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from test_patches import make_pixels

from histopath import decoding
from histopath.decoding import decode_rgb, resize


def encode(suffix: str, rgb: np.ndarray) -> bytes:
    return cv2.imencode(suffix, rgb)[1].tobytes()


def encode_gif(*frames: np.ndarray, **options) -> bytes:
    """Returns a GIF of 64 colours a frame, as Pillow writes it."""
    stream = io.BytesIO()
    first, *others = (Image.fromarray(frame).quantize(64) for frame in frames)
    first.save(stream, "GIF", save_all=bool(others), append_images=others, **options)
    return stream.getvalue()


def encode_tiff(rgb: np.ndarray, **options) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, rgb, **options)
    return stream.getvalue()


@functools.cache
def encode_every_format() -> dict[str, bytes]:
    rgb = make_pixels(1, 48)[0]
    progressive = [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]
    tiffs = {
        "tiff": {},
        "big-endian": {"byteorder": ">"},
        "bigtiff": {"bigtiff": True},
        "strips": {"rowsperstrip": 5},
        "tiles": {"tile": (32, 32)},
        "deflate": {"compression": "zlib"},
    }
    found = {name: encode_tiff(rgb, photometric="rgb", **tiffs[name]) for name in tiffs}
    found |= {name: encode(f".{name}", rgb) for name in ("png", "jpg", "webp")}
    found |= {f"gif-{interlace}": encode_gif(rgb, interlace=interlace) for interlace in (0, 1)}
    return found | {"progressive": cv2.imencode(".jpg", rgb, progressive)[1].tobytes()}


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_file_cut_anywhere_is_refused(data):
    name = data.draw(st.sampled_from(sorted(encode_every_format())))
    whole = encode_every_format()[name]
    assert decode_rgb(whole, name).shape == (48, 48, 3)
    length = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(ValueError, match=f"^{name} "):
        decode_rgb(whole[:length], name)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damaged_file_is_an_image_or_one_sentence(data):
    content = bytearray(encode_every_format()[data.draw(st.sampled_from(sorted(encode_every_format())))])
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, min(len(content) - 1, 400)))] = data.draw(st.integers(0, 255))
    size = data.draw(st.sampled_from([None, 32]))
    try:
        assert decode_rgb(bytes(content), "file", size).dtype == np.uint8
    except ValueError as error:
        assert str(error).startswith("file ") and "; " in str(error)


def test_thumbnail_does_not_hide_a_cut_jpeg():
    rgb = make_pixels(1, 48)[0]
    whole, thumbnail = encode(".jpg", rgb), encode(".jpg", rgb[:8, :8])
    segment = b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail
    with_thumbnail = whole[:2] + segment + whole[2:]
    assert decode_rgb(with_thumbnail, "file").shape == (48, 48, 3)
    with pytest.raises(ValueError, match="cut off"):
        decode_rgb(with_thumbnail[:-40], "file")


def refusal(data: bytes, size: int | None = None, **options) -> str:
    with pytest.raises(ValueError) as caught:
        decode_rgb(data, "file", size, **options)
    text = str(caught.value)
    assert text.startswith("file ") and "; " in text and text.endswith(".") and "\n" not in text
    return text


@pytest.mark.parametrize("interlace", [0, 1])
@pytest.mark.parametrize("shape", [(48, 48), (17, 33), (1, 1)])
def test_still_gif_comes_back_as_another_reader_sees_it(interlace, shape):
    data = encode_gif(make_pixels(1, 48)[0][: shape[0], : shape[1]], interlace=interlace, comment=b";,!" * 200)
    expected = np.array(Image.open(io.BytesIO(data)).convert("RGB"))
    np.testing.assert_array_equal(decode_rgb(data, "file"), expected)


def test_real_gif_comes_back_as_another_reader_sees_it(shared):
    data = (shared / "organs" / "cervix.koc.gif").read_bytes()
    expected = np.array(Image.open(io.BytesIO(data)).convert("RGB"))
    np.testing.assert_array_equal(decode_rgb(data, "file"), expected)


def test_tiff_that_points_beyond_all_memory_is_refused():
    data = bytearray(encode_tiff(make_pixels(1, 48)[0], photometric="rgb", bigtiff=True))
    data[8:16] = b"\xff" * 8  # where the first page begins
    assert "is cut off or damaged" in refusal(bytes(data))


@pytest.mark.parametrize("size", [None, 32])
@pytest.mark.parametrize("frames", [2, 5])
def test_animated_gif_is_refused(frames, size):
    assert "is an animated GIF, expected one still image" in refusal(encode_gif(*make_pixels(frames, 48)), size)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (15, 96), (96, 15)])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".gif"])
def test_image_of_a_few_pixels_is_refused_when_resized(suffix, height, width):
    rgb = make_pixels(1, 96)[0][:height, :width]
    data = encode_gif(rgb) if suffix == ".gif" else encode(suffix, rgb)
    assert f"is {width}×{height} pixels, expected at least 16 pixels a side" in refusal(data, 32)
    assert f"is {width}×{height} pixels" in refusal(data, bounded=True)
    assert decode_rgb(data, "file").shape == (height, width, 3)
    enough = make_pixels(1, 16)[0]
    assert decode_rgb(encode_gif(enough) if suffix == ".gif" else encode(suffix, enough), "file", 32).shape == (32, 32, 3)


def claim_extent(name: str, width: int, height: int) -> bytes:
    """Returns a small whole file whose header says that it is `width`×`height` pixels."""
    rgb = make_pixels(1, 16)[0]
    if name == "png":
        header = b"IHDR" + struct.pack(">II", width, height) + encode(".png", rgb)[24:29]
        return encode(".png", rgb)[:12] + header + struct.pack(">I", zlib.crc32(header)) + encode(".png", rgb)[33:]
    if name == "gif":
        return encode_gif(rgb)[:6] + struct.pack("<HH", width, height) + encode_gif(rgb)[10:]
    if name == "jpg":
        data = encode(".jpg", rgb)
        place = data.index(b"\xff\xc0") + 5
        return data[:place] + struct.pack(">HH", height, width) + data[place + 4 :]
    data = encode_tiff(np.zeros((16, 16, 3), "uint16" if name == "tiff-16" else "uint8"), photometric="rgb")
    for tag, value in ((256, width), (257, height)):
        place = data.index(struct.pack("<HHI", tag, 4, 1) if name == "tiff" else struct.pack("<H", tag))
        data = data[:place] + struct.pack("<HHII", tag, 4, 1, value) + data[place + 12 :]
    return data


@pytest.mark.parametrize("name", ["png", "gif", "jpg", "tiff", "tiff-16"])
def test_image_of_too_many_pixels_is_refused_before_it_is_decoded(name, monkeypatch):
    monkeypatch.setattr(cv2, "imdecode", lambda *arguments: pytest.fail("was decoded"))
    text = refusal(claim_extent(name, 65_000, 60_000), 32)
    assert "is 65,000×60,000 pixels, expected 268,435,456 pixels at most" in text
    assert "65,000×60,000" in refusal(claim_extent(name, 65_000, 60_000), bounded=True)


def test_image_larger_than_the_free_memory_is_refused_before_it_is_decoded(monkeypatch):
    """48 TB of pixels: more than any machine has, even if that many pixels were allowed."""
    monkeypatch.setattr(cv2, "imdecode", lambda *arguments: pytest.fail("was decoded"))
    monkeypatch.setattr(decoding, "MOST_PIXELS", 2**62)
    assert "GB of free memory; cut it into tiles" in refusal(claim_extent("png", 4_000_000, 4_000_000), 32)


@pytest.mark.slow
def test_a_large_image_within_bounds_is_resized():
    """Pillow's own limit and warning, at 89 million pixels, do not apply."""
    data = encode(".png", np.zeros((9_600, 9_600, 3), np.uint8))
    assert decode_rgb(data, "file", 16).shape == (16, 16, 3)


def test_grey_becomes_rgb_when_resized_and_is_refused_otherwise():
    grey = make_pixels(1, 48)[0][..., 0]
    for data in (encode(".png", grey), encode(".jpg", grey), encode_tiff(grey)):
        assert "is a greyscale image" in refusal(data)
        pixels = decode_rgb(data, "file", 48)
        assert np.ptp(pixels, axis=2).max() == 0 and pixels.std() > 10


@pytest.mark.parametrize("size", [None, 32])
def test_deep_and_transparent_images_are_refused_at_any_size(size):
    rgb = make_pixels(1, 48)[0]
    assert "is a 16-bit image" in refusal(encode(".png", rgb.astype("uint16")), size)
    assert "is a 16-bit image" in refusal(encode(".png", rgb[..., 0].astype("uint16")), size)
    assert "is an image with an alpha channel (RGBA)" in refusal(encode(".png", rgb[..., [0, 1, 2, 2]]), size)


def test_shrinking_averages_over_areas_and_may_squeeze():
    pixels = make_pixels(1, 64)[0][:32]
    expected = pixels.reshape(16, 2, 16, 4, 3).astype(float).mean(axis=(1, 3))
    assert np.abs(resize(pixels, 16) - expected).max() <= 0.5  # rounded to whole levels


def test_a_side_that_shrinks_is_averaged_while_the_other_grows():
    """Stripes of one pixel vanish; OpenCV's area interpolation alone would keep some of them here."""
    pixels = np.zeros((400, 20, 3), np.uint8)
    pixels[::2] = 200
    assert (resize(pixels, 40) == 100).all()


def test_enlarging_is_cubic_and_the_own_size_changes_nothing():
    pixels = make_pixels(1, 48)[0]
    np.testing.assert_array_equal(resize(pixels, 48), pixels)
    np.testing.assert_array_equal(resize(pixels, 96), cv2.resize(pixels, (96, 96), interpolation=cv2.INTER_CUBIC))


def test_colours_keep_their_order_when_resized():
    pixels = np.full((32, 32, 3), (200, 100, 50), np.uint8)
    assert (decode_rgb(encode(".png", pixels[..., ::-1]), "file", 64) == (200, 100, 50)).all()
