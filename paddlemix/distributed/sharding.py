"""What Paddle's sharding keeps where: which rank updates a parameter, and how stage 3 cuts parameters into pieces.

Stages 1 and 2 give each parameter to one rank of the sharding group, which alone keeps the optimizer's states of it.
Stage 3 gives each rank a piece of every large parameter, in a flat order, with padding behind the last; the small ones
are on all ranks. A piece has a name of its own, under which the optimizer knows it.

Source: Rajbhandari et al., "ZeRO: Memory Optimizations Toward Training Trillion Parameter Models", 2019,
arXiv:1910.02054.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import paddle
from paddle import nn
from paddle.base.framework import EagerParamBase
from paddle.distributed.fleet.meta_parallel.sharding.group_sharded_stage3 import GroupShardedStage3

from paddlemix.distributed.paddle_seams import (
    early_gathers,
    fill_piece,
    free,
    gather_piece,
    innermost,
    is_whole,
    piece_of,
    rank_in_group,
    replace_decay_rule,
    updated_parameters,
    wrapped_optimizer,
)

PIECE_PREFIX = "slice@"
_OWN_PIECE = "own_piece"


@dataclass(frozen=True)
class Updated:
    """A parameter, or the piece of one, that this rank's optimizer updates.

    Attributes:
        tensor: by which the optimizer makes its states.
        start: where the piece begins in the flat parameter; None for a whole one.
        size: numbers of the whole parameter.
    """

    tensor: paddle.Tensor
    start: int | None = None
    size: int = 0


def updated_here(optimizer: Any, model: nn.Layer) -> dict[str, Updated]:
    """Find what this rank's optimizer keeps states of, by the model's names.

    Args:
        optimizer: as training calls it.
        model: the model itself, not what fleet puts round it.

    Returns:
        In the model's order.
    """
    trained = {name: parameter for name, parameter in model.named_parameters() if not parameter.stop_gradient}
    own = _own_names(optimizer)
    return {
        name: _piece(parameter) if is_cut(parameter) else Updated(parameter)
        for name, parameter in trained.items()
        if own is None or parameter.name in own
    }


def holds_copies(optimizer: Any) -> bool:
    """Tell whether another rank has, and writes, the same states of whole parameters: those that stage 3 leaves."""
    return _is_of_stage3(optimizer) and rank_in_group(optimizer) > 0


def is_shared_out(optimizer: Any, updated: paddle.Tensor) -> bool:
    """Tell whether the rank whose optimizer updates this is the only one of its sharding group that does.

    Args:
        optimizer: as training calls it, of a run with sharding.
        updated: a parameter, or a piece of one, as the innermost optimizer knows it.

    Returns:
        False for the small parameters that stage 3 leaves whole.
    """
    return not _is_of_stage3(optimizer) or updated.name.startswith(PIECE_PREFIX)


def is_cut(parameter: paddle.Tensor) -> bool:
    """Tell whether stage 3 has cut a parameter into pieces."""
    return hasattr(parameter, _OWN_PIECE)


def mend_stage3(wrapped: nn.Layer) -> None:
    """Mark pieces, let them decay as whole parameters do, and let no step be undone; other wrappers stay as they are.

    PaddleNLP names those who decay as the model does, not as the pieces. And Paddle puts a layer's weights together
    ahead of its turn, in the backward pass by the order of the forward pass; where branches run in another order, it
    does so after the turn, and the next forward pass would find those old weights.

    Args:
        wrapped: the model as training calls it.
    """
    if not isinstance(wrapped, GroupShardedStage3):
        return
    for parameter in wrapped.parameters():
        if (piece := piece_of(wrapped, parameter)) is not None:
            setattr(parameter, _OWN_PIECE, piece)
    optimizer = wrapped_optimizer(wrapped)
    replace_decay_rule(optimizer, lambda name: name.removeprefix(PIECE_PREFIX))
    step = optimizer.step

    def step_afresh() -> None:
        _drop_early_gathers(wrapped)
        step()

    optimizer.step = step_afresh


@contextmanager
def whole_parameters(wrapped: nn.Layer) -> Iterator[None]:
    """Put all parameters together for the block, on each rank in the CPU's memory; all must enter it.

    Args:
        wrapped: the model as training calls it; nothing happens to one that is not cut, or whole already.
    """
    pieces = [parameter for parameter in _pieces(wrapped) if not is_whole(parameter)]
    for parameter in pieces:
        gather_piece(wrapped, parameter)
    try:
        yield
    finally:
        for parameter in pieces:
            free(parameter)


@contextmanager
def whole_parameters_to_fill(wrapped: nn.Layer) -> Iterator[None]:
    """Let the block put whole parameters in the place of pieces; after it each rank keeps its piece of them.

    Args:
        wrapped: the model as training calls it; nothing happens to one that is not cut.
    """
    pieces = _pieces(wrapped)
    yield
    for parameter in pieces:
        if is_whole(parameter):
            _cut(parameter)


def _pieces(wrapped: nn.Layer) -> list[paddle.Tensor]:
    """List the parameters that are in pieces now: those of a layer that computes are whole, on this rank's device."""
    return [parameter for parameter in wrapped.parameters() if getattr(parameter, "status", None) == "part"]


def _is_of_stage3(optimizer: Any) -> bool:
    return hasattr(optimizer, "update_slice")


def _own_names(optimizer: Any) -> set[str] | None:
    """List Paddle's names of what this rank updates; None where it updates all parameters, or a piece of all."""
    if hasattr(optimizer, "param2rank"):  # stage 2
        return {name for name, rank in optimizer.param2rank.items() if rank == rank_in_group(optimizer)}
    inner = innermost(optimizer)
    if inner is optimizer or _is_of_stage3(optimizer):
        return None
    return {parameter.name for parameter in updated_parameters(optimizer)}  # stage 1 leaves it its own


def _piece(parameter: paddle.Tensor) -> Updated:
    start, end = getattr(parameter, _OWN_PIECE)
    tensor = EagerParamBase(shape=[end - start], dtype=parameter.dtype, name=PIECE_PREFIX + parameter.name)
    return Updated(tensor, start, parameter.size)


def _drop_early_gathers(wrapped: GroupShardedStage3) -> None:
    gathered = early_gathers(wrapped)
    for parameter in _pieces(wrapped):
        if (early := gathered.pop(parameter.name, None)) is not None:
            early[1].wait()


def _cut(parameter: paddle.Tensor) -> None:
    start, end = getattr(parameter, _OWN_PIECE)
    fill_piece(parameter, parameter.flatten()[start:end].astype(parameter.fw_storage.dtype))
    free(parameter)
