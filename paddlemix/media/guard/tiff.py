"""What decoding a TIFF will cost, from its first directory; and what reading EXIF costs, which is such a directory."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import IO

import numpy as np

from paddlemix.media.guard.regular import RefusedError
from paddlemix.media.guard.scans import check_scans_of_pieces

MOST_ENTRIES = 4096
# Values of a directory lie beside one another, so that together they have no more bytes than the file; the second half
# is for writers that let a few of them share a place.
_OVERLAP = 2
_SPARE_BYTES = 1 << 16
MOST_TILE_BYTES = 1 << 26
# Strips whose bytes are shared (empty ones) are read over and over.
_SHARED = 4
_UNIT_BYTES = {
    1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8,
}  # fmt: skip
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _SAMPLES, _ROWS = 256, 257, 258, 259, 277, 278
_OFFSETS, _COUNTS, _PLANAR = (273, 324), (279, 325), 284
_TILE_WIDTH, _TILE_HEIGHT = 322, 323
_JPEG = 7
_LOOKED_AT = {
    _WIDTH,
    _HEIGHT,
    _BITS,
    _COMPRESSION,
    _SAMPLES,
    _ROWS,
    _PLANAR,
    _TILE_WIDTH,
    _TILE_HEIGHT,
    *_OFFSETS,
    *_COUNTS,
}
# How many bytes of an image at most come from one byte of a file, by compression: none (2: colours may be stored at
# half the size), CCITT, LZW, JPEG, deflate, PackBits, Zstandard.
# Of CCITT a bit is a line, and Zstandard repeats a byte 131,072 times, so they are held to the pixel limit alone.
_MOST_FROM_A_BYTE: dict[int, int | None] = {
    1: 2, 2: None, 3: None, 4: None, 32771: None, 5: 4096, 7: 2048, 8: 1040, 32946: 1040, 32773: 64, 50000: None,
}  # fmt: skip


@dataclass(frozen=True)
class _Entry:
    kind: int
    count: int
    value: bytes  # in place, or where the values stand
    size: int


class _Directory:
    """A directory's entries, and how to read the values of one."""

    def __init__(self, file: IO[bytes], length: int) -> None:
        self._file, self._length = file, length
        self.entries: dict[int, _Entry] = {}
        self.claimed = 0  # bytes that reading all values takes
        file.seek(0)
        head = file.read(16)
        self._order = "<" if head[:2] == b"II" else ">"
        is_big = len(head) == 16 and self._unpack("H", head[2:4])[0] == 43
        self._place_bytes, self._place = (8, "Q") if is_big else (4, "L")
        if len(head) < 8 or (is_big and len(head) < 16):
            return
        file.seek(min(self._unpack(self._place, head[8:16] if is_big else head[4:8])[0], length))
        self._read_entries(is_big)

    def _read_entries(self, is_big: bool) -> None:
        counted = self._file.read(8 if is_big else 2)
        if len(counted) < (8 if is_big else 2):
            return
        (count,) = self._unpack("Q" if is_big else "H", counted)
        if count > MOST_ENTRIES:
            raise RefusedError(f"has a directory of {count} entries; at most {MOST_ENTRIES} are read.")
        layout = struct.Struct(f"{self._order}HHQ8s" if is_big else f"{self._order}HHL4s")
        content = self._file.read(count * layout.size)
        for tag, kind, values, value in layout.iter_unpack(content[: len(content) // layout.size * layout.size]):
            entry = _Entry(kind, values, value, values * _UNIT_BYTES.get(kind, 0))
            if entry.size > self._place_bytes:
                self.claimed += min(entry.size, max(self._length - self._offset(entry), 0))
            if tag in self.entries and tag in _LOOKED_AT:
                raise RefusedError(f"is broken: its directory has the tag {tag} twice.")
            self.entries[tag] = entry

    def _unpack(self, layout: str, content: bytes) -> tuple[int, ...]:
        return struct.unpack(self._order + layout, content)

    def _offset(self, entry: _Entry) -> int:
        return self._unpack(self._place, entry.value)[0]

    def numbers(self, tag: int, most: int) -> np.ndarray:
        """Read whole numbers, uint64[n], of which there may be `most`; none where the tag has none."""
        entry = self.entries.get(tag)
        code = {3: "u2", 4: "u4", 16: "u8", 1: "u1"}.get(entry.kind) if entry else None
        if entry is None or code is None:
            return np.zeros(0, dtype=np.uint64)
        size = min(entry.count, most) * _UNIT_BYTES[entry.kind]
        content = entry.value[:size]
        if entry.size > self._place_bytes:
            self._file.seek(min(self._offset(entry), self._length))
            content = self._file.read(size)
        dtype = np.dtype(self._order + code)
        return np.frombuffer(content[: len(content) // dtype.itemsize * dtype.itemsize], dtype).astype(np.uint64)

    def number(self, tag: int, default: int) -> int:
        """Read the first number of a tag."""
        found = self.numbers(tag, 1)
        return int(found[0]) if len(found) else default


def check_directory(content: bytes, name: str) -> None:
    """Refuse metadata whose values lie over one another, so that reading them takes far more than they have.

    Args:
        content: EXIF, with or without its name before it, or another directory in the layout of TIFF.
        name: of the metadata in a message.

    Raises:
        RefusedError: the entries are too many, or claim more bytes than there are.
    """
    content = content.removeprefix(b"Exif\0\0")
    directory = _Directory(io.BytesIO(content), len(content))
    if directory.claimed > _OVERLAP * len(content) + _SPARE_BYTES:
        raise RefusedError(f"is made to be slow: {name} claims {directory.claimed} bytes and has {len(content)}.")


def check_tiff(file: IO[bytes], length: int) -> None:
    """Refuse a TIFF that costs far more than images of its size do, by its first directory.

    Args:
        file: of the image.
        length: of the file in bytes.

    Raises:
        RefusedError: its entries, strips or tiles are too many, too large or over one another, it has too few bytes for
            its pixels, or its compression is not read.
    """
    directory = _Directory(file, length)
    if directory.claimed > _OVERLAP * length + _SPARE_BYTES:
        raise RefusedError(f"is made to be slow: its directory claims {directory.claimed} bytes of {length}.")
    compression = directory.number(_COMPRESSION, 1)
    if compression not in _MOST_FROM_A_BYTE:
        raise RefusedError(
            f"is a TIFF of compression {compression}; expected none, LZW, deflate, JPEG (7), PackBits, CCITT or "
            "Zstandard. Save it anew."
        )
    width, height = directory.number(_WIDTH, 0), directory.number(_HEIGHT, 0)
    samples = directory.number(_SAMPLES, 1)
    bits = directory.number(_BITS, 1) * samples
    size = (width * bits + 7) // 8 * height
    most = _MOST_FROM_A_BYTE[compression]
    if most is not None and size > _SPARE_BYTES + length * most:
        raise RefusedError(f"is broken or cut off: it has {length} bytes, too few for its {width} x {height} pixels.")
    pieces = _check_pieces(directory, (width, height), samples, bits, length)
    if compression == _JPEG:
        check_scans_of_pieces(file, pieces, width * height)


def _check_pieces(directory: _Directory, size: tuple[int, int], samples: int, bits: int, length: int) -> int:
    """Check the strips or tiles, what one takes, and the bytes that they claim; return how many there are."""
    width, height = size
    tile_width = directory.number(_TILE_WIDTH, 0)
    tile_height = directory.number(_TILE_HEIGHT, 0) if tile_width else directory.number(_ROWS, height) or height
    across = -(-width // tile_width) if tile_width else 1
    expected = across * -(-height // max(tile_height, 1)) * (samples if directory.number(_PLANAR, 1) == 2 else 1)
    tile_bytes = tile_width * tile_height * bits // 8
    if tile_bytes > max(MOST_TILE_BYTES, 2 * width * height * bits // 8):
        raise RefusedError(
            f"has tiles of {tile_width} x {tile_height} pixels for an image of {width} x {height}; save it anew."
        )
    for tag in (*_OFFSETS, *_COUNTS):
        if tag in directory.entries and directory.entries[tag].count > max(expected, 1):
            raise RefusedError(f"lists {directory.entries[tag].count} strips or tiles where it has {expected}.")
    for tag in _COUNTS:
        claimed = int(directory.numbers(tag, expected).sum(dtype=np.float64))
        if claimed > _SHARED * length + _SPARE_BYTES:
            raise RefusedError(f"is made to be slow or broken: its strips or tiles claim {claimed} bytes of {length}.")
    return max(expected, 1)
