"""What the headers of images tell beyond what Pillow makes of them."""

from __future__ import annotations

import io
import struct
from typing import IO

from PIL import Image
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import IMAGELENGTH, IMAGEWIDTH, TiffImageFile

EXIF_ORIENTATION = 0x0112
TURNED_BY_90_DEGREES = (5, 6, 7, 8)


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Read the size of the upright image from the header of one that is not decoded yet.

    Args:
        image: opened.

    Returns:
        Width and height in pixels.
    """
    width, height = _stored_size(image)
    return (height, width) if is_on_its_side(image) else (width, height)


def is_on_its_side(image: Image.Image) -> bool:
    """Tell whether the EXIF orientation of an open image turns it by a quarter."""
    return _orientation(image) in TURNED_BY_90_DEGREES


def keep_from_mapping(image: Image.Image) -> None:
    """Have a TIFF's pixels read, not mapped from its file.

    Pillow 12 maps uncompressed ones of 1, 2 and 4 bytes a pixel with the width and height of the upright image, which
    scrambles those that are turned by 90 degrees.

    Args:
        image: opened, not decoded yet; a TIFF forgets its file's name.
    """
    if isinstance(image, TiffImageFile):
        image.filename = ""  # without which it does not map


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
