"""Attention in windows against one whose masks hold every pair of patches."""

from __future__ import annotations

import numpy as np
import paddle
import pytest

from paddlemix.handover import Layout
from paddlemix.models.qwen2_5_vl.vision import window_order
from paddlemix.models.qwen2_vl.vision import Qwen2VLVisionTower, patch_places
from paddlemix.ops import rotate_split

from ...references import references_of

EACH_REFERENCE = references_of("qwen2_5_vl_tiny")


def regions(grids, merge_size, side):
    """The image or frame that each patch is of, and the window: int64[N] each, patches in the order they came in."""
    rows = []
    for number, (t, h, w) in enumerate(grids):
        frames = np.repeat(np.arange(t), h * w)
        windows = patch_places([t, h, w], merge_size) // (merge_size * side)
        rows.append(np.column_stack([np.full(len(frames), number), frames, windows]))
    places = np.concatenate(rows)
    return [np.unique(places[:, :columns], axis=0, return_inverse=True)[1].reshape(-1) for columns in (2, 4)]


def seen_through_masks(tower, pixels, grids):
    """What `tower` computes, with dense masks and with patches left in their order."""
    config = tower.config
    frame, window = regions(grids, config.spatial_merge_size, config.window_side)
    # The places of patches in the order that they came in, as the kin without windows has them.
    layout = Layout(Qwen2VLVisionTower.lay_out(config, np.array(grids)))
    x, rotary = tower.patch_embed(pixels), tower._rotary(layout)
    for index, block in enumerate(tower.blocks):
        region = frame if index in config.fullatt_block_indexes else window
        mask = paddle.to_tensor(np.where(region[:, None] == region, 0, -1e9).astype(np.float32))
        qkv = block.attn.qkv(block.norm1(x)).reshape([len(region), 3, config.num_heads, -1])
        query, key, value = (one.transpose([1, 0, 2]) for one in rotate_split(qkv, *rotary))
        scores = query.matmul(key, transpose_y=True) * query.shape[-1] ** -0.5 + mask
        mixed = paddle.nn.functional.softmax(scores, axis=-1).matmul(value)
        x = x + block.attn.proj(mixed.transpose([1, 0, 2]).reshape([len(region), -1]))
        x = x + block.mlp(block.norm2(x))
    return tower.merger(x)


def random_grids(rng):
    """One to three images and videos of 1 to 7 merged tokens a side."""
    return [
        [int(rng.choice([1, 1, 2, 3])), *(2 * rng.integers(1, 8, 2)).tolist()] for _ in range(int(rng.integers(1, 4)))
    ]


@EACH_REFERENCE
def test_the_tower_sees_what_dense_masks_let_it_see_in_random_grids(model):
    tower, side, rng = model.visual, model.visual.config.window_side, np.random.default_rng(0)
    drawn = [random_grids(rng) for _ in range(20)]
    shapes = [(t, h // 2, w // 2) for grids in drawn for t, h, w in grids]
    # The cases occur: windows that stick out below, on the right and on both sides, none that does, less than one.
    uneven = {(rows % side > 0, columns % side > 0) for t, rows, columns in shapes if min(rows, columns) >= side}
    assert uneven == {(low, right) for low in (False, True) for right in (False, True)}
    assert any(max(rows, columns) < side or (rows, columns) == (1, 1) for t, rows, columns in shapes)
    assert {t for t, *_ in shapes} == {1, 2, 3} and {len(grids) for grids in drawn} == {1, 2, 3}
    for grids in drawn:
        patches = sum(t * h * w for t, h, w in grids)
        pixels = paddle.to_tensor(rng.normal(size=(patches, tower.config.patch_values)).astype(np.float32))
        with paddle.no_grad():
            found = tower(pixels, paddle.to_tensor(grids)).numpy()
            wanted = seen_through_masks(tower, pixels, grids).numpy()
        assert wanted.std() > 0.1
        # Values reach 4; 2e-6 apart were measured.
        np.testing.assert_allclose(found, wanted, atol=2e-5, rtol=0, err_msg=str(grids))


@EACH_REFERENCE
def test_full_attention_in_every_block_would_have_failed_the_comparison(reference, fresh_model):
    tower = fresh_model.visual
    pixels, grids = (paddle.to_tensor(reference.arrays[f"vision/{key}"]) for key in ("pixel_values", "grid_thw"))
    for blocks in (tuple(range(tower.config.depth)), ()):
        tower.config.fullatt_block_indexes = blocks
        with paddle.no_grad():
            found = tower(pixels, grids).numpy()
        assert np.abs(found - reference.arrays["vision/output"]).max() > 0.1


def test_windows_are_cut_row_by_row_from_the_upper_left_corner():
    order, counts = window_order([[1, 4, 6], [2, 2, 6]], merge_size=2, side=2)
    # 2 x 3 merged tokens: a window of 2 x 2 and one of 2 x 1; then two frames of 1 x 3: 1 x 2 and 1 x 1 in each.
    assert order.tolist() == [0, 1, 3, 4, 2, 5, 6, 7, 8, 9, 10, 11]
    assert counts == [4, 2, 2, 1, 2, 1]


@pytest.mark.parametrize("side", [1, 2, 3, 4])
def test_windows_hold_every_cell_once_and_none_is_empty(side):
    rng = np.random.default_rng(side)
    for _ in range(20):
        grids = random_grids(rng)
        order, counts = window_order(grids, 2, side)
        assert sorted(order.tolist()) == list(range(sum(t * h * w // 4 for t, h, w in grids)))
        assert sum(counts) == len(order) and min(counts) > 0 and max(counts) <= side**2
