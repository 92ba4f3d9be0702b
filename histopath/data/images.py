"""Reads an image file as RGB pixels, or says in one sentence what is wrong with it.

Pillow refuses truncated files by itself. It does not notice bytes that are missing after the last
pixel (such as the IEND chunk of a PNG), nor changed pixels in formats without a checksum.
"""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from PIL import ExifTags, Image, ImageFile, ImageOps, TiffImagePlugin, UnidentifiedImageError

from histopath.files import InputError

SIZES = (16, 4096)  # smallest and largest side of a resized patch, in pixels
GRAYSCALE = ("1", "L", "LA")
SEVERAL_PAGES = ("TIFF", "MPO")  # the first page is read; the others are usually previews
UPLOAD_FORMATS = ("PNG", "JPEG", "TIFF", "WEBP")  # not EPS, for which Pillow runs Ghostscript
MAX_UPLOAD_BYTES = 20_000_000
MAX_UPLOAD_PIXELS = 16_000_000  # 4000×4000: 7,000 windows


def read_image(path: Path, size: int | None = None) -> tuple[np.ndarray, tuple[int, int]]:
    """Reads one image file; see `decode_rgb`.

    Returns:
        RGB pixels, uint8 (H, W, 3), and the file's size in bytes and mtime in ns.
    """
    try:
        with open(path, "rb", buffering=0) as stream:
            status = os.fstat(stream.fileno())
            data = stream.read()
    except OSError as error:
        reason = f"cannot be read ({error.strerror})"
        raise InputError(f"{path} {reason}; restore the file or allow reading it.") from None
    return decode_rgb(data, str(path), size), (status.st_size, status.st_mtime_ns)


def decode_rgb(data: bytes, name: str, size: int | None = None) -> np.ndarray:
    """Decodes an 8-bit RGB image in any format that Pillow reads; opaque alpha is dropped.

    Args:
        data: the whole file.
        name: what error messages call the file.
        size: side in pixels to which the image is resized, as in `resize`; grayscale images are
            then converted. None keeps the image's own size and refuses grayscale.

    Returns:
        RGB pixels, uint8 (H, W, 3), possibly read-only.

    Raises:
        InputError: the file is truncated, damaged, too large or too small, or not 8-bit RGB.
    """
    with _opened(data, name) as image:
        width, height = image.size
        if size and min(width, height) < SIZES[0]:
            found = f"is {width}×{height} pixels, expected at least {SIZES[0]} per side"
            raise InputError(f"{name} {found}; replace or remove it.")
        _check_colors(image, name, grayscale=bool(size))
        pixels = _rgb_pixels(image, data)
    return resize(pixels, size) if size else pixels


def read_upload(path: Path) -> np.ndarray:
    """Reads an image that a visitor of the web page uploaded, upright by its EXIF orientation.

    Args:
        path: a file with any content; only its name appears in error messages.

    Returns:
        RGB pixels, uint8 (H, W, 3), possibly read-only; grayscale is converted.

    Raises:
        InputError: as for `decode_rgb`, and for formats other than `UPLOAD_FORMATS`.
    """
    count = path.stat().st_size
    if count > MAX_UPLOAD_BYTES:
        limit = f"{MAX_UPLOAD_BYTES / 1e6:.0f} MB"
        raise InputError(f"{path.name} has {count / 1e6:.0f} MB, more than {limit}; crop it.")
    data = path.read_bytes()
    with _opened(data, path.name, UPLOAD_FORMATS) as image:
        if image.width * image.height > MAX_UPLOAD_PIXELS:
            found = f"{image.width:,}×{image.height:,} pixels"
            limit = f"{MAX_UPLOAD_PIXELS / 1e6:.0f} million"
            cure = "crop it, or use the command `slide` for a whole slide"
            raise InputError(f"{path.name} has {found}, more than {limit}; {cure}.")
        _check_colors(image, path.name, grayscale=True)
        ImageOps.exif_transpose(image, in_place=True)
        return _rgb_pixels(image, data)


def resize(pixels: np.ndarray, size: int) -> np.ndarray:
    """Resizes uint8 pixels (H, W, 3) to (size, size, 3) without keeping the aspect ratio.

    A side that shrinks is averaged over areas, a side that grows is interpolated cubically.
    """
    height, width = pixels.shape[:2]
    smaller = (min(width, size), min(height, size))
    pixels = cv2.resize(pixels, smaller, interpolation=cv2.INTER_AREA)
    return cv2.resize(pixels, (size, size), interpolation=cv2.INTER_CUBIC)


def check_size(size: int | None) -> None:
    """Raises InputError unless `size` is None or a whole number within `SIZES`."""
    whole = isinstance(size, int | np.integer) and not isinstance(size, bool)
    if size is not None and not (whole and SIZES[0] <= size <= SIZES[1]):
        wrong = f"a whole number, {SIZES[0]} to {SIZES[1]:,} pixels, and is {size}"
        raise InputError(f"The size must be {wrong}; leave it out to keep the original sizes.")


@contextmanager
def _opened(data: bytes, name: str, formats: tuple | None = None) -> Iterator[Image.Image]:
    """Opens an image; whatever Pillow raises until the block ends becomes an InputError."""
    ImageFile.LOAD_TRUNCATED_IMAGES = False  # notebooks often set it to True
    if formats is None and data[:2] in (b"II", b"MM"):
        formats = ("TIFF",)  # saves Pillow from trying 40 other formats first
    try:
        with Image.open(io.BytesIO(data), formats=formats) as image:
            yield image
    except InputError:
        raise
    except UnidentifiedImageError:
        what = "is not a complete image in a supported format" if data else "is empty"
        raise InputError(f"{name} {what}; save it again, as PNG or TIFF, or remove it.") from None
    except (Image.DecompressionBombError, MemoryError):
        raise InputError(f"{name} has too many pixels; crop it or cut it into tiles.") from None
    except Exception as error:  # Pillow raises almost anything for a damaged file
        what = f"is truncated or damaged ({error})"
        raise InputError(f"{name} {what}; copy or download it again, or remove it.") from None


def _check_colors(image: Image.Image, name: str, grayscale: bool) -> None:
    """Refuses what is not one 8-bit RGB image, before Pillow silently reduces it to one."""
    wrong = None
    bits = getattr(image, "tag_v2", {}).get(TiffImagePlugin.BITSPERSAMPLE, (8,))
    if getattr(image, "is_animated", False) and image.format not in SEVERAL_PAGES:
        wrong = "is animated"
    elif max(bits) > 8 or ";16" in str(image.tile):  # RGB;16B is how Pillow reads such a PNG
        wrong = "has 16 bits per channel"
    elif image.mode not in ("RGB", "RGBA", "P", "PA", *GRAYSCALE):
        wrong = f"has the color mode {image.mode}"
    elif image.mode in GRAYSCALE and not grayscale:
        wrong = "is grayscale"
    elif image.has_transparency_data and image.convert("RGBA").getextrema()[3][0] < 255:
        wrong = "has transparent pixels"
    if wrong:
        raise InputError(f"{name} {wrong}, expected 8-bit RGB; convert it or remove it.")


def _rgb_pixels(image: Image.Image, data: bytes) -> np.ndarray:
    """Returns uint8 (H, W, 3); uncompressed TIFFs, such as Kaggle's, need no decoder."""
    if image.format == "TIFF" and image.tile:
        codec, extents, offset, layout = image.tile[0]
        whole = (codec, extents, layout) == ("raw", (0, 0, *image.size), ("RGB", 0, 1))
        if whole and ExifTags.Base.Orientation not in image.tag_v2:
            width, height = image.size
            pixels = np.frombuffer(data, np.uint8, height * width * 3, offset)
            return pixels.reshape(height, width, 3)
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
