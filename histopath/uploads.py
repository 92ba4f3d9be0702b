"""Images from strangers. In: the path of an uploaded file. Out: RGB pixels, or one sentence that says what is wrong with it."""

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

FORMATS = ("PNG", "JPEG", "TIFF", "WEBP")
MOST_BYTES = 20_000_000
MOST_PIXELS = 16_000_000  # 4000×4000: 7,000 windows


def read_upload(path: Path) -> np.ndarray:
    """Reads an image that a person uploaded; a camera's rotation is applied and transparency becomes white.

    Args:
        path: a file whose content may be anything; only its name appears in errors.

    Returns:
        RGB pixels, uint8 (H, W, 3).

    Raises:
        ValueError: when it is too large, no such image, cut off, or of a kind without 8-bit colours; the text says the cure.
    """
    name = path.name
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(
            f"{name} has {path.stat().st_size / 1e6:.0f} MB, and this page takes {MOST_BYTES / 1e6:.0f}; cut out a part."
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of damaged tags; what matters ends in an error
        with _open(path) as image:
            width, height = image.size
            if width * height > MOST_PIXELS:
                raise ValueError(
                    f"{name} has {width:,}×{height:,} pixels, and this page takes {MOST_PIXELS / 1e6:.0f} million; cut out a "
                    "part, or use the command `slide` for a whole slide."
                )
            try:
                upright = ImageOps.exif_transpose(image)
                upright.load()
            except Exception as error:  # of a damaged file Pillow raises nearly anything
                raise _damaged(name, error) from None
            return _as_rgb(upright, name)


def _open(path: Path) -> Image.Image:
    try:
        return Image.open(path, formats=FORMATS)
    except UnidentifiedImageError:
        raise ValueError(f"{path.name} is not a PNG, JPEG, TIFF or WebP image; save it as one of these.") from None
    except Image.DecompressionBombError:
        raise ValueError(f"{path.name} unpacks to far too many pixels; cut out a part.") from None
    except Exception as error:
        raise _damaged(path.name, error) from None


def _damaged(name: str, error: Exception) -> ValueError:
    return ValueError(f"{name} is damaged or cut off ({' '.join(str(error).split())}); save it again.")


def _as_rgb(image: Image.Image, name: str) -> np.ndarray:
    if image.mode in ("RGBA", "LA", "PA", "P"):
        whole = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", whole.size, "white"), whole)
    elif image.mode not in ("RGB", "L"):
        raise ValueError(f"{name} has pixels of the kind {image.mode}, and this page takes 8-bit RGB; convert it.")
    return np.asarray(image.convert("RGB"))
