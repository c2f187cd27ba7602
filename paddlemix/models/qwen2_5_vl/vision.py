"""The vision tower of Qwen2.5-VL: Qwen2-VL's, with attention in windows in most of its blocks.

Source: Bai et al., "Qwen2.5-VL Technical Report", 2025, arXiv:2502.13923, section 2.1.1.
"""

from __future__ import annotations

import numpy as np
import paddle
from paddle import nn

from paddlemix.models.layers.mlp import GatedMLP
from paddlemix.models.layers.norm import RMSNorm
from paddlemix.models.layers.recompute import run_block
from paddlemix.models.qwen2_5_vl.config import Qwen25VLVisionConfig
from paddlemix.models.qwen2_vl.vision import NORM_EPSILON, Qwen2VLVisionTower, frame_lengths
from paddlemix.ops import Rotary, Segments


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

    def encode(self, x: paddle.Tensor, rotary: Rotary, grids: list[list[int]]) -> paddle.Tensor:
        """Take embedded patches through the blocks and the merger, window by window.

        Args:
            x: float[N, width].
            rotary: cosines and sines float32[N, head_dim / 2].
            grids: patches in time, height and width of each image or video.

        Returns:
            float[N / merge**2, out_hidden_size], in the order in which the patches came.
        """
        merge, side = self.config.spatial_merge_size, self.config.window_side
        order, cells = window_order(grids, merge, side)
        patches = paddle.to_tensor((order[:, None] * merge**2 + np.arange(merge**2)).reshape(-1))
        x, cosines, sines = (one.index_select(patches) for one in (x, *rotary))
        frames, windows = Segments(frame_lengths(grids)), Segments([count * merge**2 for count in cells])
        for index, block in enumerate(self.blocks):
            segments = frames if index in self.config.fullatt_block_indexes else windows
            x = run_block(block, x, (cosines, sines), segments, recompute=self.recompute)
        return self.merger(x).index_select(paddle.to_tensor(np.argsort(order)))


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
