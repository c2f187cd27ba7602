"""Splitting a model over ranks that compute every layer together (tensor parallelism).

A block, attention or MLP, begins with layers of which each rank has columns (its heads, its inner neurons) and ends
with one of which it has rows; in between nothing is said between ranks. A model's own code knows nothing of it: it is
built whole and without memory, and its layers are replaced before they are filled.

Source: Shoeybi et al., "Megatron-LM: Training Multi-Billion Parameter Language Models Using Model Parallelism", 2019,
arXiv:1909.08053.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import paddle
from paddle import nn
from paddle.distributed.communication.group import Group
from paddle.distributed.fleet.base import topology

from paddlemix.models.decoder import DecoderShape
from paddlemix.models.layers.tensor_parallel import RowLinear, SplitEmbedding, SplitHead, SplitLayer
from paddlemix.models.replace import replace_layer
from paddlemix.ops import copy_to_ranks
from paddlemix.weights.loading import NoValues
from paddlemix.weights.share import Share


@dataclass(frozen=True)
class SplitPlan:
    """How a family's layers are split; what no glob matches is whole on every rank.

    Attributes:
        columns: globs of linear layers of which each rank has columns.
        fused: the same where query, key and value are concatenated.
        rows: globs of linear layers of which each rank has rows; the block around each begins with the layers above.
        embedding: the name of the embedding.
        head: the name of the head; a tied model has none.
        shared_out: what must be a multiple of the number of ranks, by its key in config.json.
    """

    columns: tuple[str, ...]
    fused: tuple[str, ...]
    rows: tuple[str, ...]
    embedding: str
    head: str
    shared_out: Mapping[str, int]

    @classmethod
    def around(
        cls,
        decoder: DecoderShape,
        prefix: str,
        *,
        columns: tuple[str, ...],
        fused: tuple[str, ...],
        rows: tuple[str, ...],
        shared_out: Mapping[str, int],
    ) -> SplitPlan:
        """Make a plan of a decoder's shape and of what a family says of its tower.

        Args:
            decoder: all of its linear layers are split.
            prefix: the decoder's name in the model.
            columns: of the tower, as `columns`.
            fused: of the tower, as `fused`.
            rows: of the tower, as `rows`.
            shared_out: as `shared_out`, the decoder's numbers included: a config may call them otherwise.

        Returns:
            The plan.
        """
        names = decoder.names
        block = f"{prefix}.{names.blocks}.*"
        projections = tuple(f"{block}.{names.attention}.{name}" for name in names.projections)
        inner = tuple(f"{block}.{names.feed_forward}.{name}" for name, role in names.mlp if role != "down")
        down = tuple(f"{block}.{names.feed_forward}.{name}" for name, role in names.mlp if role == "down")
        is_fused = len(projections) == 1
        return cls(
            columns=(*(() if is_fused else projections), *inner, *columns),
            fused=(*(projections if is_fused else ()), *fused),
            rows=(f"{block}.{names.attention}.{names.output}", *down, *rows),
            embedding=f"{prefix}.{names.embedding}",
            head="lm_head",
            shared_out=shared_out,
        )

    def check(self, degree: int) -> None:
        """Refuse a degree by which the model cannot be split.

        Args:
            degree: how many ranks are to share it.

        Raises:
            ValueError: something cannot be shared out evenly.
        """
        uneven = [f"`{key}` {count}" for key, count in self.shared_out.items() if count % degree]
        if uneven:
            most = math.gcd(*self.shared_out.values())
            fitting = [str(divisor) for divisor in range(1, most + 1) if most % divisor == 0]
            raise ValueError(
                f"`tensor_parallel_degree` is {degree}, but so many ranks cannot share evenly what config.json says: "
                f"{', '.join(uneven)}. Set it to {' or '.join(fitting)}, which this model can be split by."
            )


def tensor_parallel_group(degree: int) -> Group:
    """Find the ranks that this one shares a model with, as Paddle's fleet has grouped them.

    Args:
        degree: how many there must be.

    Returns:
        The group.

    Raises:
        ValueError: fleet was not told to make such groups.
    """
    groups = topology._HYBRID_PARALLEL_GROUP
    made = 1 if groups is None else groups.get_model_parallel_world_size()
    if made != degree:
        raise ValueError(
            f"`tensor_parallel_degree` is {degree}, but ranks share models by groups of {made} here; call `fleet.init` "
            f"with an `mp_degree` of {degree} first."
        )
    return groups.get_model_parallel_group()


def split_model(model: nn.Layer, plan: SplitPlan, group: Group) -> None:
    """Leave this rank's part of every layer; its parameters get no memory.

    Args:
        model: built whole; layers are replaced in place.
        plan: of its family.
        group: the ranks.

    Raises:
        ValueError: the model cannot be split by so many ranks.
    """
    plan.check(group.nranks)
    for name, layer in list(model.named_sublayers()):
        if cuts := _cuts(plan, name):
            for kind, (axis, blocks) in cuts.items():
                _narrow(layer, kind, Share(axis, blocks, group))
            if (kind_of_part := _replacement(plan, name)) is not None:
                replace_layer(model, name, partial(kind_of_part, group=group))
    for block in _blocks(model):
        block.register_forward_pre_hook(partial(_begin, group))


def _cuts(plan: SplitPlan, name: str) -> dict[str, tuple[int, int]]:
    """Say axis and blocks of each of a layer's parameters that are cut."""
    if name == plan.embedding or _matches(name, plan.rows):
        return {"weight": (0, 1)}
    if name == plan.head:
        return {"weight": (1, 1)}
    if _matches(name, plan.fused):
        return {"weight": (1, 3), "bias": (0, 3)}
    return {"weight": (1, 1), "bias": (0, 1)} if _matches(name, plan.columns) else {}


def _replacement(plan: SplitPlan, name: str) -> type[SplitLayer] | None:
    if name == plan.embedding:
        return SplitEmbedding
    if name == plan.head:
        return SplitHead
    return RowLinear if _matches(name, plan.rows) else None


def _narrow(layer: nn.Layer, kind: str, share: Share) -> None:
    whole = getattr(layer, kind)
    if whole is None:
        return
    shape = list(whole.shape)
    shape[share.axis] //= share.group.nranks
    part = layer.create_parameter(shape, dtype=whole.dtype, default_initializer=NoValues())
    share.mark(part)
    setattr(layer, kind, part)


def _blocks(model: nn.Layer) -> Iterator[nn.Layer]:
    return (layer for layer in model.sublayers() if any(isinstance(one, RowLinear) for one in layer.children()))


def _begin(group: Group, block: nn.Layer, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Begin a split block, once for all of its first layers: gradients are summed when they are one."""
    del block
    x: paddle.Tensor = inputs[0]
    return copy_to_ranks(x, group), *inputs[1:]


def _matches(name: str, globs: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, glob) for glob in globs)
