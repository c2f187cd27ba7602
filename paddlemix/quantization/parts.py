"""The tensors that a file holds of one quantised weight, read and checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from paddlemix.weights.dtypes import SAFETENSORS_CODES
from paddlemix.weights.published import read_whole
from paddlemix.weights.stored_tensor import StoredTensor


@dataclass(frozen=True)
class Parts:
    """What is stored of one linear layer's weight.

    Attributes:
        layer: its name in the file.
        tensors: by what stands behind the layer's name.
    """

    layer: str
    tensors: Mapping[str, StoredTensor]

    def read(self, name: str, shape: tuple[int, ...], *dtypes: str) -> np.ndarray:
        """Read one of the tensors.

        Args:
            name: what stands behind the layer's name.
            shape: that it must have.
            *dtypes: one of which it must have.

        Returns:
            Its numbers, as they are stored.

        Raises:
            ValueError: it is missing, or has another shape or dtype.
        """
        found = self._named(name)
        if tuple(found.shape) != shape:
            raise self.damaged(f"{name} is {list(found.shape)}, where {list(shape)} is expected")
        if found.dtype not in dtypes:
            expected = " or ".join(SAFETENSORS_CODES[dtype] for dtype in dtypes)
            raise self.damaged(f"{name} is {SAFETENSORS_CODES.get(found.dtype, found.dtype)}, expected {expected}")
        return read_whole(found, found.dtype)

    def shape_of(self, name: str, axes: int) -> tuple[int, ...]:
        """Return the shape of one of the tensors.

        Args:
            name: what stands behind the layer's name.
            axes: how many it must have.

        Returns:
            The shape.

        Raises:
            ValueError: it is missing, or has more axes or fewer.
        """
        found = self._named(name)
        if len(found.shape) != axes:
            raise self.damaged(f"{name} is {list(found.shape)}, where {axes} axes are expected")
        return tuple(found.shape)

    def _named(self, name: str) -> StoredTensor:
        found = self.tensors.get(name)
        if found is None:
            raise self.damaged(f"{name} is missing")
        return found

    def damaged(self, problem: str) -> ValueError:
        """Make the error of a weight that cannot be read; `problem` says why."""
        file = next(iter(self.tensors.values())).file
        return ValueError(
            f"{file}: the quantised weight of {self.layer} cannot be read: {problem}. Compare `quantization_config` of "
            "config.json with what wrote the file, or fetch both again."
        )

    def blocks_along(self, inputs: int, group: int) -> tuple[int, int]:
        """Tell how inputs are cut into groups.

        Args:
            inputs: of the layer.
            group: inputs of a group as the config has it; -1 makes all of them one.

        Returns:
            Inputs of a group, and groups.

        Raises:
            ValueError: groups of that size do not make up the inputs.
        """
        size = inputs if group == -1 else group
        if size < 1 or inputs % size:
            raise self.damaged(f"`group_size` {group} does not divide its {inputs} inputs")
        return size, inputs // size

    def order(self, name: str, inputs: int, size: int) -> np.ndarray | None:
        """Read which group each input is in, and sort the inputs by their groups.

        Args:
            name: what stands behind the layer's name; some writers leave it out where it says nothing.
            inputs: of the layer.
            size: inputs of a group.

        Returns:
            int64[in], or None where they are sorted as they are.

        Raises:
            ValueError: a group has another number of inputs.
        """
        if name not in self.tensors:
            return None
        group_of = self.read(name, (inputs,), "int32", "int64").astype(np.int64)
        order = np.argsort(group_of, kind="stable")
        if not np.array_equal(group_of[order], np.arange(inputs) // size):
            raise self.damaged(f"{name} does not give each group {size} inputs")
        return None if np.array_equal(order, np.arange(inputs)) else order
