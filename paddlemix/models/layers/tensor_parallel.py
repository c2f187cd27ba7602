"""One rank's part of layers whose weights lie on several ranks.

Each takes the parameters of the layer in whose place it stands, cut to this rank's part. A layer that is cut by columns
needs no class of its own: it is a narrower `Linear`.
"""

from __future__ import annotations

import paddle
import paddle.nn.functional as F
from paddle import nn
from paddle.distributed.communication.group import Group

from paddlemix import ops


class SplitLayer(nn.Layer):
    """What the layers have in common.

    Args:
        layer: with this rank's part of its weight, and its whole bias where it has one.
        group: the ranks.
    """

    def __init__(self, layer: nn.Layer, group: Group) -> None:
        super().__init__()
        self.weight, self.bias, self.group = layer.weight, getattr(layer, "bias", None), group


class RowLinear(SplitLayer):
    """A linear layer of which each rank holds rows, for the columns of its input that the rank has computed."""

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Transform float[..., in / ranks], each rank's own, to float[..., out]."""
        y = ops.sum_over_ranks(ops.linear(x, self.weight), self.group)
        return y if self.bias is None else y + self.bias.astype(y.dtype)


class SplitEmbedding(SplitLayer):
    """An embedding of which each rank holds the rows of some tokens."""

    def forward(self, ids: paddle.Tensor) -> paddle.Tensor:
        """Look up int64[...] as float[..., size]."""
        rows = self.weight.shape[0]
        places = ids - self.group.rank * rows
        is_mine = ((places >= 0) & (places < rows)).astype(self.weight.dtype).unsqueeze(-1)
        found = F.embedding(places.clip(0, rows - 1), self.weight) * is_mine
        return ops.sum_over_ranks(found, self.group)


class SplitHead(SplitLayer):
    """A head of which each rank holds the columns of some tokens."""

    def forward(self, hidden: paddle.Tensor) -> paddle.Tensor:
        """Compute the logits float[..., V] of float[..., size], those of all ranks."""
        return ops.gather_from_ranks(ops.linear(ops.copy_to_ranks(hidden, self.group), self.weight), self.group)


def embedding_logits(hidden: paddle.Tensor, embedding: nn.Layer) -> paddle.Tensor:
    """Compute the logits float[..., V] of float[..., size] where the head shares the embedding's weight."""
    if not isinstance(embedding, SplitEmbedding):
        return ops.linear(hidden, embedding.weight, transposed=True)
    hidden = ops.copy_to_ranks(hidden, embedding.group)
    return ops.gather_from_ranks(ops.linear(hidden, embedding.weight, transposed=True), embedding.group)
