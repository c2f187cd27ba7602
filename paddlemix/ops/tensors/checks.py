"""Errors for tensors that do not fit an op."""

from __future__ import annotations

import paddle


def check_shape(name: str, tensor: paddle.Tensor, wanted: list[int]) -> None:
    """Make sure of a shape.

    Args:
        name: of the argument.
        tensor: the argument.
        wanted: its shape.

    Raises:
        ValueError: the shape is another.
    """
    if tensor.shape != wanted:
        raise ValueError(f"`{name}` has shape {tensor.shape}; expected {wanted}.")


def check_like(name: str, tensor: paddle.Tensor, like: paddle.Tensor) -> None:
    """Make sure that two tensors can be computed with together.

    Args:
        name: of the argument.
        tensor: the argument.
        like: the tensor whose dtype and place it should have.

    Raises:
        ValueError: dtype or place is another.
    """
    # Under automatic mixed precision Paddle brings both to one dtype.
    if tensor.dtype != like.dtype and not paddle.is_autocast_enabled():
        raise ValueError(f"`{name}` is {tensor.dtype}; expected {like.dtype}.")
    if tensor.place.is_cpu_place() != like.place.is_cpu_place():
        raise ValueError(f"`{name}` is on {tensor.place}; expected {like.place}.")


def check_rank(name: str, tensor: paddle.Tensor, least: int) -> None:
    """Make sure of a number of axes.

    Args:
        name: of the argument.
        tensor: the argument.
        least: axes that it needs.

    Raises:
        ValueError: it has fewer.
    """
    if tensor.ndim < least:
        raise ValueError(f"`{name}` has shape {tensor.shape}; expected at least {least} axes.")
