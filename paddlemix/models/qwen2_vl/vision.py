"""The vision tower of Qwen2-VL: patches of any number of images in, tokens of the language model out.

Source: Wang et al., "Qwen2-VL: Enhancing Vision-Language Model's Perception of the World at Any Resolution", 2024.
"""

from __future__ import annotations

import numpy as np
import paddle
from paddle import nn

from paddlemix.models.layers.linear import Linear
from paddlemix.models.layers.mlp import GELU, MLP
from paddlemix.models.layers.norm import LayerNorm
from paddlemix.models.layers.recompute import run_block
from paddlemix.models.qwen2_vl.config import Qwen2VLVisionConfig
from paddlemix.ops import Rotary, rotary_frequencies, rotate_split, segment_attention

NORM_EPSILON = 1e-6
ROTARY_BASE = 10000.0


class PatchEmbed(nn.Layer):
    """The tower's convolution over whole patches, which is one matmul on a patch's numbers."""

    def __init__(self, config: Qwen2VLVisionConfig) -> None:
        super().__init__()
        self.proj = Linear(config.patch_values, config.embed_dim, bias_attr=False)

    def forward(self, pixel_values: paddle.Tensor) -> paddle.Tensor:
        """Embed float[N, patch_values] as float[N, embed_dim]."""
        return self.proj(pixel_values.astype(self.proj.weight.dtype))


class VisionAttention(nn.Layer):
    """Full attention inside each image or frame."""

    def __init__(self, config: Qwen2VLVisionConfig) -> None:
        super().__init__()
        self.head_dim = config.embed_dim // config.num_heads
        self.qkv = Linear(config.embed_dim, 3 * config.embed_dim)
        self.proj = Linear(config.embed_dim, config.embed_dim)

    def forward(self, x: paddle.Tensor, rotary: Rotary, lengths: list[int]) -> paddle.Tensor:
        """Mix float[N, embed_dim] within segments of `lengths` patches."""
        qkv = self.qkv(x).reshape([x.shape[0], 3, -1, self.head_dim])
        mixed = segment_attention(*rotate_split(qkv, *rotary), lengths)
        return self.proj(mixed.reshape([x.shape[0], -1]))


class VisionBlock(nn.Layer):
    """One pre-norm transformer block."""

    def __init__(self, config: Qwen2VLVisionConfig) -> None:
        super().__init__()
        self.norm1 = LayerNorm(config.embed_dim, epsilon=NORM_EPSILON)
        self.norm2 = LayerNorm(config.embed_dim, epsilon=NORM_EPSILON)
        self.attn = VisionAttention(config)
        self.mlp = MLP(config.embed_dim, int(config.embed_dim * config.mlp_ratio), "quick_gelu")

    def forward(self, x: paddle.Tensor, rotary: Rotary, lengths: list[int]) -> paddle.Tensor:
        """Transform float[N, embed_dim]."""
        x = x + self.attn(self.norm1(x), rotary, lengths)
        return x + self.mlp(self.norm2(x))


class PatchMerger(nn.Layer):
    """Joins the patches of each merge window into one token of the language model's width."""

    def __init__(self, config: Qwen2VLVisionConfig) -> None:
        super().__init__()
        self.window = config.embed_dim * config.spatial_merge_size**2
        self.ln_q = LayerNorm(config.embed_dim, epsilon=NORM_EPSILON)
        # Index 1 is the activation in the published names.
        self.mlp = nn.Sequential(Linear(self.window, self.window), GELU(), Linear(self.window, config.hidden_size))

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Merge float[N, embed_dim] to float[N / merge**2, hidden_size]."""
        return self.mlp(self.ln_q(x).reshape([-1, self.window]))


class Qwen2VLVisionTower(nn.Layer):
    """Patch embedding, blocks with 2-D rotary positions, merger.

    Args:
        config: of the tower.

    Attributes:
        recompute: whether training computes the blocks' activations twice and does not keep them.
    """

    recompute: bool

    def __init__(self, config: Qwen2VLVisionConfig) -> None:
        super().__init__()
        self.config = config
        self.recompute = False
        self.patch_embed = PatchEmbed(config)
        self.blocks = nn.LayerList([VisionBlock(config) for _ in range(config.depth)])
        self.merger = PatchMerger(config)

    def forward(self, pixel_values: paddle.Tensor, grid_thw: paddle.Tensor) -> paddle.Tensor:
        """Turn patches into tokens.

        Args:
            pixel_values: float[N, patch_values], the patches of all images in merge-window order.
            grid_thw: int64[images, 3], patches in time, height and width; their products add up to N.

        Returns:
            float[N / merge**2, hidden_size].

        Raises:
            ValueError: the grids do not add up to N, or an image cannot be cut into merge windows.
        """
        grids = grid_thw.tolist()
        self._check_patches(pixel_values, grids)
        lengths = [h * w for t, h, w in grids for _ in range(t)]
        rotary = self._rotary(grids)
        x = self.patch_embed(pixel_values)
        for block in self.blocks:
            x = run_block(block, x, rotary, lengths, recompute=self.recompute)
        return self.merger(x)

    def _rotary(self, grids: list[list[int]]) -> Rotary:
        """Compute cosines and sines float32[N, head_dim / 2]: rows turn a quarter of a head, columns another."""
        frequencies = rotary_frequencies(ROTARY_BASE, self.config.embed_dim // self.config.num_heads // 2)
        places = np.concatenate([patch_places(grid, self.config.spatial_merge_size) for grid in grids])
        angles = (places[:, :, None] * frequencies).reshape(len(places), -1).astype(np.float32)
        return paddle.to_tensor(np.cos(angles)), paddle.to_tensor(np.sin(angles))

    def _check_patches(self, pixel_values: paddle.Tensor, grids: list[list[int]]) -> None:
        wanted = sum(t * h * w for t, h, w in grids)
        if pixel_values.shape[0] != wanted:
            raise ValueError(
                f"pixel_values holds {pixel_values.shape[0]} patches, but grid_thw {grids} asks for {wanted}."
            )
        merge = self.config.spatial_merge_size
        uneven = [grid for grid in grids if grid[1] % merge or grid[2] % merge]
        if uneven:
            raise ValueError(
                f"grid_thw holds {uneven}; height and width must be multiples of a merged token's {merge}."
            )


def patch_places(grid: list[int], merge_size: int) -> np.ndarray:
    """Find row and column of each patch of one image or video, in the order of its patches.

    Args:
        grid: patches in time, height and width.
        merge_size: patches of a merge window's side.

    Returns:
        int64[t * h * w, 2].
    """
    t, h, w = grid
    rows, columns = np.indices((h, w))
    windows = [
        axis.reshape(h // merge_size, merge_size, w // merge_size, merge_size).transpose(0, 2, 1, 3).reshape(-1)
        for axis in (rows, columns)
    ]
    return np.tile(np.stack(windows, axis=-1), (t, 1))
