"""What decoding a JPEG will cost, from its markers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO

from paddlemix.media.guard.regular import RefusedError
from paddlemix.media.guard.scans import check_scans
from paddlemix.media.guard.tiff import check_directory

# Each segment is kept by Pillow, 64 KB at most: photographs with depth maps in their metadata have about a hundred.
MOST_SEGMENTS = 512
# Bytes between segments, over which Pillow goes one by one.
MOST_JUNK = 4096
MOST_EXIF_BYTES = 1 << 20
# A block of 64 pixels takes a bit at least; where components are subsampled in different directions, 4 blocks do.
_PIXELS_A_BYTE = 64 * 8 * 4
_SPARE_PIXELS = 1 << 20  # which cost next to nothing, whatever the file holds

_SOS = 0xDA
_WITHOUT_LENGTH = {0x01, 0xC8, 0xD8, 0xD9, *range(0xD0, 0xD8), *range(0xF0, 0xFE)}
_SIZES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}


def check_jpeg(file: IO[bytes], length: int) -> None:
    """Refuse a JPEG that costs far more than images of its size do.

    Args:
        file: of the image.
        length: of the file in bytes.

    Raises:
        RefusedError: it has too many scans, segments or bytes between them, metadata that claim more than they have, or
            too few bytes for its pixels.
    """
    file.seek(2)
    pixels, components, is_progressive, exif = 0, 0, False, bytearray()
    for place, marker in enumerate(_markers(file)):
        if place == MOST_SEGMENTS:
            raise RefusedError(f"has more than {MOST_SEGMENTS} segments of metadata; save it anew without them.")
        if marker in _WITHOUT_LENGTH:
            continue
        head = file.read(2)
        body = int.from_bytes(head, "big") - 2
        if len(head) < 2 or body < 0:
            return  # broken, as the decoder will tell
        end = file.tell() + body
        if marker in _SIZES:
            frame = file.read(min(body, 6))
            if len(frame) == 6:
                pixels = int.from_bytes(frame[1:3], "big") * int.from_bytes(frame[3:5], "big")
                components, is_progressive = frame[5], marker in _PROGRESSIVE
        elif marker == 0xE1 and body > 6:
            start = file.read(6)
            if start == b"Exif\0\0":
                exif += file.read(body - 6)
                if len(exif) > MOST_EXIF_BYTES:
                    raise RefusedError("has more than 1 MB of EXIF; save it anew without.")
        elif marker == 0xE2 and file.read(min(body, 4)) == b"MPF\0":
            check_directory(file.read(body - 4), "its list of images")
        elif marker == _SOS:
            shown = file.read(1)
            if exif:
                check_directory(bytes(exif), "its EXIF")
            if pixels > _SPARE_PIXELS + length * _PIXELS_A_BYTE:
                raise RefusedError(f"has {length} bytes, too few for its {pixels} pixels.")
            if is_progressive or (shown and shown[0] < components):
                check_scans(file, end, pixels)
            return
        file.seek(end)


def _markers(file: IO[bytes]) -> Iterator[int]:
    """Go from marker to marker as Pillow does; whoever is given one reads on from the end of its segment."""
    junk = 0
    while byte := file.read(1):
        is_marker = False
        while byte == b"\xff":
            byte = file.read(1)
            is_marker, junk = True, junk + 1
            if junk > MOST_JUNK:
                raise RefusedError(_JUNK)
        if is_marker and byte and byte != b"\0":
            junk -= 1
            yield byte[0]
        junk += 1
        if junk > MOST_JUNK:
            raise RefusedError(_JUNK)


_JUNK = f"has more than {MOST_JUNK} bytes between its segments; it is broken, or made to be slow."
