"""The vision tower of Qwen2-VL: patches of any number of images in, tokens of the language model out.

Source: Wang et al., "Qwen2-VL: Enhancing Vision-Language Model's Perception of the World at Any Resolution", 2024.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import paddle
from paddle import nn

from paddlemix.models.layers.linear import Linear
from paddlemix.models.layers.mlp import GELU, MLP
from paddlemix.models.layers.norm import LayerNorm
from paddlemix.models.layers.recompute import run_block
from paddlemix.models.qwen2_vl.config import PatchTowerConfig
from paddlemix.ops import Rotary, Segments, rotary_frequencies, rotate_split, segment_attention

NORM_EPSILON = 1e-6
ROTARY_BASE = 10000.0


class PatchEmbed(nn.Layer):
    """The tower's convolution over whole patches, which is one matmul on a patch's numbers."""

    def __init__(self, config: PatchTowerConfig) -> None:
        super().__init__()
        self.proj = Linear(config.patch_values, config.width, bias_attr=False)

    def forward(self, pixel_values: paddle.Tensor) -> paddle.Tensor:
        """Embed float[N, patch_values] as float[N, width]."""
        return self.proj(pixel_values.astype(self.proj.weight.dtype))


class VisionAttention(nn.Layer):
    """Full attention inside each image or frame."""

    def __init__(self, config: PatchTowerConfig) -> None:
        super().__init__()
        self.head_dim = config.width // config.num_heads
        self.qkv = Linear(config.width, 3 * config.width)
        self.proj = Linear(config.width, config.width)

    def forward(self, x: paddle.Tensor, rotary: Rotary, segments: Segments) -> paddle.Tensor:
        """Mix float[N, width] within segments of patches."""
        qkv = self.qkv(x).reshape([x.shape[0], 3, -1, self.head_dim])
        mixed = segment_attention(*rotate_split(qkv, *rotary), segments)
        return self.proj(mixed.reshape([x.shape[0], -1]))


class VisionBlock(nn.Layer):
    """One pre-norm transformer block.

    Args:
        config: of the tower.
        make_norm: makes a norm of a width.
        make_mlp: makes the feed-forward layer of its outer and inner widths.
    """

    def __init__(
        self,
        config: PatchTowerConfig,
        make_norm: Callable[[int], nn.Layer],
        make_mlp: Callable[[int, int], nn.Layer],
    ) -> None:
        super().__init__()
        self.norm1 = make_norm(config.width)
        self.norm2 = make_norm(config.width)
        self.attn = VisionAttention(config)
        self.mlp = make_mlp(config.width, config.inner_size)

    def forward(self, x: paddle.Tensor, rotary: Rotary, segments: Segments) -> paddle.Tensor:
        """Transform float[N, width]."""
        x = x + self.attn(self.norm1(x), rotary, segments)
        return x + self.mlp(self.norm2(x))


class PatchMerger(nn.Layer):
    """Joins the patches of each merge window into one token of the language model's width.

    Args:
        config: of the tower.
        norm: of the patches.
    """

    def __init__(self, config: PatchTowerConfig, norm: nn.Layer) -> None:
        super().__init__()
        self.window = config.width * config.spatial_merge_size**2
        self.ln_q = norm
        # Index 1 is the activation in the published names.
        self.mlp = nn.Sequential(Linear(self.window, self.window), GELU(), Linear(self.window, config.output_size))

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Merge float[N, width] to float[N / merge**2, hidden_size]."""
        return self.mlp(self.ln_q(x).reshape([-1, self.window]))


class Qwen2VLVisionTower(nn.Layer):
    """Patch embedding, blocks with 2-D rotary positions, merger.

    Args:
        config: of the tower.

    Attributes:
        recompute: whether training computes the blocks' activations twice and does not keep them.
    """

    recompute: bool

    def __init__(self, config: PatchTowerConfig) -> None:
        super().__init__()
        self.config = config
        self.recompute = False
        self.patch_embed = PatchEmbed(config)
        self.blocks = nn.LayerList([VisionBlock(config, self.make_norm, self.make_mlp) for _ in range(config.depth)])
        self.merger = PatchMerger(config, self.make_norm(config.width))

    @staticmethod
    def make_norm(width: int) -> nn.Layer:
        """Make a norm of the blocks or the merger; a kin may have another."""
        return LayerNorm(width, epsilon=NORM_EPSILON, for_products=True)

    @staticmethod
    def make_mlp(width: int, inner_size: int) -> nn.Layer:
        """Make the feed-forward layer of a block; a kin may have another."""
        return MLP(width, inner_size, "quick_gelu")

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
        return self.encode(self.patch_embed(pixel_values), self._rotary(grids), grids)

    def encode(self, x: paddle.Tensor, rotary: Rotary, grids: list[list[int]]) -> paddle.Tensor:
        """Take embedded patches through the blocks and the merger.

        Args:
            x: float[N, width].
            rotary: cosines and sines float32[N, head_dim / 2].
            grids: patches in time, height and width of each image or video.

        Returns:
            float[N / merge**2, hidden_size].
        """
        frames = Segments(frame_lengths(grids))
        for block in self.blocks:
            x = run_block(block, x, rotary, frames, recompute=self.recompute)
        return self.merger(x)

    def _rotary(self, grids: list[list[int]]) -> Rotary:
        """Compute cosines and sines float32[N, head_dim / 2]: rows turn a quarter of a head, columns another."""
        frequencies = rotary_frequencies(ROTARY_BASE, self.config.width // self.config.num_heads // 2)
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


def frame_lengths(grids: list[list[int]]) -> list[int]:
    """Count the patches of each image and of each patch in time of a video: attention never leaves one."""
    return [h * w for t, h, w in grids for _ in range(t)]


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
