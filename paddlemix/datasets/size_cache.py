"""Sizes of records, kept from run to run: measuring opens every picture, and the same set is trained on many times."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Sequence
from dataclasses import astuple, fields
from pathlib import Path

import numpy as np

from paddlemix.files import replacing
from paddlemix.processors.interface import SampleSize

logger = logging.getLogger(__name__)

CACHE_VARIABLE = "PADDLEMIX_CACHE"
# Raise it where a size comes to mean something else.
_VERSION = 1
_COLUMNS = len(fields(SampleSize))
_CHUNK = 1 << 20
# Stands for a record that was not measured, or could not be: it is measured again, its picture may be there by then.
_UNKNOWN = -1


class SizeCache:
    """The sizes of one set's records in one file, whose name says what they were measured from.

    Args:
        files: the record files; their contents count, not their names.
        settings: everything else that sizes depend on, in words.
    """

    def __init__(self, files: Sequence[str | os.PathLike[str]], settings: str) -> None:
        digest = hashlib.sha256(f"{_VERSION} {_COLUMNS} {settings}".encode())
        for file in files:
            digest.update(_digest_of(file))
        self.path = sizes_folder() / f"{digest.hexdigest()}.npy"

    def load(self, count: int) -> list[SampleSize | None]:
        """What is known.

        Args:
            count: records of the set.

        Returns:
            The size of each record, None where it has to be measured.
        """
        if not self.path.is_file():
            return [None] * count
        try:
            table = np.load(self.path, allow_pickle=False)
        except (ValueError, EOFError, OSError) as error:
            logger.warning("%s cannot be read (%s); the records are measured again.", self.path, error)
            return [None] * count
        if table.shape != (count, _COLUMNS):
            logger.warning("%s holds %s sizes, not %d; the records are measured again.", self.path, table.shape, count)
            return [None] * count
        return [None if row[0] == _UNKNOWN else SampleSize(*row) for row in table.tolist()]

    def save(self, sizes: Sequence[SampleSize | None]) -> None:
        """Keep sizes; several processes may do so at once, and the last whole file stays.

        Args:
            sizes: of all records of the set, None for those without.
        """
        rows = [[_UNKNOWN] * _COLUMNS if size is None else astuple(size) for size in sizes]
        with replacing(self.path) as beside:
            np.save(beside, np.array(rows, dtype=np.int32).reshape(-1, _COLUMNS))


def _digest_of(file: str | os.PathLike[str]) -> bytes:
    digest = hashlib.sha256()
    with open(file, "rb") as opened:
        while chunk := opened.read(_CHUNK):
            digest.update(chunk)
    return digest.digest()


def sizes_folder() -> Path:
    """Where sizes are kept: below `$PADDLEMIX_CACHE`, or `~/.cache/paddlemix`."""
    return Path(os.environ.get(CACHE_VARIABLE) or Path.home() / ".cache" / "paddlemix") / "sizes"
