"""The vision tower of Qwen2-VL: patches of any number of images in, tokens of the language model out.

Source: Wang et al., "Qwen2-VL: Enhancing Vision-Language Model's Perception of the World at Any Resolution", 2024.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import paddle
from paddle import nn

from paddlemix.handover import Layout, constant
from paddlemix.models.layers.linear import Linear
from paddlemix.models.layers.mlp import GELU, MLP
from paddlemix.models.layers.norm import LayerNorm
from paddlemix.models.layers.recompute import run_block
from paddlemix.models.qwen2_vl.config import PatchTowerConfig
from paddlemix.ops import Rotary, Segments, rotary_frequencies, rotate_split, segment_attention

NORM_EPSILON = 1e-6
ROTARY_BASE = 10000.0
# Names in a layout: int64[images, 3], the grids; int32[N, 2], row and column of each patch in the order in which blocks
# see them; int32[n + 1], where the frames among them end.
GRIDS, AXES, FRAMES = "tower.grids", "tower.axes", "tower.frames"


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

    @staticmethod
    def lay_out(config: PatchTowerConfig, grids: np.ndarray) -> dict[str, np.ndarray]:
        """Find out what the host must know of images and videos before the tower sees them.

        Args:
            config: of the tower.
            grids: int64[images, 3], patches in time, height and width of each image or video.

        Returns:
            Arrays of a `Layout`, by name.

        Raises:
            ValueError: an image cannot be cut into merge windows.
        """
        merge, listed = config.spatial_merge_size, grids.tolist()
        uneven = [grid for grid in listed if grid[1] % merge or grid[2] % merge]
        if uneven:
            raise ValueError(
                f"grid_thw holds {uneven}; height and width must be multiples of a merged token's {merge}."
            )
        places = [patch_places(grid, merge) for grid in listed]
        return {
            GRIDS: grids,
            AXES: np.concatenate(places).astype(np.int32),
            FRAMES: np.cumsum([0, *frame_lengths(listed)], dtype=np.int32),
        }

    def forward(
        self, pixel_values: paddle.Tensor, grid_thw: paddle.Tensor, layout: Layout | None = None
    ) -> paddle.Tensor:
        """Turn patches into tokens.

        Args:
            pixel_values: float[N, patch_values], the patches of all images in merge-window order.
            grid_thw: int64[images, 3], patches in time, height and width; their products add up to N.
            layout: holds what `lay_out` gives; None reads the grids, and waits for a card.

        Returns:
            float[N / merge**2, hidden_size].

        Raises:
            ValueError: the grids do not add up to N, or an image cannot be cut into merge windows.
        """
        layout = layout or Layout(self.lay_out(self.config, grid_thw.numpy()))
        self._check_patches(pixel_values, layout.array(GRIDS))
        return self.encode(self.patch_embed(pixel_values), self._rotary(layout), layout)

    def encode(self, x: paddle.Tensor, rotary: Rotary, layout: Layout) -> paddle.Tensor:
        """Take embedded patches through the blocks and the merger.

        Args:
            x: float[N, width].
            rotary: cosines and sines float32[N, head_dim / 2].
            layout: of the images and videos.

        Returns:
            float[N / merge**2, hidden_size].
        """
        frames = Segments.laid_out(layout, FRAMES)
        for block in self.blocks:
            x = run_block(block, x, rotary, frames, recompute=self.recompute)
        return self.merger(x)

    def _rotary(self, layout: Layout) -> Rotary:
        """Look cosines and sines float32[N, head_dim / 2] up: rows turn a quarter of a head, columns another."""
        size = self.config.width // self.config.num_heads // 2
        sides = 2 ** (int(layout.array(GRIDS)[:, 1:].max()) - 1).bit_length()  # few tables, whatever images are shown
        axes = layout.tensor(AXES).flatten()
        cos, sin = (constant(table, size, sides).index_select(axes).reshape([-1, size]) for table in (_cosines, _sines))
        return cos, sin

    def _check_patches(self, pixel_values: paddle.Tensor, grids: np.ndarray) -> None:
        wanted = int(grids.prod(axis=1).sum())
        if pixel_values.shape[0] != wanted:
            raise ValueError(
                f"pixel_values holds {pixel_values.shape[0]} patches, but grid_thw {grids.tolist()} asks for {wanted}."
            )


def _cosines(size: int, sides: int) -> np.ndarray:
    """Compute the cosine of each pair's angle in each row or column, float32[sides, size / 2]."""
    return np.cos(_angles(size, sides))


def _sines(size: int, sides: int) -> np.ndarray:
    return np.sin(_angles(size, sides))


def _angles(size: int, sides: int) -> np.ndarray:
    return (np.arange(sides)[:, None] * rotary_frequencies(ROTARY_BASE, size)).astype(np.float32)


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
