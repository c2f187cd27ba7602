"""What decoding a BMP or a PNM will cost, from its header."""

from __future__ import annotations

import re
import struct
from typing import IO

from paddlemix.media.guard.regular import RefusedError

# Pillow decodes these kinds in Python, pixel by pixel.
MOST_SLOW_PIXELS = 1 << 20
MOST_SLOW_BYTES = 1 << 22
_FASTER = 4  # times that much, where no digits are read
_HEADERS = (12, 40, 52, 56, 64, 108, 124)
_RUN_LENGTHS = (1, 2)
_PNM_HEADER_BYTES = 1 << 12
_SPACE = rb"(?:\s|#[^\r\n]*[\r\n])+"
_PNM = re.compile(
    rb"P([1-6f])" + _SPACE + rb"(\d{1,10})" + _SPACE + rb"(\d{1,10})(?:" + _SPACE + rb"(-?[\d.]{1,10}))?\s"
)


def check_bmp(file: IO[bytes], length: int) -> None:
    """Refuse a BMP that costs far more than images of its size do.

    Args:
        file: of the image.
        length: of the file in bytes.

    Raises:
        RefusedError: it is cut off, its header is of no known kind, or it is compressed and large.
    """
    file.seek(0)
    head = file.read(34)
    if len(head) < 34:
        return
    start, size = struct.unpack("<II", head[10:18])
    if size not in _HEADERS:
        raise RefusedError(f"is broken: a BMP has no header of {size} bytes.")
    width, height, _, bits = struct.unpack(
        "<HHHH" if size == 12 else "<iiHH", head[18:26] if size == 12 else head[18:30]
    )
    compression = int.from_bytes(head[30:34], "little") if size > 12 else 0
    pixels = abs(width) * abs(height)
    if compression in _RUN_LENGTHS:
        _check_slow("is a compressed BMP", pixels, length)
    elif start + (width * bits + 31) // 32 * 4 * abs(height) > length + 3:
        raise RefusedError(f"is broken or cut off: it has {length} bytes, too few for its {width} x {height} pixels.")


def check_pnm(file: IO[bytes], length: int) -> None:
    """Refuse a PNM that costs far more than images of its size do.

    Args:
        file: of the image.
        length: of the file in bytes.

    Raises:
        RefusedError: it has no plain header, is cut off, or is large and written in digits or in odd steps of grey.
    """
    file.seek(0)
    found = _PNM.match(file.read(_PNM_HEADER_BYTES))
    if not found:
        raise RefusedError("is broken: expected the kind, width, height and greatest value of a PNM.")
    kind, width, height = found[1], int(found[2]), int(found[3])
    most = found[4] or b"1"
    if kind in b"123":
        _check_slow("is a PNM of digits", width * height, length)
        return
    if kind in b"56" and most not in (b"255", b"65535"):
        _check_slow(f"is a PNM of values up to {most.decode()}", width * height, length, _FASTER)
    bytes_a_row = {b"4": (width + 7) // 8, b"5": width, b"6": 3 * width, b"f": 4 * width}[kind]
    if bytes_a_row * height > length:
        raise RefusedError(f"is broken or cut off: it has {length} bytes, too few for its {width} x {height} pixels.")


def _check_slow(what: str, pixels: int, length: int, times: int = 1) -> None:
    most_pixels, most_bytes = times * MOST_SLOW_PIXELS, times * MOST_SLOW_BYTES
    if pixels > most_pixels or length > most_bytes:
        raise RefusedError(
            f"{what} and decoded slowly: {pixels} pixels in {length} bytes, where at most {most_pixels} in "
            f"{most_bytes} are read. Save it as PNG."
        )
