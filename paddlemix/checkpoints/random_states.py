"""The states of all random generators that training draws from, as JSON: unlike pickles, it runs nothing when read."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle.framework import core

from paddlemix.files import read_json_object, write_json

# What Python, numpy and Paddle say of a state that is none.
_NO_STATES = (LookupError, TypeError, ValueError, AttributeError, OverflowError, RuntimeError)


def random_state_file(rank: str) -> str:
    """Name a rank's file in a checkpoint; "*" gives the pattern of all."""
    return f"random_state-{rank}.json"


def save_random_states(file: Path) -> None:
    """Write the states of Python's, numpy's and Paddle's generators in this process."""
    kind, keys, *rest = np.random.get_state(legacy=True)
    states = {
        "python": random.getstate(),
        "numpy": [kind, np.asarray(keys).tolist(), *rest],
        "paddle_cpu": _pack(core.default_cpu_generator().get_state()),
        "paddle_device": [_pack(state) for state in paddle.get_rng_state()],
    }
    write_json(file, states)


def load_random_states(file: Path) -> None:
    """Set the generators of this process to what `save_random_states` wrote.

    Args:
        file: that it wrote, on a machine with as many devices.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds no such states.
    """
    states = read_json_object(file)
    try:
        _set(states)
    except _NO_STATES as error:
        said = (str(error).splitlines() or [""])[0]
        raise ValueError(
            f"{file}: holds no states of random generators as a run of ours writes them ({type(error).__name__}: "
            f"{said[:200]})."
        ) from error


def _set(states: Mapping[str, Any]) -> None:
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    kind, keys, *rest = states["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), *rest))
    paddle.set_rng_state([_unpack(state) for state in states["paddle_device"]])
    core.default_cpu_generator().set_state(_unpack(states["paddle_cpu"]))


def _pack(state: Any) -> list[Any]:
    *numbers, engine = state.__getstate__()
    return [*numbers, bytes(engine).decode("ascii")]


def _unpack(packed: list[Any]) -> Any:
    *numbers, engine = packed
    state = core.GeneratorState.__new__(core.GeneratorState)
    state.__setstate__((*numbers, list(engine.encode("ascii"))))
    return state
