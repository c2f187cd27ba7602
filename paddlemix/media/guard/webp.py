"""What decoding a WebP will cost, from the heads of its chunks."""

from __future__ import annotations

import struct
from typing import IO

from paddlemix.media.guard.regular import RefusedError

# The decoder is given the whole file.
MOST_BYTES = 1 << 28
MOST_CHUNKS = 20_100  # an animation's frames, and metadata


def check_webp(file: IO[bytes], length: int) -> tuple[int, int, int]:
    """Refuse a WebP that costs far more than images of its size do.

    Args:
        file: of the image.
        length: of the file in bytes.

    Returns:
        Width and height in pixels, 0 where they are not told; and the frames, 0 of a still image.

    Raises:
        RefusedError: it is too large, or has too many chunks.
    """
    if length > MOST_BYTES:
        raise RefusedError(f"has {length} bytes; of a WebP at most {MOST_BYTES} are read.")
    width = height = frames = 0
    position = 12
    for _ in range(MOST_CHUNKS):
        file.seek(position)
        head = file.read(8)
        if len(head) < 8:
            return width, height, frames
        kind, size = struct.unpack("<4sI", head)
        if kind in _SIZES and not width:
            width, height = _SIZES[kind](file.read(10).ljust(10, b"\0"))
        frames += kind == b"ANMF"
        position += 8 + size + size % 2
    raise RefusedError(f"has more than {MOST_CHUNKS} chunks; save it anew.")


def _size_of_extended(content: bytes) -> tuple[int, int]:
    return int.from_bytes(content[4:7], "little") + 1, int.from_bytes(content[7:10], "little") + 1


def _size_of_lossy(content: bytes) -> tuple[int, int]:
    return int.from_bytes(content[6:8], "little") & 0x3FFF, int.from_bytes(content[8:10], "little") & 0x3FFF


def _size_of_lossless(content: bytes) -> tuple[int, int]:
    bits = int.from_bytes(content[1:5], "little")
    return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1


_SIZES = {b"VP8X": _size_of_extended, b"VP8 ": _size_of_lossy, b"VP8L": _size_of_lossless}
