"""Gzipped record files, unpacked into the cache: only there a record can be read alone."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

from paddlemix.cache import cache_folder, digest_of, only_one
from paddlemix.datasets.records.file_names import GZIP_SUFFIX, kind_of
from paddlemix.files import replacing

_AT_ONCE = 1 << 20
# Records do not shrink to less than a thousandth as hostile files do: they take a hundredth at the very least.
_MOST_TIMES, _ALWAYS_ALLOWED = 200, 1 << 30


def unpacked(file: Path, content: str) -> Path:
    """Return the file itself, or what a gzipped one holds, kept in the cache.

    Args:
        file: the record file.
        content: its identity.

    Returns:
        A file that is not compressed.

    Raises:
        ValueError: the file is no gzip file, cut off, or unpacks to far more than records would.
    """
    if file.suffix.lower() != GZIP_SUFFIX:
        return file
    plain = cache_folder("unpacked") / f"{digest_of(content)}{kind_of(file)}"
    with only_one(plain.with_suffix(".lock")):
        if not plain.is_file():
            try:
                with replacing(plain) as beside:
                    _unpack(file, beside)
            except (gzip.BadGzipFile, EOFError, zlib.error) as error:
                raise ValueError(f"{file}: the file is no gzip file, or cut off: {error}") from error
    return plain


def _unpack(file: Path, target: Path) -> None:
    most = max(_MOST_TIMES * file.stat().st_size, _ALWAYS_ALLOWED)
    size = 0
    with gzip.open(file) as packed, open(target, "wb") as plain:
        while some := packed.read(_AT_ONCE):
            size += plain.write(some)
            if size > most:
                raise ValueError(
                    f"{file}: the file unpacks to more than {_MOST_TIMES} times its size, as records do not; unpack it "
                    "yourself if it is to be read"
                )
