"""The vision tower of Qwen2.5-VL: Qwen2-VL's, with attention in windows in most of its blocks.

Source: Bai et al., "Qwen2.5-VL Technical Report", 2025, arXiv:2502.13923, section 2.1.1.
"""

from __future__ import annotations

import numpy as np
import paddle
from paddle import nn

from paddlemix.handover import Layout
from paddlemix.models.layers.mlp import GatedMLP
from paddlemix.models.layers.norm import RMSNorm
from paddlemix.models.layers.recompute import run_block
from paddlemix.models.qwen2_5_vl.config import Qwen25VLVisionConfig
from paddlemix.models.qwen2_vl.config import PatchTowerConfig
from paddlemix.models.qwen2_vl.vision import AXES, FRAMES, NORM_EPSILON, Qwen2VLVisionTower
from paddlemix.ops import Rotary, Segments

# Names in a layout, beside those of Qwen2-VL's tower: int64[N], which patch stands where, window by window;
# int64[cells], where each merged cell stands then; int32[n + 1], where windows end.
PATCHES, WAY_BACK, WINDOWS = "tower.patches", "tower.way_back", "tower.windows"


class Qwen25VLVisionTower(Qwen2VLVisionTower):
    """Patch embedding, blocks with 2-D rotary positions, most of them with attention in windows, merger.

    Args:
        config: of the tower.

    Attributes:
        config: of the tower.
    """

    config: Qwen25VLVisionConfig

    @staticmethod
    def make_norm(width: int) -> nn.Layer:
        """Make a norm of the blocks or the merger."""
        return RMSNorm(width, NORM_EPSILON, for_products=True)

    @staticmethod
    def make_mlp(width: int, inner_size: int) -> nn.Layer:
        """Make the feed-forward layer of a block."""
        return GatedMLP(width, inner_size, bias=True)

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
        assert isinstance(config, Qwen25VLVisionConfig)
        laid, window = Qwen2VLVisionTower.lay_out(config, grids), config.spatial_merge_size**2
        order, cells = window_order(grids.tolist(), config.spatial_merge_size, config.window_side)
        patches = (order[:, None] * window + np.arange(window)).reshape(-1)
        return {
            **laid,
            AXES: laid[AXES][patches],
            PATCHES: patches,
            WAY_BACK: np.argsort(order),
            WINDOWS: np.cumsum([0, *(count * window for count in cells)], dtype=np.int32),
        }

    def encode(self, x: paddle.Tensor, rotary: Rotary, layout: Layout) -> paddle.Tensor:
        """Take embedded patches through the blocks and the merger, window by window.

        Args:
            x: float[N, width].
            rotary: cosines and sines float32[N, head_dim / 2], window by window.
            layout: of the images and videos.

        Returns:
            float[N / merge**2, out_hidden_size], in the order in which the patches came.
        """
        x = x.index_select(layout.tensor(PATCHES))
        frames, windows = Segments.laid_out(layout, FRAMES), Segments.laid_out(layout, WINDOWS)
        for index, block in enumerate(self.blocks):
            segments = frames if index in self.config.fullatt_block_indexes else windows
            x = run_block(block, x, rotary, segments, recompute=self.recompute)
        return self.merger(x).index_select(layout.tensor(WAY_BACK))


def window_order(grids: list[list[int]], merge_size: int, side: int) -> tuple[np.ndarray, list[int]]:
    """Sort the merged cells of images and videos by windows.

    A frame is cut into windows from its upper left corner; those at its right and lower edges hold what is left. No
    window reaches into another frame, so the patches of a frame stay together, and its full attention sees them all.

    Args:
        grids: patches in time, height and width of each image or video.
        merge_size: patches of a cell's side.
        side: cells of a window's side.

    Returns:
        int64[cells], which cell stands where: windows row by row, and the cells of each row by row; and how many cells
        each window holds.
    """
    order: list[np.ndarray] = []
    counts: list[int] = []
    first = 0
    for frames, height, width in grids:
        rows, columns = height // merge_size, width // merge_size
        cells = np.arange(frames * rows * columns).reshape(frames, rows, columns) + first
        windows = [
            frame[top : top + side, left : left + side].reshape(-1)
            for frame in cells
            for top in range(0, rows, side)
            for left in range(0, columns, side)
        ]
        order += windows
        counts += map(len, windows)
        first += cells.size
    return np.concatenate(order), counts
