"""What a run that goes on must know beside weights, optimizer and random states."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from paddlemix.files import read_json_object, write_json

FILE = "resume_state.json"


@dataclass
class ResumeState:
    """Small numbers and the log so far.

    Attributes:
        scheduler: of the learning rate.
        scaler: of the loss in fp16; empty where there is none.
        total_loss: the sum of all steps' losses.
        log: every log entry of the run, for its curve.
        evaluations_without_gain: in a row, which early stopping counts.
    """

    scheduler: dict[str, Any] = field(default_factory=dict)
    scaler: dict[str, Any] = field(default_factory=dict)
    total_loss: float = 0.0
    log: list[dict[str, float | None]] = field(default_factory=list)
    evaluations_without_gain: int = 0

    def write(self, folder: Path) -> None:
        """Write it into a checkpoint; numbers are read back bit for bit."""
        write_json(folder / FILE, json.loads(json.dumps(asdict(self), default=_plain)))

    @classmethod
    def read(cls, folder: Path) -> ResumeState:
        """Read that of a checkpoint; ValueError where the file is of another shape."""
        try:
            return cls(**read_json_object(folder / FILE))
        except TypeError as error:
            raise ValueError(f"{folder / FILE}: says other things than a run of ours ({error}).") from error


def _plain(value: Any) -> Any:
    """Turn numpy's numbers and arrays, of a scaler or a log, into Python's."""
    return np.asarray(value).tolist()
