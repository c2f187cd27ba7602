"""The states of optimizers in a checkpoint, whole, however many ranks wrote them."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors import safe_open


class _Place(NamedTuple):
    file: Path
    key: str


class StoredStates:
    """All states that the `optimizer-*` files of a folder hold.

    Args:
        folder: of a checkpoint.

    Raises:
        ValueError: there is no such file.
    """

    def __init__(self, folder: Path) -> None:
        files = sorted(folder.glob("optimizer-*.safetensors"))
        if not files:
            raise ValueError(
                f"{folder} holds no state of an optimizer: it was saved with `ignore_save_lr_and_optim`. Set "
                "`ignore_load_lr_and_optim` to true to take its weights alone."
            )
        # By where each piece begins; a whole state is one piece, and copies of one are the same.
        self._pieces: dict[tuple[str, str], dict[int, _Place]] = {}
        for file in files:
            self._list(file)

    @property
    def states(self) -> list[tuple[str, str]]:
        """Pairs of a parameter's and a state's name, in the order of the files."""
        return list(self._pieces)

    def read(self, name: str, state: str) -> np.ndarray:
        """Read a state of a parameter.

        Args:
            name: of the parameter.
            state: its name.

        Returns:
            The whole of it, float[...] with the parameter's shape; flat, float[n], where it was written in pieces.
        """
        pieces = [_read(place) for _, place in sorted(self._pieces[name, state].items())]
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def _list(self, file: Path) -> None:
        with safe_open(file, framework="numpy") as stored:
            for key in stored.keys():  # noqa: SIM118 - no mapping
                name, state = key.rsplit("/", 1)
                state, _, start = state.partition("@")
                self._pieces.setdefault((name, state), {})[int(start or 0)] = _Place(file, key)


def _read(place: _Place) -> np.ndarray:
    with safe_open(place.file, framework="numpy") as stored:
        return stored.get_tensor(place.key)
