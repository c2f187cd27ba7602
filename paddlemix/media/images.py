"""Opening images: from a file, an address or a data: URL, header first, upright, in RGB."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import IO

from PIL import Image, UnidentifiedImageError

from paddlemix.media.data_url import decode_data_url, is_data_url, shown
from paddlemix.media.fetch import FetchError, is_address
from paddlemix.media.guard.animation import check_animation
from paddlemix.media.guard.formats import NAMES, checked_kind
from paddlemix.media.guard.regular import RefusedError, TooLargeError, open_regular
from paddlemix.media.image_headers import is_on_its_side, keep_from_mapping, turned_upright, upright_size
from paddlemix.media.kept import fetch_kept
from paddlemix.media.opening import DEFAULT_OPENING, MAX_PIXELS, ImageError, ImageOpening
from paddlemix.media.rgb.grey_levels import as_8_bits, has_16_bits, has_more_than_8_bits
from paddlemix.media.rgb.transparency import on_white, settle_transparent_value
from paddlemix.media.unreadable.contents import HEAD_BYTES, is_heic, what_it_is
from paddlemix.media.unreadable.missing import where_it_is_not

__all__ = [
    "MAX_PIXELS",
    "ImageError",
    "image_size",
    "lent_image",
    "lies_on_its_side",
    "open_image",
    "size_problem",
    "upright",
]

MAX_ASPECT_RATIO = 200
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
    with lent_image(path, opening) as image:
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
    with lent_image(path, opening) as image:
        size = upright_size(image)
        if opening.range == "bit_depth" and has_more_than_8_bits(image) and not has_16_bits(image):
            as_8_bits(image, opening.range, shown(path), is_16_bits=False)
        return size


def lies_on_its_side(path: str, opening: ImageOpening = DEFAULT_OPENING) -> bool:
    """Tell whether an image's EXIF orientation turns it by a quarter, so that width and height change places.

    Args:
        path: a local file, an http(s) address or a data: URL.
        opening: as that of `open_image`.

    Returns:
        Whether it does.

    Raises:
        ImageError: as `open_image`, as far as the header tells.
    """
    with lent_image(path, opening) as image:
        return is_on_its_side(image)


def size_problem(width: int, height: int, pixel_limit: int | None = None) -> str | None:
    """Tell why an image or video of this size in pixels is not decoded, as a sentence without its subject."""
    most = pixel_limit or MAX_PIXELS
    if width * height > most:
        return f"has {width} x {height} pixels; at most {most} are read."
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        return f"is {width} x {height}; sides may differ by a factor of {MAX_ASPECT_RATIO}."
    return None


@contextmanager
def lent_image(path: str, opening: ImageOpening, *, every_frame: bool = False) -> Iterator[Image.Image]:
    """Lend an image whose header was read; what Pillow runs into while it is lent becomes an ImageError too.

    Args:
        path: a local file, an http(s) address or a data: URL.
        opening: as that of `open_image`.
        every_frame: whether all frames of an animated image will be decoded.

    Yields:
        The image, not decoded yet.

    Raises:
        ImageError: as `open_image`.
    """
    name = shown(path)
    _let_pillow_open(opening.pixel_limit)
    try:
        with _source(path) as source, _identified(source, opening.pixel_limit) as image:
            _check_size(image, opening, name)
            if every_frame:
                position = source.tell()
                check_animation(source, str(image.format), *image.size)
                source.seek(position)
            keep_from_mapping(image)
            settle_transparent_value(image)
            yield image
    except ImageError:
        raise
    except FetchError as error:
        raise ImageError(f"image {error}") from error
    except FileNotFoundError as error:
        raise ImageError(f"image {name} does not exist.{where_it_is_not(path)}") from error
    except TooLargeError as error:
        raise ImageError(f"image {name} {error}{_LIMIT_KEY}") from error
    except (RefusedError, UnidentifiedImageError) as error:
        raise ImageError(f"image {name} {error}") from error
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


def _source(path: str) -> IO[bytes]:
    if is_data_url(path):
        return io.BytesIO(decode_data_url(path))
    return io.BytesIO(fetch_kept(path, check=_why_no_image)) if is_address(path) else open_regular(path)


def _identified(source: IO[bytes], pixel_limit: int) -> Image.Image:
    """Read an image's header, with the decoder of its kind alone.

    Args:
        source: of the image.
        pixel_limit: the most pixels that are read.

    Returns:
        The image, not decoded yet.

    Raises:
        RefusedError: decoding it would cost too much; the message goes on from the image's name.
        UnidentifiedImageError: it is of no kind that is opened; the message goes on likewise.
    """
    kind = checked_kind(source, pixel_limit)
    if kind is None and is_heic(_head(source)) and _has_heif_decoder():
        kind = checked_kind(source, pixel_limit)
    if kind is None:
        raise UnidentifiedImageError(_why_unidentified(_head(source)))
    try:
        return Image.open(source, formats=(kind,))
    except UnidentifiedImageError as error:
        raise UnidentifiedImageError(
            f"is broken or cut off: it begins as {kind} and does not go on as such."
        ) from error


@cache
def _has_heif_decoder() -> bool:
    """Let Pillow read HEIC by the optional package pillow-heif; tell whether it is installed."""
    if not find_spec("pillow_heif"):
        return False
    import_module("pillow_heif").register_heif_opener()
    return True


def _head(source: IO[bytes]) -> bytes:
    source.seek(0)
    return source.read(HEAD_BYTES)


def _why_no_image(body: bytes) -> str | None:
    """Tell why what stands at an address is no image, as a sentence without its subject; None where it is one."""
    try:
        with _identified(io.BytesIO(body), MAX_PIXELS):
            return None
    except (RefusedError, Image.DecompressionBombError):
        return None  # an image, which whoever opens it holds to its own limit
    except UnidentifiedImageError as error:
        return str(error)
    except Exception as error:
        return _problem_of(error)


def _why_unidentified(head: bytes) -> str:
    content = what_it_is(head, "image")
    return str(content) if content else f"is in no format that is read; expected {NAMES}."


def _problem_of(error: Exception) -> str:
    """Say what a decoder or the system ran into, as a sentence without its subject."""
    problem = "cannot be opened" if getattr(error, "errno", None) else "is broken or cut off"
    return f"{problem}: {getattr(error, 'strerror', None) or error}."


def _remedy(path: str) -> str:
    return " `refetch` asks for it again." if is_address(path) else ""


def _upright(image: Image.Image, opening: ImageOpening, name: str) -> Image.Image:
    image.load()
    turned = turned_upright(image)
    if has_more_than_8_bits(image):
        turned = as_8_bits(turned, opening.range, name, is_16_bits=has_16_bits(image))
    return on_white(turned)
