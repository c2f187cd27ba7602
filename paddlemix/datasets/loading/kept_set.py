"""What was found out about a set's records, in a file that later starts and other ranks read."""

from __future__ import annotations

import json
import logging
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from paddlemix.conversation import OverlongError, RecordError, RecordId
from paddlemix.datasets.loading.measure import Measured
from paddlemix.datasets.loading.media_table import MediaTable
from paddlemix.datasets.loading.tallies import Tally
from paddlemix.files import replacing

logger = logging.getLogger(__name__)

# Kinds of errors that are told apart.
_KINDS: dict[str, type[RecordError]] = {"": RecordError, "overlong": OverlongError}


def read_kept(path: Path) -> Measured | None:
    """Read what `write_kept` wrote; None where there is nothing, or nothing whole."""
    try:
        if not path.is_file():
            return None
        with np.load(path, allow_pickle=False) as arrays:
            return Measured(
                arrays["table"],
                [_error(*written) for written in json.loads(arrays["errors"].tobytes())],
                MediaTable.of_arrays(arrays),
                Tally.of_arrays(arrays, "notes"),
                Tally.of_arrays(arrays, "unknown_keys"),
            )
    except (ValueError, OSError, KeyError, EOFError, zipfile.BadZipFile) as error:
        logger.warning("%s cannot be read (%s); it is made again.", path, error)
        return None


def write_kept(path: Path, measured: Measured) -> None:
    """Write a set's file, whole or not at all.

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
    with replacing(path) as beside:
        np.savez(beside, **arrays)


def is_of_start(path: Path, start: str | None) -> bool:
    """Tell whether a set's file was found to hold in a start already, by another rank or for another data set."""
    mark = path.with_suffix(".start")
    return start is not None and mark.is_file() and mark.read_text("utf-8") == start


def mark_start(path: Path, start: str | None) -> None:
    """Note that a set's file was found to hold in a start."""
    if start is not None:
        with replacing(path.with_suffix(".start")) as beside:
            beside.write_text(start, "utf-8")


def _kind(error: RecordError) -> str:
    return next((name for name, kind in _KINDS.items() if name and isinstance(error, kind)), "")


def _error(place: int, kind: str, file: str, index: int, problem: str) -> tuple[int, RecordError]:
    return place, _KINDS[kind](RecordId(file, index), problem)
