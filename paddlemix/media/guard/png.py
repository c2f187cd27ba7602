"""What decoding a PNG will cost, from the heads of its chunks."""

from __future__ import annotations

import struct
from typing import IO, NamedTuple

from paddlemix.media.guard.regular import RefusedError

# Pillow takes microseconds for each; encoders write pixels in chunks of 8 KB or more, a few write one a row.
MOST_CHUNKS = 4096
_BYTES_A_CHUNK = 128
MOST_METADATA_BYTES = 1 << 26
# Deflate makes at most so many bytes of one.
_MOST_FROM_A_BYTE = 1040
_SPARE_BYTES = 1 << 16
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


class PngChunks(NamedTuple):
    """What the heads of a PNG's chunks tell.

    Attributes:
        frames: of an animated one; 0 of a still one.
        has_metadata_behind_pixels: whether text or EXIF follows the pixels.
    """

    frames: int
    has_metadata_behind_pixels: bool


def check_png(file: IO[bytes], length: int) -> PngChunks:
    """Refuse a PNG that costs far more than images of its size do.

    Args:
        file: of the image.
        length: of the file in bytes.

    Returns:
        What its chunks tell.

    Raises:
        RefusedError: it has too many chunks, too many bytes of metadata, or too few for its pixels.
    """
    file.seek(8)
    most, count, metadata, pixels, frames = MOST_CHUNKS + length // _BYTES_A_CHUNK, 0, 0, 0, 0
    behind, raw = False, 0
    read, seek, unpack = file.read, file.seek, struct.Struct(">I4s").unpack
    position = 8
    while len(head := read(8)) == 8:
        size, kind = unpack(head)
        if kind == b"IDAT":
            pixels += min(size, length - position)
        elif kind == b"IHDR":
            raw = _raw_bytes(read(13))
        elif kind == b"fcTL":
            frames += 1
        elif kind == b"IEND":
            break
        elif kind != b"fdAT":
            metadata += size
            behind = behind or (pixels > 0 and kind in (b"eXIf", b"tEXt", b"zTXt", b"iTXt"))
        count += 1
        if count > most:
            raise RefusedError(f"has more than {most} chunks; save it anew.")
        position += size + 12
        seek(position)
    if metadata > MOST_METADATA_BYTES:
        raise RefusedError(f"has {metadata} bytes of metadata; at most {MOST_METADATA_BYTES} are read. Save it anew.")
    if raw > _SPARE_BYTES + pixels * _MOST_FROM_A_BYTE:
        raise RefusedError(f"is broken or cut off: the {pixels} bytes of its pixels are too few for its size.")
    return PngChunks(frames, behind)


def _raw_bytes(header: bytes) -> int:
    """Count the bytes of all pixels before they were compressed."""
    if len(header) < 13:
        return 0
    width, height, bits, colours = struct.unpack(">IIBB", header[:10])
    return int(height * (1 + (width * bits * _CHANNELS.get(colours, 1) + 7) // 8))
