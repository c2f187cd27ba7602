"""What a run that goes on must know beside weights, optimizer and random states."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from paddlemix.bounded_json import OWN_STATES, finite_number, shown, whole_number
from paddlemix.files import read_json_object, write_json

FILE = "resume_state.json"
_MOST_EVALUATIONS = _MOST_STEPS = 2**53


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
            state = cls(**read_json_object(folder / FILE, limits=OWN_STATES))
        except TypeError as error:
            raise ValueError(f"{folder / FILE}: says other things than a run of ours ({error}).") from error
        is_sound = {
            "scheduler": isinstance(state.scheduler, dict),
            "scaler": _is_scaler(state.scaler),
            "total_loss": finite_number(state.total_loss),
            "log": isinstance(state.log, list) and all(map(_is_entry, state.log)),
            "evaluations_without_gain": whole_number(state.evaluations_without_gain, 0, _MOST_EVALUATIONS),
        }
        for name in (name for name, is_right in is_sound.items() if not is_right):
            raise ValueError(f"{folder / FILE}: `{name}` is {shown(getattr(state, name))}, which no run of ours says.")
        return state


def _is_scaler(value: Any) -> bool:
    """Tell whether these are a scaler's states, or none: what it multiplies by, and how many steps it has counted."""
    if not isinstance(value, dict) or not value:
        return value == {}
    scale, counts = value.get("scale"), (value.get(name) for name in ("incr_count", "decr_count"))
    is_scale = isinstance(scale, list) and len(scale) == 1 and finite_number(scale[0]) and scale[0] > 0
    return is_scale and all(whole_number(count, 0, _MOST_STEPS) for count in counts)


def _is_entry(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(one, (int, float, str)) or one is None for one in value.values())


def _plain(value: Any) -> Any:
    """Turn numpy's numbers and arrays, of a scaler or a log, into Python's."""
    return np.asarray(value).tolist()
