"""Opening images: from a file, an address or a data: URL, header first, upright, in RGB."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import IMAGELENGTH, IMAGEWIDTH, TiffImageFile

from paddlemix.media.data_url import decode_data_url, is_data_url, shown
from paddlemix.media.fetch import FetchError, fetch_kept, is_address

MAX_PIXELS = 89_478_485  # Pillow's own bound for what may be a decompression bomb.
MAX_ASPECT_RATIO = 200
EXIF_ORIENTATION = 0x0112
TURNED_BY_90_DEGREES = (5, 6, 7, 8)


class ImageError(ValueError):
    """An image that cannot be used; the message names it and says what was expected."""


def open_image(path: str) -> Image.Image:
    """Decode an image.

    Args:
        path: a local file, an http(s) address or a data: URL.

    Returns:
        The image in RGB, turned upright by its EXIF orientation.

    Raises:
        ImageError: it is missing, broken, too large or too narrow.
    """
    with _opened(path) as image:
        return _upright(image)


def upright(image: Image.Image) -> Image.Image:
    """Convert an open image to what `open_image` gives.

    Args:
        image: in any mode; left as it is.

    Returns:
        The image in RGB, turned upright by its EXIF orientation.

    Raises:
        ImageError: it is too large or too narrow.
    """
    if problem := size_problem(*image.size):
        raise ImageError(f"an image that was given {problem}")
    return _upright(image)


def image_size(path: str) -> tuple[int, int]:
    """Read the size of the upright image, from its header alone.

    Args:
        path: a local file, an http(s) address or a data: URL.

    Returns:
        Width and height in pixels.

    Raises:
        ImageError: as `open_image`, as far as the header tells.
    """
    with _opened(path) as image:
        width, height = _stored_size(image)
        return (height, width) if _orientation(image) in TURNED_BY_90_DEGREES else (width, height)


def is_on_its_side(path: str) -> bool:
    """Tell whether an image's EXIF orientation turns it by a quarter, so that width and height change places.

    Args:
        path: a local file, an http(s) address or a data: URL.

    Returns:
        Whether it does.

    Raises:
        ImageError: as `open_image`, as far as the header tells.
    """
    with _opened(path) as image:
        return _orientation(image) in TURNED_BY_90_DEGREES


def size_problem(width: int, height: int) -> str | None:
    """Tell why an image or video of this size in pixels is not decoded, as a sentence without its subject."""
    if width * height > MAX_PIXELS:
        return f"has {width} x {height} pixels; at most {MAX_PIXELS} are read."
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        return f"is {width} x {height}; sides may differ by a factor of {MAX_ASPECT_RATIO}."
    return None


@contextmanager
def _opened(path: str) -> Iterator[Image.Image]:
    """Lend an image whose header was read; what Pillow runs into while it is lent becomes an ImageError too."""
    name = shown(path)
    try:
        with Image.open(_source(path)) as image:
            if problem := size_problem(*image.size):
                raise ImageError(f"image {name} {problem}")
            yield image
    except ImageError:
        raise
    except FetchError as error:
        raise ImageError(f"image {error}") from error
    except FileNotFoundError as error:
        raise ImageError(f"image {name} does not exist.") from error
    except UnidentifiedImageError as error:
        raise ImageError(f"image {name} is empty or in no format that Pillow reads (JPEG, PNG, WebP ...).") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"image {name} has far more than {MAX_PIXELS} pixels, the most that are read.") from error
    except Exception as error:  # Broken bytes: the decoders raise OSError, SyntaxError, RuntimeError, TypeError ...
        problem = "cannot be opened" if getattr(error, "errno", None) else "is broken or cut off"
        raise ImageError(f"image {name} {problem}: {getattr(error, 'strerror', None) or error}.") from error


def _source(path: str) -> IO[bytes] | Path:
    if is_data_url(path):
        return io.BytesIO(decode_data_url(path))
    return io.BytesIO(fetch_kept(path)) if is_address(path) else Path(path)


def _upright(image: Image.Image) -> Image.Image:
    image.load()
    # Pillow would copy an image that is upright already, as most are.
    turned = image.getexif().get(EXIF_ORIENTATION, 1) != 1
    return (ImageOps.exif_transpose(image) if turned else image).convert("RGB")


def _stored_size(image: Image.Image) -> tuple[int, int]:
    # The size of a TIFF is upright from the start in some releases of Pillow, and after decoding in others.
    if isinstance(image, TiffImageFile):
        return image.tag_v2[IMAGEWIDTH], image.tag_v2[IMAGELENGTH]
    return image.size


def _orientation(image: Image.Image) -> int | None:
    # A PNG's getexif decodes all pixels to see what follows them; it has to only where something does.
    if isinstance(image, PngImageFile) and image.fp and not _has_metadata_behind_pixels(image.fp):
        return Image.Image.getexif(image).get(EXIF_ORIENTATION)
    return image.getexif().get(EXIF_ORIENTATION)


def _has_metadata_behind_pixels(png: IO[bytes]) -> bool:
    """Walk the heads of a PNG's chunks and leave the file where it stood."""
    start, behind_pixels, found = png.tell(), False, False
    png.seek(8)
    while len(head := png.read(8)) == 8 and not found:
        length, kind = struct.unpack(">I4s", head)
        behind_pixels = behind_pixels or kind == b"IDAT"
        found = behind_pixels and kind in (b"eXIf", b"tEXt", b"zTXt", b"iTXt")
        png.seek(length + 4, io.SEEK_CUR)
    png.seek(start)
    return found
