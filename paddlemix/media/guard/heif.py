"""What decoding an AVIF or a HEIC will cost, from its boxes."""

from __future__ import annotations

import re
from typing import IO

from paddlemix.media.guard.mp4 import boxes
from paddlemix.media.guard.regular import RefusedError, TooLargeError

# The decoder is given the whole file.
MOST_BYTES = 1 << 28
MOST_BOXES = 10_000
MOST_META_BYTES = 1 << 22
_SIZE = re.compile(rb"ispe\0\0\0\0(.{8})", re.DOTALL)


def check_heif(file: IO[bytes], length: int, pixel_limit: int) -> None:
    """Refuse an image in boxes that is larger than its file's size allows, by all the sizes that it names.

    Args:
        file: of the image.
        length: of the file in bytes.
        pixel_limit: the most pixels of one image in it.

    Raises:
        RefusedError: it is too large, or has too many boxes or too large a list of its images.
    """
    if length > MOST_BYTES:
        raise RefusedError(f"has {length} bytes; of an AVIF or a HEIC at most {MOST_BYTES} are read.")
    refusal = f"has more than {MOST_BOXES} boxes; save it anew."
    for kind, start, _, end in boxes(file, 0, length, most=MOST_BOXES, refusal=refusal):
        if kind in (b"meta", b"moov"):
            _check_list(file, start, end - start, pixel_limit)


def _check_list(file: IO[bytes], start: int, size: int, pixel_limit: int) -> None:
    if size > MOST_META_BYTES:
        raise RefusedError(f"lists its images in {size} bytes; at most {MOST_META_BYTES} are read. Save it anew.")
    file.seek(start)
    for found in _SIZE.finditer(file.read(size)):
        width, height = int.from_bytes(found[1][:4], "big"), int.from_bytes(found[1][4:], "big")
        if width * height > pixel_limit:
            raise TooLargeError(f"has {width} x {height} pixels; at most {pixel_limit} are read.")
