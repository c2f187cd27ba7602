"""Which kinds of images are opened, and what is looked at before a decoder is.

A kind is told by its first bytes alone, never by its name, and Pillow is asked for that kind only: others that it would
find (EPS starts Ghostscript, FITS and the like were never meant for strangers) are not reached.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import IO

from PIL import Image

from paddlemix.media.guard.gif import check_gif
from paddlemix.media.guard.heif import check_heif
from paddlemix.media.guard.jpeg import check_jpeg
from paddlemix.media.guard.plain import check_bmp, check_pnm
from paddlemix.media.guard.png import check_png
from paddlemix.media.guard.regular import TooLargeError, length_of
from paddlemix.media.guard.tiff import check_tiff
from paddlemix.media.guard.webp import check_webp

NAMES = "JPEG, PNG, GIF, WebP, BMP, TIFF, PNM, AVIF or HEIC"
HEAD_BYTES = 64
_BEGINNINGS = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
)
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_CHECKS: dict[str, Callable[[IO[bytes], int], object]] = {
    "JPEG": check_jpeg,
    "PNG": check_png,
    "GIF": check_gif,
    "BMP": check_bmp,
    "PPM": check_pnm,
    "TIFF": check_tiff,
}


def kind_of(head: bytes) -> str | None:
    """Tell which kind of image bytes begin.

    Args:
        head: the first 64 bytes, or all there are.

    Returns:
        Pillow's name of the kind; None where images of it are not opened.
    """
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[4:8] == b"ftyp":
        brands = {head[at : at + 4] for at in (8, *range(16, min(int.from_bytes(head[:4], "big"), len(head)), 4))}
        if brands & {b"avif", b"avis"}:
            return "AVIF"
        return "HEIF" if head[8:12] in _HEIF_BRANDS else None
    if head[:1] == b"P" and head[1:2] in b"123456f" and head[2:3] in b" \t\r\n":
        return "PPM"
    return next((kind for beginning, kind in _BEGINNINGS if head.startswith(beginning)), None)


def checked_kind(file: IO[bytes], pixel_limit: int) -> str | None:
    """Tell which kind of image a file holds, and refuse one that would cost too much, before a decoder is asked.

    Args:
        file: of the image; left at its beginning.
        pixel_limit: the most pixels that are read.

    Returns:
        Pillow's name of the kind; None where the file is no image of a kind that is opened.

    Raises:
        RefusedError: it would cost too much; the message goes on from its name.
    """
    length = length_of(file)
    kind = kind_of(file.read(HEAD_BYTES))
    if kind == "WEBP":
        width, height, _ = check_webp(file, length)
        if width * height > pixel_limit:
            raise TooLargeError(f"has {width} x {height} pixels; at most {pixel_limit} are read.")
    elif kind in ("AVIF", "HEIF"):
        check_heif(file, length, pixel_limit)
    elif kind:
        _CHECKS[kind](file, length)
    file.seek(0)
    return kind if kind is None or _is_known(kind) else None


def _is_known(kind: str) -> bool:
    """Tell whether Pillow has a decoder; some come with later releases or with other packages."""
    if kind not in Image.OPEN:
        Image.init()
    return kind in Image.OPEN
