"""What the headers of images tell beyond what Pillow makes of them."""

from __future__ import annotations

from PIL import Image
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import IMAGELENGTH, IMAGEWIDTH, TiffImageFile

from paddlemix.media.guard.png import check_png
from paddlemix.media.guard.regular import length_of
from paddlemix.media.guard.tiff import check_directory

EXIF_ORIENTATION = 0x0112
TURNED_BY_90_DEGREES = (5, 6, 7, 8)
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_WHERE_ORIENTATIONS_ARE = ("exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp")


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


def turned_upright(image: Image.Image) -> Image.Image:
    """Turn a decoded image as its EXIF orientation says.

    Args:
        image: decoded; left as it is.

    Returns:
        The image upright, without EXIF; itself, not a copy, where it is so already.
    """
    _check_exif(image)
    method = _TURNS.get(image.getexif().get(EXIF_ORIENTATION, 1))
    if method is None:
        return image
    turned = image.transpose(method)
    for name in _WHERE_ORIENTATIONS_ARE:
        turned.info.pop(name, None)
    return turned


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
    _check_exif(image)
    # A PNG's getexif decodes all pixels to see what follows them; it has to only where something does.
    if isinstance(image, PngImageFile) and image.fp and not image.fp.closed:
        start, length = image.fp.tell(), length_of(image.fp)
        is_told = not check_png(image.fp, length).has_metadata_behind_pixels
        image.fp.seek(start)
        if is_told:
            return Image.Image.getexif(image).get(EXIF_ORIENTATION)
    return image.getexif().get(EXIF_ORIENTATION)


def _check_exif(image: Image.Image) -> None:
    """Refuse EXIF that takes long to read before Pillow reads it; that of a JPEG or TIFF was checked with its file."""
    if exif := image.info.get("exif"):
        check_directory(exif, "its EXIF")
    elif profile := image.info.get("Raw profile type exif"):  # of a PNG, as a text of hexadecimal digits
        check_directory(bytes.fromhex("".join(profile.split("\n")[3:])), "its EXIF")
