"""The states of optimizers in a checkpoint, whole, however many ranks wrote them."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np

from paddlemix.printable import brief
from paddlemix.weights.published import read_whole
from paddlemix.weights.safetensors_file import read_safetensors_file
from paddlemix.weights.stored_tensor import StoredTensor

_KEY = re.compile(r"(?P<name>.+)/(?P<state>[^/@]+)(?:@(?P<start>[0-9]{1,15}))?")


class StoredStates:
    """All states that the `optimizer-*` files of a folder hold.

    Args:
        folder: of a checkpoint.

    Raises:
        ValueError: there is no such file, one is damaged, or it holds something else.
    """

    def __init__(self, folder: Path) -> None:
        files = sorted(folder.glob("optimizer-*.safetensors"))
        if not files:
            raise ValueError(
                f"{folder} holds no state of an optimizer: it was saved with `ignore_save_lr_and_optim`. Set "
                "`ignore_load_lr_and_optim` to true to take its weights alone."
            )
        # By where each piece begins; a whole state is one piece, and copies of one are the same.
        self._pieces: dict[tuple[str, str], dict[int, StoredTensor]] = {}
        for file in files:
            self._list(file)

    @property
    def states(self) -> list[tuple[str, str]]:
        """Pairs of a parameter's and a state's name, in the order of the files."""
        return list(self._pieces)

    def size(self, name: str, state: str) -> int:
        """Count the numbers of a state, of which none is read."""
        return sum(math.prod(piece.shape) for piece in self._pieces[name, state].values())

    def read(self, name: str, state: str) -> np.ndarray:
        """Read a state of a parameter.

        Args:
            name: of the parameter.
            state: its name.

        Returns:
            The whole of it, float[...] with the parameter's shape; flat, float[n], where it was written in pieces.

        Raises:
            ValueError: pieces are not flat, or of other numbers than one another, or a file ends too early.
        """
        stored = [place for _, place in sorted(self._pieces[name, state].items())]
        if len(stored) > 1 and any(len(one.shape) != 1 or one.dtype != stored[0].dtype for one in stored):
            raise ValueError(
                f"{stored[0].file}: {brief(stored[0].name)} and its other pieces do not belong together; resume from "
                "another checkpoint."
            )
        pieces = [read_whole(one, one.dtype) for one in stored]
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def _list(self, file: Path) -> None:
        for stored in read_safetensors_file(file):
            found = _KEY.fullmatch(stored.name)
            if found is None:
                raise ValueError(
                    f"{file}: {brief(stored.name)} is no state of an optimizer, which are called <parameter>/<state>; "
                    "resume from another checkpoint."
                )
            places = self._pieces.setdefault((found["name"], found["state"]), {})
            places[int(found["start"] or 0)] = stored
