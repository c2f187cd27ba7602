from __future__ import annotations

import numpy as np
import pytest

from paddlemix.models.qwen2_vl.positions import TimeScale, batch_mrope_positions, mrope_positions

from ...references import FIXTURES

IMAGE, VIDEO = 90, 91


def positions(ids, grids):
    return mrope_positions(np.array(ids), grids, vision_token_ids=(IMAGE, VIDEO), merge_size=2).tolist()


def batch_positions(ids, mask=None, images=None, videos=None):
    arrays = [None if values is None else np.array(values) for values in (ids, mask, images, videos)]
    return batch_mrope_positions(*arrays, image_token_id=IMAGE, video_token_id=VIDEO, merge_size=2)


@pytest.mark.parametrize(("family", "steps"), [("qwen2_vl_tiny", None), ("qwen2_5_vl_tiny", 5)])
@pytest.mark.parametrize("side", ["left", "right"])
def test_rows_of_texts_images_and_videos_in_any_order_are_laid_out_as_the_reference_does(side, family, steps):
    image, video = 112, 113
    with np.load(FIXTURES / family / "positions.npz") as stored:
        arrays = {key.removeprefix(f"{side}/"): stored[key] for key in stored if key.startswith(side)}
    ids, mask = arrays["input_ids"], arrays["attention_mask"]
    found, deltas = batch_mrope_positions(
        *(arrays[key] for key in ("input_ids", "attention_mask", "image_grid_thw", "video_grid_thw")),
        image_token_id=image,
        video_token_id=video,
        merge_size=2,
        video_time_scales=None if steps is None else [TimeScale(one, steps) for one in arrays["second_per_grid_ts"]],
    )
    # The cases occur: rows without vision and with both kinds, some ending in vision, padding on the named side.
    shown = np.stack([(ids == token).any(1) for token in (image, video)])
    assert len(ids) == 60 and (~shown.any(0)).any() and shown.all(0).sum() > 20
    last = [row[is_token == 1][-2] for row, is_token in zip(ids, mask, strict=True)]
    assert last.count(image) > 5 and last.count(video) > 5
    assert (mask[:, 0 if side == "left" else -1] == 0).sum() > 50
    np.testing.assert_array_equal(found, arrays["position_ids"])
    np.testing.assert_array_equal(deltas, arrays["rope_deltas"])


def test_text_counts_on_in_all_three_rows():
    assert positions([1, 2, 3], []) == [[0, 1, 2]] * 3


def test_an_image_counts_its_rows_and_columns_and_text_goes_on_behind_the_largest():
    assert positions([1, 2, *[IMAGE] * 6, 3, 4], [(1, 4, 6)]) == [
        [0, 1, 2, 2, 2, 2, 2, 2, 5, 6],
        [0, 1, 2, 2, 2, 3, 3, 3, 5, 6],
        [0, 1, 2, 3, 4, 2, 3, 4, 5, 6],
    ]


def test_a_video_counts_its_frames_by_one():
    assert positions([1, *[VIDEO] * 6], [(3, 2, 4)]) == [
        [0, 1, 1, 2, 2, 3, 3],
        [0, 1, 1, 1, 1, 1, 1],
        [0, 1, 2, 1, 2, 1, 2],
    ]


def test_images_that_touch_stay_two_images():
    assert positions([*[IMAGE] * 2, *[IMAGE] * 2, 5], [(1, 2, 4), (1, 4, 2)]) == [
        [0, 0, 2, 2, 4],
        [0, 0, 2, 3, 4],
        [0, 1, 2, 2, 4],
    ]


def test_padding_has_position_one_and_does_not_move_the_tokens():
    ids = [[0, 0, 7, 8], [5, 6, 7, 8]]
    found, deltas = batch_positions(ids, mask=[[0, 0, 1, 1], [1, 1, 1, 1]])
    assert found[0].tolist() == [[1, 1, 0, 1], [0, 1, 2, 3]]
    assert deltas.tolist() == [[-2], [0]]


def test_a_row_of_padding_alone_starts_at_zero():
    found, deltas = batch_positions([[0, 0]], mask=[[0, 0]])
    assert (found == 1).all() and deltas.tolist() == [[-2]]


def test_each_row_draws_its_own_images_and_videos():
    ids = [[1, IMAGE, VIDEO, VIDEO], [IMAGE, IMAGE, 2, 3]]
    found, _ = batch_positions(ids, images=[(1, 2, 2), (1, 2, 4)], videos=[(2, 2, 2)])
    assert found[:, 0].tolist() == [[0, 1, 2, 3], [0, 1, 2, 2], [0, 1, 2, 2]]
    assert found[:, 1].tolist() == [[0, 0, 2, 3], [0, 0, 2, 3], [0, 1, 2, 3]]


@pytest.mark.parametrize(
    ("ids", "images", "videos", "counts"),
    [
        ([[1, IMAGE, IMAGE]], [(1, 2, 2)], None, ("2 vision tokens", "make 1")),
        ([[1, IMAGE]], [(1, 4, 4)], None, ("1 vision tokens", "make 4")),
        ([[1, IMAGE]], None, None, ("1 vision tokens", "make 0", "more images")),
        ([[IMAGE, VIDEO]], [(1, 2, 2)], None, ("2 vision tokens", "make 1", "more videos")),
        ([[1, IMAGE]], [(1, 2, 2), (1, 4, 4)], None, ("last 1", "[1, 4, 4]")),
        ([[1, 2]], None, [(1, 2, 2)], ("last 1", "[1, 2, 2]")),
        ([[IMAGE, 1], [IMAGE, IMAGE]], [(1, 2, 4), (1, 2, 2)], None, ("1 vision tokens", "make 2")),
    ],
)
def test_tokens_that_are_not_those_of_the_grids_are_refused_with_both_counts(ids, images, videos, counts):
    with pytest.raises(ValueError) as caught:
        batch_positions(ids, images=images, videos=videos)
    for count in counts:
        assert count in str(caught.value)
