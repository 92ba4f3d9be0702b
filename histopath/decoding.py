"""Decodes one image file and refuses what is not a complete 8-bit RGB image. In: a file or its bytes. Out: RGB pixels.

Decoders may return a partly grey image for a file that was cut off, so the end of every format is looked for first.
With a wanted size the header is read first too, since files of any size are then decoded, also of one too many pixels.
"""

import io
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from PIL import JpegImagePlugin, PngImagePlugin, WebPImagePlugin

SIZES = (16, 4096)  # least and greatest side of a resized patch, in pixels
MOST_PIXELS = 2**28
JPEG_END = b"\xff\xd9"
GIF_IMAGE, GIF_EXTENSION, GIF_END = b",!;"  # what begins each block of a GIF: GIF89a, sections 20, 23 to 27
TIFF_TYPE_FORMATS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q"}
TIFF_TYPE_BYTES = dict(zip((*range(1, 14), 16, 17, 18), (1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 8, 8, 8), strict=True))
TIFF_WIDTH, TIFF_HEIGHT = 256, 257
TIFF_OFFSETS, TIFF_BYTE_COUNTS = (273, 324), (279, 325)  # of strips, of tiles: TIFF 6.0, sections 3 and 15
TIFF_WANTED = frozenset({TIFF_WIDTH, TIFF_HEIGHT, *TIFF_OFFSETS, *TIFF_BYTE_COUNTS})


def read_image(path: Path, size: int | None = None, bounded: bool = False) -> tuple[np.ndarray, tuple[int, int]]:
    """Reads and decodes one image file.

    Args:
        path: the file.
        size: as in `decode_rgb`.
        bounded: as in `decode_rgb`.

    Returns:
        RGB pixels, uint8 (H, W, 3), and the file's size in bytes and mtime in ns.

    Raises:
        ValueError: when the file cannot be read or `decode_rgb` refuses it; the text names the file and the cure.
    """
    try:
        with open(path, "rb", buffering=0) as stream:
            status = os.fstat(stream.fileno())
            data = stream.read()
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}); restore the file or allow reading it.") from None
    return decode_rgb(data, str(path), size, bounded), (status.st_size, status.st_mtime_ns)


def decode_rgb(data: bytes, name: str, size: int | None = None, bounded: bool = False) -> np.ndarray:
    """Decodes a TIFF, PNG, JPEG, WebP or still GIF file, recognised by its content.

    Args:
        data: the whole file.
        name: how the file is called in an error.
        size: side in pixels to which the image is resized, as `resize` does; greyscale becomes RGB then. None keeps the
            image's own size and takes RGB only.
        bounded: refuses by the header an image that has a side under 16 pixels, or more pixels than 2**28 or than the free
            memory holds; always done with a size. It takes 0.1 ms and more, so small patches, all of one size, do without.

    Returns:
        RGB pixels, uint8 (H, W, 3).

    Raises:
        ValueError: when the file is no image, is cut off, is not 8-bit RGB, or is out of bounds; the text names the
            file and the cure.
    """
    check = _require_whole(data, name)
    if size or bounded:
        _require_extent(data, name, check)
    pixels = _decode(data)
    if pixels is None:
        raise ValueError(_cannot_decode(name))
    grey = pixels.ndim == 2
    kind = "" if size and grey and pixels.dtype == np.uint8 else _describe_wrong(pixels)
    if kind:
        raise ValueError(f"{name} is {kind}, expected 8-bit RGB; convert it or remove it and its label.")
    return cv2.cvtColor(resize(pixels, size) if size else pixels, cv2.COLOR_GRAY2RGB if grey else cv2.COLOR_BGR2RGB)


def resize(pixels: np.ndarray, size: int) -> np.ndarray:
    """Resizes pixels to a square, as the published systems did: the aspect ratio is not kept.

    Args:
        pixels: uint8 (H, W) or (H, W, 3).
        size: side of the square in pixels.

    Returns:
        uint8 (size, size) or (size, size, 3). A side that shrinks is averaged over areas, one that grows is cubic.
    """
    height, width = pixels.shape[:2]
    pixels = cv2.resize(pixels, (min(width, size), min(height, size)), interpolation=cv2.INTER_AREA)
    return cv2.resize(pixels, (size, size), interpolation=cv2.INTER_CUBIC)


def check_size(size: int | None) -> None:
    """Makes sure that patches can be resized to a side of `size` pixels; None, for their own size, always passes.

    Raises:
        ValueError: when it is no whole number from 16 to 4,096.
    """
    whole = isinstance(size, int | np.integer) and not isinstance(size, bool)
    if size is not None and not (whole and SIZES[0] <= size <= SIZES[1]):
        allowed = f"{SIZES[0]} to {SIZES[1]:,} pixels"
        raise ValueError(f"The size must be a whole number, {allowed}, and is {size}; leave it out to keep the images' own.")


@contextmanager
def silent_decoders() -> Iterator[None]:
    """Keeps OpenCV from writing about broken files to stderr: they are reported in one sentence."""
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(level)


def _require_whole(data: bytes, name: str) -> Callable[[bytes], bool]:
    """Refuses what is no whole image or several; returns the function of `CHECKS` for its format."""
    check = next((check for magic, check in CHECKS if data.startswith(magic)), None)
    if check is None or (check is _is_whole_webp and data[8:12] != b"WEBP"):
        what = "is empty" if not data else "is not an image (expected TIFF, PNG, JPEG, WebP or GIF)"
        raise ValueError(f"{name} {what}; restore the file or remove it and its label.")
    try:
        whole = check(data)
    except (struct.error, IndexError, KeyError, OverflowError):
        whole = False
    if not whole:
        what = f"is cut off or damaged ({len(data):,} bytes)"
        raise ValueError(f"{name} {what}; copy or download the file again, or save it as PNG.")
    if check is _is_whole_gif and _count_gif_frames(data) > 1:
        raise ValueError(f"{name} is an animated GIF, expected one still image; save one frame or remove it and its label.")
    return check


def _require_extent(data: bytes, name: str, check: Callable[[bytes], bool]) -> None:
    """Refuses, by its header alone, an image too small to say anything or too large for the memory."""
    try:
        width, height = _read_extent(data, check)
    except (OSError, SyntaxError, ValueError, LookupError, struct.error):  # Pillow calls a broken header a syntax error
        raise ValueError(_cannot_decode(name)) from None
    if min(width, height) < SIZES[0]:
        expected = f"expected at least {SIZES[0]} pixels a side"
        raise ValueError(f"{name} is {width}×{height} pixels, {expected}; give a larger image or remove it and its label.")
    if width * height > MOST_PIXELS or 3 * width * height > _count_free_bytes():
        allowed = f"{MOST_PIXELS:,} pixels at most, in {_count_free_bytes() / 1e9:.1f} GB of free memory"
        raise ValueError(f"{name} is {width:,}×{height:,} pixels, expected {allowed}; cut it into tiles or reduce it.")


def _cannot_decode(name: str) -> str:
    """Says that a file which seems whole is no image all the same."""
    return f"{name} cannot be decoded; copy or download the file again, or save it as PNG."


def _decode(data: bytes) -> np.ndarray | None:
    """Returns pixels as they are stored, channels in the order blue, green, red; None for what cannot be decoded."""
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:  # such as a width of millions in a damaged header
        return None


def _describe_wrong(pixels: np.ndarray) -> str:
    """Names what keeps decoded pixels from being 8-bit RGB; empty when nothing does."""
    if pixels.dtype != np.uint8:
        return f"a {8 * pixels.dtype.itemsize}-bit image"
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    known = {1: "a greyscale image", 3: "", 4: "an image with an alpha channel (RGBA)"}
    return known.get(channels, f"an image of {channels} channels")


def _is_whole_jpeg(data: bytes) -> bool:
    """Finds an end-of-image marker after the first scan; a thumbnail's own marker lies before it."""
    position = 2
    while data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        position += 2 + struct.unpack_from(">H", data, position + 2)[0]
        if marker == 0xDA:
            return data.rfind(JPEG_END, position) >= 0
    return False


def _is_whole_png(data: bytes) -> bool:
    """Walks the chunks to IEND and compares their checksums."""
    position = 8
    while True:
        length, kind = struct.unpack_from(">I4s", data, position)
        checksum = struct.unpack_from(">I", data, position + 8 + length)[0]
        if zlib.crc32(memoryview(data)[position + 4 : position + 8 + length]) != checksum:
            return False
        if kind == b"IEND":
            return True
        position += 12 + length


def _is_whole_webp(data: bytes) -> bool:
    """Compares the length in the RIFF header with that of the file."""
    return struct.unpack_from("<I", data, 4)[0] + 8 <= len(data)


def _is_whole_gif(data: bytes) -> bool:
    """Walks the blocks of a GIF to its last byte."""
    return _count_gif_frames(data) > 0


def _count_gif_frames(data: bytes) -> int:
    """Counts the images of a GIF; 0 when a block is of no known kind, IndexError when the end is missing."""

    def colours(flags: int) -> int:
        return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0

    position, frames = 13 + colours(data[10]), 0
    while data[position] != GIF_END:
        if data[position] == GIF_IMAGE:
            frames += 1
            position += 11 + colours(data[position + 9])
        elif data[position] == GIF_EXTENSION:
            position += 2
        else:
            return 0
        while data[position]:
            position += data[position] + 1
        position += 1
    return frames


def _is_whole_tiff(data: bytes) -> bool:
    """Checks that all strips or tiles of the first page lie inside the file."""
    values = _read_tiff_tags(data)
    offsets, sizes = ([v for t in tags for v in values.get(t, ())] for tags in (TIFF_OFFSETS, TIFF_BYTE_COUNTS))
    return 0 < len(offsets) == len(sizes) and max(map(sum, zip(offsets, sizes, strict=True))) <= len(data)


def _read_tiff_tags(data: bytes) -> dict[int, tuple[int, ...]]:
    """Returns the size, and where the pixels lie, of the first page; IndexError when a tag lies outside the file.

    Read here and not with tifffile, whose page objects would take as long as decoding does.
    """
    order = "<" if data[:2] == b"II" else ">"
    big = struct.unpack_from(order + "H", data, 2)[0] == 43
    start = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)[0]
    count = struct.unpack_from(order + ("Q" if big else "H"), data, start)[0]
    first, size = (start + 8, 20) if big else (start + 2, 12)
    values = {}
    for entry in range(first, first + count * size, size):
        tag, kind, length = struct.unpack_from(order + ("HHQ" if big else "HHI"), data, entry)
        at, room = (entry + 12, 8) if big else (entry + 8, 4)
        needed = TIFF_TYPE_BYTES[kind] * length
        if needed > room:
            at = struct.unpack_from(order + ("Q" if big else "I"), data, at)[0]
        if at + needed > len(data):
            raise IndexError(f"tag {tag} ends after the file")
        if tag in TIFF_WANTED:
            values[tag] = struct.unpack_from(f"{order}{length}{TIFF_TYPE_FORMATS[kind]}", data, at)
    return values


def _read_extent(data: bytes, check: Callable[[bytes], bool]) -> tuple[int, int]:
    """Returns width and height in pixels from the header.

    Pillow's classes are called by themselves because `Image.open` refuses large images by a limit and a warning of its own,
    as its class for GIF does; there the two numbers stand after the signature (GIF89a, section 18).
    """
    if check is _is_whole_tiff:
        tags = _read_tiff_tags(data)
        return tags[TIFF_WIDTH][0], tags[TIFF_HEIGHT][0]
    if check is _is_whole_gif:
        return struct.unpack_from("<HH", data, 6)
    with HEADERS[check](io.BytesIO(data)) as image:
        return image.size


def _count_free_bytes() -> int:
    """Returns how much memory is available without swapping; where only Linux's name for it is unknown, all there is."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


CHECKS = (
    (b"II*\0", _is_whole_tiff), (b"MM\0*", _is_whole_tiff), (b"II+\0", _is_whole_tiff), (b"MM\0+", _is_whole_tiff),
    (b"\x89PNG\r\n\x1a\n", _is_whole_png), (b"\xff\xd8\xff", _is_whole_jpeg), (b"RIFF", _is_whole_webp),
    (b"GIF87a", _is_whole_gif), (b"GIF89a", _is_whole_gif),
)  # fmt: skip
HEADERS = {
    _is_whole_png: PngImagePlugin.PngImageFile,
    _is_whole_jpeg: JpegImagePlugin.JpegImageFile,
    _is_whole_webp: WebPImagePlugin.WebPImageFile,
}
