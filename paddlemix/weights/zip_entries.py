"""The entries of a zip file that stores them as they are, and where in the file the bytes of each lie.

Python's own reader is made for archives of any kind: it unpacks, believes whatever of two contradicting places it reads
first, and takes what time and memory the archive asks for. Of a file of weights one form is written, and read here.

Source: PKWARE's APPNOTE.TXT, sections 4.3 and 4.5.3.
"""

from __future__ import annotations

import os
import struct
from io import BufferedReader
from typing import NamedTuple

from paddlemix.weights.stored_tensor import MOST_TENSORS

_MOST_ENTRIES = MOST_TENSORS + 64  # PyTorch writes a handful beside the storages
_MOST_DIRECTORY = 16 << 20  # bytes; an entry has 100
_LONGEST_EXTRA = 128  # bytes of an entry in the directory; three numbers of 64 bits take 28

# Signature, four fields about disks and numbers of entries, size and place of the directory, length of a comment.
_END = struct.Struct("<4s4HLLH")
_LOCATOR = struct.Struct("<4sLQL")  # signature, disk, place of the next, disks
_END_64 = struct.Struct("<4sQ2H2L4Q")  # signature, its own size, two versions, and what _END has
# Signature, flags, method, checksum, sizes; lengths of name, extra field and comment; place of the entry.
_ENTRY = struct.Struct("<4s4xHH4xLLLHHH8xL")
_LOCAL = struct.Struct("<4s22xHH")  # signature, lengths of the name and of the extra field after it
_WIDE = 0xFFFFFFFF  # in place of what stands with 64 bits in the extra field
_ENCRYPTED = 1


class ZipRefusal(ValueError):
    """A zip file that is damaged, or none that PyTorch writes."""


class ZipEntry(NamedTuple):
    """An entry.

    Attributes:
        name: of the entry.
        start: bytes before its own header.
        size: bytes of its content.
        end: bytes before the next entry, or the directory.
        checksum: of its content, as zlib.crc32 computes it.
    """

    name: str
    start: int
    size: int
    end: int
    checksum: int


def read_entries(file: BufferedReader) -> dict[str, ZipEntry] | None:
    """List the entries of a zip file.

    Args:
        file: can seek.

    Returns:
        The entries by name, in the order in which they lie; None where it does not end as a zip file.

    Raises:
        ZipRefusal: it is damaged, compressed, encrypted, or two entries share a name or a byte.
    """
    try:
        found = _find_directory(file)
        if found is None:
            return None
        count, size, start = found
        if count > _MOST_ENTRIES or size > _MOST_DIRECTORY:
            raise ZipRefusal(f"lists {count} entries, more than any model's file; fetch it again")
        return _in_order(_parse(_read(file, start, size), count), start)
    except struct.error as error:
        raise ZipRefusal("damaged or cut off, fetch it again") from error


def content_start(file: BufferedReader, entry: ZipEntry) -> int:
    """Find where an entry's content begins.

    Args:
        file: that lists it.
        entry: the entry.

    Returns:
        The bytes before it.

    Raises:
        ZipRefusal: the entry's own header is damaged, or says something else than the directory.
    """
    head = _read(file, entry.start, _LOCAL.size)
    signature, name_length, extra_length = _LOCAL.unpack(head)
    start = entry.start + _LOCAL.size + name_length + extra_length
    own_name = _read(file, entry.start + _LOCAL.size, name_length)
    if signature != b"PK\x03\x04" or start + entry.size > entry.end or _decoded(own_name) != entry.name:
        raise ZipRefusal("damaged or cut off, fetch it again")
    return start


def _find_directory(file: BufferedReader) -> tuple[int, int, int] | None:
    """Return how many entries the directory has, its size and its place."""
    end = file.seek(0, os.SEEK_END) - _END.size
    if end < 0:
        return None
    signature, disk, first_disk, here, count, size, start, comment = _END.unpack(_read(file, end, _END.size))
    if signature != b"PK\x05\x06":
        return None
    small = disk, first_disk, here, count, size, start
    end, large = _large_end(file, end) or (end, small)
    disk, first_disk, here, count, size, start = large
    # Where both are there, they must agree, or readers would differ in what the file holds.
    agree = all(
        one in (other, limit) for one, other, limit in zip(small, large, (*[0xFFFF] * 4, _WIDE, _WIDE), strict=True)
    )
    if not agree or disk or first_disk or comment or here != count or start + size != end:
        raise ZipRefusal("damaged or cut off, fetch it again")
    return count, size, start


def _large_end(file: BufferedReader, end: int) -> tuple[int, tuple[int, ...]] | None:
    """Read what stands before the end where sizes may need 64 bits: its place, and the same fields."""
    place = end - _LOCATOR.size - _END_64.size
    if place < 0:
        return None
    both = _read(file, place, _END_64.size + _LOCATOR.size)
    signature, _disk, said, _disks = _LOCATOR.unpack_from(both, _END_64.size)
    if signature != b"PK\x06\x07":
        return None
    signature, _size, _made, _needed, *fields = _END_64.unpack_from(both)
    if signature != b"PK\x06\x06" or said != place:
        raise ZipRefusal("damaged or cut off, fetch it again")
    return place, tuple(fields)


def _parse(directory: bytes, count: int) -> list[ZipEntry]:
    entries = []
    at = 0
    for _ in range(count):
        signature, flags, method, checksum, packed, size, *lengths, start = _ENTRY.unpack_from(directory, at)
        at += _ENTRY.size
        name = _decoded(directory[at : at + lengths[0]])
        extra = directory[at + lengths[0] : at + lengths[0] + lengths[1]]
        at += sum(lengths)
        wide = iter(_wide_fields(extra[:_LONGEST_EXTRA]))
        size, packed, start = (next(wide, value) if value == _WIDE else value for value in (size, packed, start))
        is_odd = lengths[1] > _LONGEST_EXTRA or ".." in name.split("/")
        if signature != b"PK\x01\x02" or flags & _ENCRYPTED or is_odd:
            raise ZipRefusal("damaged or cut off, fetch it again")
        if method or packed != size:
            raise ZipRefusal("compressed, which PyTorch never writes; fetch it again, and do not repack it")
        entries.append(ZipEntry(name, start, size, 0, checksum))
    if at != len(directory):
        raise ZipRefusal("damaged or cut off, fetch it again")
    return entries


def _wide_fields(extra: bytes) -> tuple[int, ...]:
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        if kind == 1:
            return struct.unpack_from(f"<{length // 8}Q", extra, at + 4)
        at += 4 + length
    return ()


def _in_order(entries: list[ZipEntry], end: int) -> dict[str, ZipEntry]:
    """Sort entries by place, and check that each of them has a name and bytes of its own."""
    found: dict[str, ZipEntry] = {}
    for entry in sorted(entries, key=lambda entry: -entry.start):
        if entry.name in found or entry.start + _LOCAL.size + len(entry.name) + entry.size > end:
            raise ZipRefusal("damaged: two of its entries share a name or their bytes; fetch it again")
        found[entry.name] = entry._replace(end=end)
        end = entry.start
    return dict(reversed(found.items()))


def _decoded(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _read(file: BufferedReader, start: int, length: int) -> bytes:
    file.seek(start)
    return file.read(length)
