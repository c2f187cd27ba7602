"""How often decoding a JPEG goes over its pixels."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import IO

from paddlemix.media.guard.regular import RefusedError

# Encoders write about ten scans. Each is a pass over all coefficients.
MOST_SCANS = 100
MOST_SCANNED_PIXELS = 1 << 31
_USUAL_SCANS = 20
# Tables and comments between scans, of which encoders write a few before each.
MOST_SEGMENTS = 2000
_CHUNK = 1 << 16
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
# What pixels have: a byte of 255 is followed by 0, by a counted restart, or by itself to fill up.
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")


def check_scans(file: IO[bytes], start: int, pixels: int) -> None:
    """Count the scans of a JPEG without decoding, up to its end: other images or a video may follow.

    Args:
        file: of the image.
        start: where its first scan begins.
        pixels: of the image.

    Raises:
        RefusedError: it has too many, or too much between them.
    """
    scans, most = 1, _most(pixels)
    file.seek(start)
    for place, marker in enumerate(_markers(file)):
        if marker == _END_OF_IMAGE:
            return
        scans += marker == _START_OF_SCAN
        if scans > most:
            raise RefusedError(_too_many(most, pixels))
        if place == MOST_SEGMENTS:
            raise RefusedError(f"has more than {MOST_SEGMENTS} segments between its scans; save it anew.")
        length = int.from_bytes(file.read(2), "big")
        if length < 2:
            return  # broken, as the decoder will tell
        file.seek(length - 2, 1)


def check_scans_of_pieces(file: IO[bytes], pieces: int, pixels: int) -> None:
    """Count what looks like the start of a scan, anywhere in a file of several JPEGs.

    Args:
        file: of strips or tiles, each a JPEG.
        pieces: how many there are.
        pixels: of all of them.

    Raises:
        RefusedError: one has too many on average.
    """
    most = _most(pixels)
    file.seek(0)
    scans, last = 0, b""
    while chunk := file.read(_CHUNK):
        scans += (last + chunk).count(b"\xff\xda")
        last = chunk[-1:]
        if scans > most * pieces:
            raise RefusedError(_too_many(most, pixels))


def _markers(file: IO[bytes]) -> Iterator[int]:
    """Go from marker to marker; whoever is given one leaves the file behind its segment."""
    last = b""
    while chunk := last + file.read(_CHUNK):
        if found := _MARKER.search(chunk):
            file.seek(found.end() - len(chunk), 1)
            last = b""
            yield chunk[found.end() - 1]
        elif len(chunk) == 1:
            return
        else:
            last = chunk[-1:]


def _most(pixels: int) -> int:
    return min(MOST_SCANS, max(MOST_SCANNED_PIXELS // max(pixels, 1), _USUAL_SCANS))


def _too_many(most: int, pixels: int) -> str:
    return f"is stored in more than {most} scans, each a pass over its {pixels} pixels; save it anew."
