"""Opening images: from a file, an address or a data: URL, header first, upright, in RGB."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import IO

from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import IMAGELENGTH, IMAGEWIDTH, TiffImageFile

from paddlemix.media.data_url import decode_data_url, is_data_url, shown
from paddlemix.media.fetch import FetchError, is_address
from paddlemix.media.kept import fetch_kept
from paddlemix.media.opening import DEFAULT_OPENING, MAX_PIXELS, ImageError, ImageOpening
from paddlemix.media.rgb.grey_levels import as_8_bits, has_16_bits, has_more_than_8_bits
from paddlemix.media.rgb.transparency import on_white, settle_transparent_value
from paddlemix.media.unreadable.contents import HEAD_BYTES, is_heic, what_it_is
from paddlemix.media.unreadable.missing import where_it_is_not

__all__ = ["MAX_PIXELS", "ImageError", "image_size", "open_image", "size_problem", "upright"]

MAX_ASPECT_RATIO = 200
EXIF_ORIENTATION = 0x0112
TURNED_BY_90_DEGREES = (5, 6, 7, 8)
_LIMIT_KEY = " Raise `image_pixel_limit` (IMAGE_PIXEL_LIMIT) where memory has room: decoding takes 7 bytes a pixel."


def open_image(path: str, opening: ImageOpening = DEFAULT_OPENING) -> Image.Image:
    """Decode an image.

    Args:
        path: a local file, an http(s) address or a data: URL.
        opening: what black and white are of an image of more than 8 bits, and how large an image may be.

    Returns:
        The image in RGB, turned upright by its EXIF orientation; what is transparent is white.

    Raises:
        ImageError: it is missing, broken, too large or too narrow, or the range of its values is unknown.
    """
    with _opened(path, opening) as image:
        return _upright(image, opening, shown(path))


def upright(image: Image.Image, opening: ImageOpening = DEFAULT_OPENING) -> Image.Image:
    """Convert an open image to what `open_image` gives.

    Args:
        image: in any mode; left as it is.
        opening: as that of `open_image`.

    Returns:
        The image in RGB, turned upright by its EXIF orientation; `image` itself where it is so already.

    Raises:
        ImageError: it is too large or too narrow, or the range of its values is unknown.
    """
    name = "that was given"
    _check_size(image, opening, name)
    return _upright(image, opening, name)


def image_size(path: str, opening: ImageOpening = DEFAULT_OPENING) -> tuple[int, int]:
    """Read the size of the upright image, from its header alone unless its values decide whether it can be used.

    Args:
        path: a local file, an http(s) address or a data: URL.
        opening: as that of `open_image`.

    Returns:
        Width and height in pixels.

    Raises:
        ImageError: as `open_image`, as far as the header tells; whether the range of 32-bit values is known, the values
            tell.
    """
    with _opened(path, opening) as image:
        width, height = _stored_size(image)
        orientation = _orientation(image)
        if opening.range == "bit_depth" and has_more_than_8_bits(image) and not has_16_bits(image):
            as_8_bits(image, opening.range, shown(path), is_16_bits=False)
        return (height, width) if orientation in TURNED_BY_90_DEGREES else (width, height)


def is_on_its_side(path: str, opening: ImageOpening = DEFAULT_OPENING) -> bool:
    """Tell whether an image's EXIF orientation turns it by a quarter, so that width and height change places.

    Args:
        path: a local file, an http(s) address or a data: URL.
        opening: as that of `open_image`.

    Returns:
        Whether it does.

    Raises:
        ImageError: as `open_image`, as far as the header tells.
    """
    with _opened(path, opening) as image:
        return _orientation(image) in TURNED_BY_90_DEGREES


def size_problem(width: int, height: int, pixel_limit: int | None = None) -> str | None:
    """Tell why an image or video of this size in pixels is not decoded, as a sentence without its subject."""
    most = pixel_limit or MAX_PIXELS
    if width * height > most:
        return f"has {width} x {height} pixels; at most {most} are read."
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        return f"is {width} x {height}; sides may differ by a factor of {MAX_ASPECT_RATIO}."
    return None


@contextmanager
def _opened(path: str, opening: ImageOpening) -> Iterator[Image.Image]:
    """Lend an image whose header was read; what Pillow runs into while it is lent becomes an ImageError too."""
    name = shown(path)
    _let_pillow_open(opening.pixel_limit)
    try:
        source = _source(path)
        with _identified(source) as image:
            _check_size(image, opening, name)
            _keep_from_mapping(image)
            settle_transparent_value(image)
            yield image
    except ImageError:
        raise
    except FetchError as error:
        raise ImageError(f"image {error}") from error
    except FileNotFoundError as error:
        raise ImageError(f"image {name} does not exist.{where_it_is_not(path)}") from error
    except UnidentifiedImageError as error:
        raise ImageError(f"image {name} {_why_unidentified(_head(source))}") from error
    except Image.DecompressionBombError as error:
        raise ImageError(
            f"image {name} has far more than {opening.pixel_limit} pixels, the most that are read.{_LIMIT_KEY}"
        ) from error
    except Exception as error:  # Broken bytes: the decoders raise OSError, SyntaxError, RuntimeError, TypeError ...
        raise ImageError(f"image {name} {_problem_of(error)}{_remedy(path)}") from error


def _check_size(image: Image.Image, opening: ImageOpening, name: str) -> None:
    if problem := size_problem(*image.size, opening.pixel_limit):
        is_large = image.width * image.height > opening.pixel_limit
        raise ImageError(f"image {name} {problem}{_LIMIT_KEY if is_large else ''}")


def _let_pillow_open(pixels: int) -> None:
    """Raise Pillow's own bound where a user has asked for more; every image that we open is held to its own."""
    if Image.MAX_IMAGE_PIXELS is not None and pixels > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = pixels


def _source(path: str) -> IO[bytes] | Path:
    if is_data_url(path):
        return io.BytesIO(decode_data_url(path))
    return io.BytesIO(fetch_kept(path, check=_why_no_image)) if is_address(path) else Path(path)


def _identified(source: IO[bytes] | Path) -> Image.Image:
    """Read an image's header, with the decoder of HEIC where it takes that and has it."""
    try:
        return Image.open(source)
    except UnidentifiedImageError:
        if not (is_heic(_head(source)) and _has_heif_decoder()):
            raise
        return Image.open(source)


def _keep_from_mapping(image: Image.Image) -> None:
    """Have a TIFF's pixels read, not mapped from its file.

    Pillow 12 maps uncompressed ones of 1, 2 and 4 bytes a pixel with the width and height of the upright image, which
    scrambles those that are turned by 90 degrees.
    """
    if isinstance(image, TiffImageFile):
        image.filename = ""  # without which it does not map


@cache
def _has_heif_decoder() -> bool:
    """Let Pillow read HEIC by the optional package pillow-heif; tell whether it is installed."""
    if not find_spec("pillow_heif"):
        return False
    import_module("pillow_heif").register_heif_opener()
    return True


def _head(source: IO[bytes] | Path) -> bytes:
    if isinstance(source, Path):
        with open(source, "rb") as file:
            return file.read(HEAD_BYTES)
    source.seek(0)
    return source.read(HEAD_BYTES)


def _why_no_image(body: bytes) -> str | None:
    """Tell why what stands at an address is no image, as a sentence without its subject; None where it is one."""
    try:
        with _identified(io.BytesIO(body)):
            return None
    except UnidentifiedImageError:
        return _why_unidentified(body[:HEAD_BYTES])
    except Image.DecompressionBombError:
        return None  # an image, which whoever opens it holds to its own limit
    except Exception as error:
        return _problem_of(error)


def _why_unidentified(head: bytes) -> str:
    content = what_it_is(head, "image")
    return str(content) if content else "is in no format that Pillow reads (JPEG, PNG, WebP ...)."


def _problem_of(error: Exception) -> str:
    """Say what a decoder or the system ran into, as a sentence without its subject."""
    if isinstance(error, IsADirectoryError):
        return "is a folder; expected a file."
    problem = "cannot be opened" if getattr(error, "errno", None) else "is broken or cut off"
    return f"{problem}: {getattr(error, 'strerror', None) or error}."


def _remedy(path: str) -> str:
    return " `refetch` asks for it again." if is_address(path) else ""


def _upright(image: Image.Image, opening: ImageOpening, name: str) -> Image.Image:
    image.load()
    # Pillow would copy an image that is upright already, as most are.
    is_turned = image.getexif().get(EXIF_ORIENTATION, 1) != 1
    turned = ImageOps.exif_transpose(image) if is_turned else image
    if has_more_than_8_bits(image):
        turned = as_8_bits(turned, opening.range, name, is_16_bits=has_16_bits(image))
    return on_white(turned)


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
