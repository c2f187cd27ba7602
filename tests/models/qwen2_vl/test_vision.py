from __future__ import annotations

import numpy as np
import paddle
import pytest

from paddlemix.handover import Layout
from paddlemix.models.qwen2_vl.vision import ROTARY_BASE, patch_places
from paddlemix.ops import rotary_frequencies


def tokens(model, pixels, grids):
    with paddle.no_grad():
        return model.visual(paddle.to_tensor(pixels), paddle.to_tensor(grids)).numpy()


def test_patches_lie_in_merge_windows_and_each_frame_repeats_them():
    places = patch_places([2, 2, 4], merge_size=2).tolist()
    frame = [[0, 0], [0, 1], [1, 0], [1, 1], [0, 2], [0, 3], [1, 2], [1, 3]]
    assert places == frame * 2


def test_images_and_frames_do_not_see_one_another(reference, model):
    pixels, grids = reference.arrays["vision/pixel_values"], reference.arrays["vision/grid_thw"].tolist()
    assert [grid[0] for grid in grids] == [1, 1, 3]
    together = tokens(model, pixels, grids)
    frames = [[1, h, w] for t, h, w in grids for _ in range(t)]
    ends = np.cumsum([0, *[h * w for _, h, w in frames]])
    alone = [
        tokens(model, pixels[start:end], [frame]) for frame, start, end in zip(frames, ends[:-1], ends[1:], strict=True)
    ]
    np.testing.assert_allclose(np.concatenate(alone), together, atol=1e-5, rtol=0)


def test_a_patch_is_seen_by_the_whole_image_and_its_place_matters(reference, model):
    pixels = reference.arrays["vision/pixel_values"][:24]
    swapped = pixels[[4, *range(1, 4), 0, *range(5, 24)]]
    difference = np.abs(tokens(model, pixels, [[1, 4, 6]]) - tokens(model, swapped, [[1, 4, 6]]))
    assert difference.max(-1).min() > 1e-3


def test_grids_that_do_not_add_up_to_the_patches_are_refused_with_both_counts(reference, model):
    with pytest.raises(ValueError, match=r"holds 24 patches, but grid_thw \[\[1, 4, 4\]\] asks for 16"):
        tokens(model, reference.arrays["vision/pixel_values"][:24], [[1, 4, 4]])


def test_a_grid_that_merge_windows_do_not_fill_is_refused(reference, model):
    with pytest.raises(ValueError, match=r"\[\[1, 8, 3\]\]; height and width must be multiples of .* 2"):
        tokens(model, reference.arrays["vision/pixel_values"][:24], [[1, 8, 3]])


@pytest.mark.parametrize("grids", [[[1, 2, 2]], [[1, 4, 6], [3, 8, 34]], [[2, 66, 4]]])
def test_angles_that_are_looked_up_are_those_of_each_patch_bit_by_bit(model, grids):
    tower = model.visual
    size = tower.config.width // tower.config.num_heads // 2
    places = np.concatenate([patch_places(grid, tower.config.spatial_merge_size) for grid in grids])
    angles = (places[:, :, None] * rotary_frequencies(ROTARY_BASE, size)).reshape(len(places), -1).astype(np.float32)
    cos, sin = tower._rotary(Layout(tower.lay_out(tower.config, np.array(grids))))
    assert cos.numpy().tobytes() == np.cos(angles).tobytes() and sin.numpy().tobytes() == np.sin(angles).tobytes()
