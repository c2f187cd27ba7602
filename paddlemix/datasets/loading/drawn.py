"""The records that a run began to draw, and their sizes: a resumed run draws the same, whatever became of files."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

logger = logging.getLogger(__name__)

FILE = "drawn_records.npz"


@dataclass(frozen=True)
class DrawnRecords:
    """The tables of sizes of a run's sets.

    Attributes:
        tables: int32[records, columns] by the name under which what is known of a set is kept; `UNUSABLE` where a
            record was bad when the run began.
    """

    tables: Mapping[str, np.ndarray]

    @classmethod
    def read(cls, folder: Path) -> DrawnRecords | None:
        """Read those of a checkpoint; None where it has none."""
        path = folder / FILE
        if not path.is_file():
            return None
        try:
            with np.load(path, allow_pickle=False) as tables:
                return cls(dict(tables))
        except Exception as error:  # zipfile, zlib and NumPy raise errors of many kinds
            logger.warning("%s cannot be read (%s); records that became bad are left out, not replaced.", path, error)
            return None

    def write(self, folder: Path) -> None:
        """Write them into a checkpoint."""
        np.savez(folder / FILE, **self.tables)  # packing them would take a second a million records
