"""Gzipped record files, unpacked into the cache: only there a record can be read alone."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from paddlemix.cache import CACHE_VARIABLE, cache_folder, digest_of, only_one, passing_folder, warn_of_no_room
from paddlemix.datasets.records.file_names import GZIP_SUFFIX, kind_of
from paddlemix.files import replacing

_AT_ONCE = 1 << 20
# What is read at a time: little, as what follows a member is copied for each, and a file may be nothing but members.
_PACKED_AT_ONCE = 1 << 14
_GZIP, _MAGIC = 16 + zlib.MAX_WBITS, b"\x1f\x8b"
# Records do not shrink to less than a thousandth as hostile files do: they take a hundredth at the very least.
_MOST_TIMES, _ALWAYS_ALLOWED = 200, 1 << 25
# However large a file is, so much of a disk is not taken for it unless somebody says so.
_MOST_BYTES = 1 << 36
# Of the file beside an unpacked one that says how large it is: what was cut since is unpacked again.
_SIZE_SUFFIX = ".size"


def unpacked(file: Path, content: str, limit: int | None = None) -> Path:
    """Return the file itself, or what a gzipped one holds, kept in the cache.

    Args:
        file: the record file.
        content: its identity.
        limit: bytes that it may hold; None means 200 times its size, 32 MiB in any case, and at most 64 GiB.

    Returns:
        A file that is not compressed.

    Raises:
        ValueError: the file is no gzip file, cut off, holds far more than records would or than `limit`, or there is no
            room for what it holds.
    """
    if file.suffix.lower() != GZIP_SUFFIX:
        return file
    name = f"{digest_of(content)}{kind_of(file)}"
    try:
        return _kept(file, cache_folder("unpacked") / name, limit)
    except OSError as error:
        warn_of_no_room(cache_folder("unpacked"), error)
    try:
        return _kept(file, passing_folder("unpacked") / name, limit)
    except OSError as error:
        raise ValueError(
            f"{file}: the file cannot be unpacked, there is no room for what it holds ({error.strerror or error}); set "
            f"{CACHE_VARIABLE} to a folder that has some, or unpack it yourself"
        ) from error


def _kept(file: Path, plain: Path, limit: int | None) -> Path:
    """Unpack a file to a path, if it does not lie there whole; OSError where that cannot be written."""
    size_file = plain.with_name(plain.name + _SIZE_SUFFIX)
    with only_one(plain.with_suffix(".lock")):
        if not _is_whole(plain, size_file) or (limit is not None and plain.stat().st_size > limit):
            try:
                with replacing(plain) as beside:
                    size = _unpack(file, beside, limit)
            except (EOFError, zlib.error) as error:
                raise ValueError(f"{file}: the file is no gzip file, or cut off: {error}") from error
            with replacing(size_file) as beside:
                beside.write_text(str(size))
    return plain


def _is_whole(plain: Path, size_file: Path) -> bool:
    try:
        are_files = plain.is_file() and size_file.is_file()
        return are_files and size_file.read_text("utf-8") == str(plain.stat().st_size)
    except (OSError, ValueError):
        return False


def _unpack(file: Path, target: Path, limit: int | None) -> int:
    """Unpack a file piece by piece; return its size in bytes."""
    size = 0
    with open(file, "rb") as packed, open(target, "wb") as plain:
        for some in _pieces(packed):
            if not size and some.startswith(_MAGIC):
                raise ValueError(f"{file}: the file is gzipped twice; unpack it once")
            size += plain.write(some)
            # By what was read of it so far: a bomb shows itself early, whatever the size of the file.
            if limit is None and size > max(_MOST_TIMES * packed.tell(), _ALWAYS_ALLOWED):
                raise ValueError(
                    f"{file}: the file unpacks to more than {_MOST_TIMES} times its size, as records do not; set "
                    "`unpack_limit` of the set if it is to be read"
                )
            if size > (limit or _MOST_BYTES):
                raise ValueError(
                    f"{file}: the file unpacks to more than {limit or _MOST_BYTES:,} bytes; raise `unpack_limit` of "
                    "the set if it is to be read"
                )
    return size


def _pieces(packed: BinaryIO) -> Iterator[bytes]:
    """Unpack member after member; zlib.error or EOFError where one is broken or cut off.

    Python's gzip reads names in headers and zeros behind a member byte by byte, 5 MB a second.
    """
    unpacker = zlib.decompressobj(_GZIP)
    while rest := packed.read(_PACKED_AT_ONCE):
        while rest := rest.lstrip(b"\0") if unpacker.eof else rest:
            if unpacker.eof:
                unpacker = zlib.decompressobj(_GZIP)
            yield unpacker.decompress(rest, _AT_ONCE)
            rest = unpacker.unused_data if unpacker.eof else unpacker.unconsumed_tail
    if packed.tell() and not unpacker.eof:
        raise EOFError("it ends within a member")
