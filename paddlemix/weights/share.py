"""Parameters of which a rank holds a part, and the way between the part and the whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import paddle
from paddle.distributed.communication.group import Group

_NAME = "tensor_share"


@dataclass(frozen=True)
class Share:
    """Which part of a parameter this rank holds.

    Attributes:
        axis: that is cut, in Paddle's order of axes.
        blocks: how many are concatenated along it and are each cut, 3 where query, key and value are one matrix.
        group: the ranks that hold the other parts.
    """

    axis: int
    blocks: int
    group: Group

    def places(self, length: int) -> Iterator[tuple[slice, slice]]:
        """Tell where the part lies.

        Args:
            length: of the axis, of the whole.

        Yields:
            Pairs of a place in the part and the same numbers' place in the whole, along the axis.
        """
        size = length // (self.blocks * self.group.nranks)
        for block in range(self.blocks):
            start = (block * self.group.nranks + self.group.rank) * size
            yield slice(block * size, (block + 1) * size), slice(start, start + size)

    def mark(self, parameter: paddle.Tensor) -> None:
        """Say so of a parameter, in Paddle's words too: whole parameters count once in the norm of gradients."""
        parameter.is_distributed, parameter.split_axis = True, self.axis
        setattr(parameter, _NAME, self)


def share_of(parameter: paddle.Tensor) -> Share | None:
    """Return which part of a parameter this rank holds; None where it holds all of it."""
    return getattr(parameter, _NAME, None)


def whole_shape(parameter: paddle.Tensor) -> list[int]:
    """Return the shape of a whole parameter, including the parts that other ranks hold."""
    shape, share = list(parameter.shape), share_of(parameter)
    if share is not None:
        shape[share.axis] *= share.group.nranks
    return shape


def gather_whole(tensor: paddle.Tensor, parameter: paddle.Tensor) -> paddle.Tensor:
    """Join what the ranks hold of a parameter, or of something as large; all of them must call it, in the same order.

    Args:
        tensor: the parameter, or an optimizer's state of it.
        parameter: says how it is cut.

    Returns:
        The whole on every rank; `tensor` itself where it is not cut.
    """
    share = share_of(parameter)
    if share is None or tensor.shape != parameter.shape:
        return tensor
    parts: list[paddle.Tensor] = []
    paddle.distributed.all_gather(parts, tensor.detach().contiguous(), group=share.group)
    blocks = [part.split(share.blocks, axis=share.axis) for part in parts]
    return paddle.concat([rank[block] for block in range(share.blocks) for rank in blocks], axis=share.axis)


def own_part(array: np.ndarray, parameter: paddle.Tensor) -> np.ndarray:
    """Cut out what this rank holds of something as large as a whole parameter.

    Args:
        array: of the whole parameter's shape, or of another, which is not cut.
        parameter: says how it is cut.

    Returns:
        The part.
    """
    share = share_of(parameter)
    if share is None or list(array.shape) != whole_shape(parameter):
        return array
    parts = [
        array.take(range(there.start, there.stop), share.axis) for _, there in share.places(array.shape[share.axis])
    ]
    return np.concatenate(parts, axis=share.axis)
