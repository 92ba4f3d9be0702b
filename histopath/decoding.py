"""Decodes one image file and refuses what is not a complete 8-bit RGB image. In: bytes of a file. Out: RGB pixels.

Decoders may return a partly grey image for a file that was cut off, so the end of every format is looked for first.
"""

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import numpy as np

JPEG_END = b"\xff\xd9"
TIFF_TYPE_FORMATS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q"}
TIFF_TYPE_BYTES = dict(zip((*range(1, 14), 16, 17, 18), (1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 8, 8, 8), strict=True))
TIFF_OFFSETS, TIFF_BYTE_COUNTS = (273, 324), (279, 325)  # of strips, of tiles: TIFF 6.0, sections 3 and 15


def decode_rgb(data: bytes, name: str) -> np.ndarray:
    """Decodes a TIFF, PNG, JPEG or WebP file, recognised by its content.

    Args:
        data: the whole file.
        name: how the file is called in an error.

    Returns:
        RGB pixels, uint8 (H, W, 3).

    Raises:
        ValueError: when the file is no image, is cut off, or is not 8-bit RGB; the text names the file and the cure.
    """
    check = next((check for magic, check in CHECKS if data.startswith(magic)), None)
    if check is None or (check is _is_whole_webp and data[8:12] != b"WEBP"):
        what = "is empty" if not data else "is not an image (expected TIFF, PNG, JPEG or WebP)"
        raise ValueError(f"{name} {what}; restore the file or remove it and its label.")
    try:
        whole = check(data)
    except (struct.error, IndexError, KeyError):
        whole = False
    pixels = _decode(data) if whole else None
    if pixels is None:
        what = "cannot be decoded" if whole else f"is cut off or damaged ({len(data):,} bytes)"
        raise ValueError(f"{name} {what}; copy or download the file again, or save it as PNG.")
    kind = _describe_wrong(pixels)
    if kind:
        raise ValueError(f"{name} is {kind}, expected 8-bit RGB; convert it or remove it and its label.")
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


@contextmanager
def silent_decoders() -> Iterator[None]:
    """Keeps OpenCV from writing about broken files to stderr: they are reported in one sentence."""
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(level)


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


def _is_whole_tiff(data: bytes) -> bool:
    """Checks that all strips or tiles of the first page lie inside the file.

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
            return False
        if tag in TIFF_OFFSETS or tag in TIFF_BYTE_COUNTS:
            values[tag] = struct.unpack_from(f"{order}{length}{TIFF_TYPE_FORMATS[kind]}", data, at)
    offsets, sizes = ([v for t in tags for v in values.get(t, ())] for tags in (TIFF_OFFSETS, TIFF_BYTE_COUNTS))
    return 0 < len(offsets) == len(sizes) and max(map(sum, zip(offsets, sizes, strict=True))) <= len(data)


CHECKS = (
    (b"II*\0", _is_whole_tiff), (b"MM\0*", _is_whole_tiff), (b"II+\0", _is_whole_tiff), (b"MM\0+", _is_whole_tiff),
    (b"\x89PNG\r\n\x1a\n", _is_whole_png), (b"\xff\xd8\xff", _is_whole_jpeg), (b"RIFF", _is_whole_webp),
)  # fmt: skip
