"""The resampler between Qwen-VL's tower and its language model: any number of patches in, a token for each query out.

Source: Bai et al., "Qwen-VL: A Versatile Vision-Language Model for Understanding, Localization, Text Reading, and
Beyond", 2023, section 2.1.
"""

from __future__ import annotations

import numpy as np
import paddle
from paddle import nn

from paddlemix.models.layers.linear import Linear
from paddlemix.models.layers.norm import LayerNorm
from paddlemix.models.qwen_vl.config import QWenVisionConfig
from paddlemix.ops import attention, linear, resize_grid

NORM_EPSILON = 1e-6
POSITION_BASE = 10000.0
QUERY_STD = 0.02


class CrossAttention(nn.Layer):
    """Multi-head attention of queries to keys and values of their own, its three inner projections in one matrix."""

    def __init__(self, size: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        xavier = nn.initializer.XavierUniform()
        self.in_proj_weight = self.create_parameter([size, 3 * size], default_initializer=xavier)
        self.in_proj_bias = self.create_parameter([3 * size], is_bias=True)
        self.out_proj = Linear(size, size)

    def forward(self, query: paddle.Tensor, key: paddle.Tensor, value: paddle.Tensor) -> paddle.Tensor:
        """Mix float[B, S, size] into float[B, L, size].

        Args:
            query: float[L, size], the same for all of the batch.
            key: float[B, S, size].
            value: float[B, S, size].

        Returns:
            float[B, L, size].
        """
        batch, (length, size) = key.shape[0], query.shape
        weights, biases = self.in_proj_weight.split(3, axis=1), self.in_proj_bias.split(3)
        projected = (linear(x, w, b) for x, w, b in zip((query, key, value), weights, biases, strict=True))
        query, key, value = (x.reshape([*x.shape[:-1], self.num_heads, -1]) for x in projected)
        mixed = attention(query.unsqueeze(0).expand([batch, *query.shape]), key, value)
        return self.out_proj(mixed.reshape([batch, length, size]))


class Resampler(nn.Layer):
    """Learned queries that each gather one token from an image's patches."""

    def __init__(self, config: QWenVisionConfig) -> None:
        super().__init__()
        size = config.output_dim
        normal = nn.initializer.Normal(std=QUERY_STD)
        self.query = self.create_parameter([config.n_queries, size], default_initializer=normal)
        # A constant that checkpoints hold, rounded as their weights are; no optimizer sees it, whatever is frozen.
        places = paddle.to_tensor(sincos_grid(round(config.n_queries**0.5), size))
        self.register_buffer("pos_embed", places.astype(self.query.dtype))
        self.kv_proj = nn.Identity() if config.width == size else Linear(config.width, size, bias_attr=False)
        self.attn = CrossAttention(size, config.resampler_heads)
        self.ln_q = LayerNorm(size, epsilon=NORM_EPSILON)
        self.ln_kv = LayerNorm(size, epsilon=NORM_EPSILON)

    def forward(self, patches: paddle.Tensor) -> paddle.Tensor:
        """Gather float[B, g * g, width], a square of patches, into float[B, n_queries, output_dim]."""
        value = self.ln_kv(self.kv_proj(patches))
        places = resize_grid(self.pos_embed, round(patches.shape[1] ** 0.5))
        return self.attn(self.ln_q(self.query) + self.pos_embed, value + places, value)


def sincos_grid(side: int, size: int) -> np.ndarray:
    """Compute fixed positions on a square grid: half of the numbers turn with the column, half with the row.

    Args:
        side: of the grid.
        size: numbers of a place, a multiple of 4.

    Returns:
        float32[side * side, size], row by row; each half is sines, then cosines.
    """
    frequencies = POSITION_BASE ** -(np.arange(size // 4) / (size // 4))
    rows, columns = (axis.reshape(-1, 1) * frequencies for axis in np.indices((side, side)))
    waves = [wave(angles) for angles in (columns, rows) for wave in (np.sin, np.cos)]
    return np.concatenate(waves, axis=1).astype(np.float32)
