"""What ranks that compute one layer together exchange, with gradients.

Every rank computes the same from what all of them hold alike, so a gradient is either whole everywhere or must be
summed where the ranks begin to differ.

Source: Shoeybi et al., "Megatron-LM", 2019, section 3, arXiv:1909.08053.
"""

from __future__ import annotations

from typing import Any

import paddle
from paddle.autograd import PyLayer
from paddle.distributed.communication.group import Group


def copy_to_ranks(x: paddle.Tensor, group: Group) -> paddle.Tensor:
    """Begin what each rank computes its own part of: `x` as it is, whose gradient is summed over the ranks.

    Args:
        x: float[...], the same on all ranks.
        group: the ranks.

    Returns:
        float[...].
    """
    return _CopyToRanks.apply(x, group)


def sum_over_ranks(x: paddle.Tensor, group: Group) -> paddle.Tensor:
    """End it: the sum of the ranks' parts, whose gradient is each part's.

    Args:
        x: float[...], each rank's own.
        group: the ranks.

    Returns:
        float[...], the same on all ranks.
    """
    return _SumOverRanks.apply(x, group)


def gather_from_ranks(x: paddle.Tensor, group: Group) -> paddle.Tensor:
    """End it where each rank has computed a part of the last axis.

    Args:
        x: float[..., N], each rank's own.
        group: the ranks.

    Returns:
        float[..., ranks * N], the same on all ranks.
    """
    return _GatherFromRanks.apply(x, group)


class _CopyToRanks(PyLayer):
    @staticmethod
    def forward(ctx: Any, x: paddle.Tensor, group: Group) -> paddle.Tensor:
        ctx.group = group
        return x.clone()

    @staticmethod
    def backward(ctx: Any, upstream: paddle.Tensor) -> paddle.Tensor:
        return _summed(upstream, ctx.group)


class _SumOverRanks(PyLayer):
    @staticmethod
    def forward(ctx: Any, x: paddle.Tensor, group: Group) -> paddle.Tensor:
        return _summed(x, group)

    @staticmethod
    def backward(ctx: Any, upstream: paddle.Tensor) -> paddle.Tensor:
        return upstream.clone()


class _GatherFromRanks(PyLayer):
    @staticmethod
    def forward(ctx: Any, x: paddle.Tensor, group: Group) -> paddle.Tensor:
        ctx.group = group
        parts: list[paddle.Tensor] = []
        paddle.distributed.all_gather(parts, x.contiguous(), group=group)
        return paddle.concat(parts, axis=-1)

    @staticmethod
    def backward(ctx: Any, upstream: paddle.Tensor) -> paddle.Tensor:
        return upstream.split(ctx.group.nranks, axis=-1)[ctx.group.rank].contiguous()


def _summed(x: paddle.Tensor, group: Group) -> paddle.Tensor:
    total = x.clone()  # what came in may be read by others yet
    paddle.distributed.all_reduce(total, group=group)
    return total
