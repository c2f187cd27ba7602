"""What was found out about a set's records, in a file that later starts and other ranks read."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from paddlemix.cache import written
from paddlemix.conversation import OverlongError, RecordError, RecordId
from paddlemix.datasets.loading.measure import Measured
from paddlemix.datasets.loading.media_table import MediaTable
from paddlemix.datasets.loading.tallies import Tally

logger = logging.getLogger(__name__)

# Kinds of errors that are told apart.
_KINDS: dict[str, type[RecordError]] = {"": RecordError, "overlong": OverlongError}


def read_kept(path: Path, count: int) -> Measured | None:
    """Read what `write_kept` wrote.

    Args:
        path: ends in `.npz`.
        count: of the records that it is about.

    Returns:
        What was found out; None where there is nothing, nothing whole, or something else.
    """
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as arrays:
            measured = Measured(
                arrays["table"],
                [_error(*one) for one in json.loads(arrays["errors"].tobytes())],
                MediaTable.of_arrays(arrays),
                Tally.of_arrays(arrays, "notes"),
                Tally.of_arrays(arrays, "unknown_keys"),
            )
        if not measured.fits(count):
            raise ValueError("it holds something else than was written there")
    except Exception as error:  # NumPy, zipfile and zlib raise errors of many kinds
        logger.warning("%s cannot be read (%s); it is made again.", path, error)
        return None
    return measured


def write_kept(path: Path, measured: Measured) -> None:
    """Write a set's file, whole or not at all; not at all where the cache has no room.

    Args:
        path: ends in `.npz`.
        measured: about all of its records.
    """
    errors = [
        [place, _kind(error), error.source.file, error.source.index, error.problem] for place, error in measured.errors
    ]
    arrays: Mapping[str, np.ndarray] = {
        "table": measured.table,
        "errors": np.frombuffer(json.dumps(errors).encode(), dtype=np.uint8),
        **measured.media.arrays(),
        **measured.notes.arrays("notes"),
        **measured.unknown_keys.arrays("unknown_keys"),
    }
    written(path, lambda beside: np.savez(beside, **arrays))


def is_of_start(path: Path, start: str | None) -> bool:
    """Tell whether a set's file was found to hold in a start already, by another rank or for another data set."""
    mark = path.with_suffix(".start")
    return start is not None and mark.is_file() and mark.read_bytes() == start.encode()


def mark_start(path: Path, start: str | None) -> None:
    """Note that a set's file was found to hold in a start."""
    if start is not None:
        written(path.with_suffix(".start"), lambda beside: beside.write_bytes(start.encode()))


def _kind(error: RecordError) -> str:
    return next((name for name, kind in _KINDS.items() if name and isinstance(error, kind)), "")


def _error(place: int, kind: str, file: str, index: int, problem: str) -> tuple[int, RecordError]:
    if [*map(type, (place, file, index, problem))] != [int, str, int, str]:
        raise ValueError("an error in it is none")
    return place, _KINDS[kind](RecordId(file, index), problem)
