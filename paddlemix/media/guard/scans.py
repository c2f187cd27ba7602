"""How often decoding a JPEG goes over its pixels."""

from __future__ import annotations

from typing import IO

from paddlemix.media.guard.regular import RefusedError

# Encoders write about ten scans. Each is a pass over all coefficients.
MOST_SCANS = 100
MOST_SCANNED_PIXELS = 1 << 31
_USUAL_SCANS = 20
_CHUNK = 1 << 20


def check_scans(file: IO[bytes], start: int, images: int, pixels: int) -> None:
    """Count scans without decoding: among the bytes of JPEG pixels nothing else looks like the start of one.

    Args:
        file: with one JPEG, or several of one size.
        start: where to begin.
        images: how many there are.
        pixels: of all of them.

    Raises:
        RefusedError: an image has too many on average.
    """
    most = min(MOST_SCANS, max(MOST_SCANNED_PIXELS // max(pixels, 1), _USUAL_SCANS))
    file.seek(start)
    scans, last = 1, b""
    while chunk := file.read(_CHUNK):
        scans += (last + chunk).count(b"\xff\xda")
        last = chunk[-1:]
        if scans > most * images:
            raise RefusedError(
                f"is stored in more than {most} scans, each a pass over its {pixels} pixels; save it anew."
            )
