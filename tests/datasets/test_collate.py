from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from paddlemix.contract import Sample
from paddlemix.datasets.collate import PackCollator, PadCollator, TrainingCollator
from paddlemix.datasets.mixing.loss_weights import WeightedSample


def sample(length, images=0, start=10, videos=0):
    ids = np.arange(start, start + length)
    media = {}
    if images:
        media["pixel_values"] = np.full((4 * images, 6), start, dtype=np.float32)
        media["image_grid_thw"] = np.tile([1, 2, 2], (images, 1))
    if videos:
        media["pixel_values_videos"] = np.full((8 * videos, 6), start + 1, dtype=np.float32)
        media["video_grid_thw"] = np.tile([2, 2, 2], (videos, 1))
    return Sample(ids, np.where(ids % 2, ids, -100), np.stack([ids, ids + 100, ids + 200]), media)


def test_on_the_right_the_longest_decides_and_no_mask_is_made():
    batch = PadCollator(7)([sample(2), sample(4, start=20)])
    assert batch["input_ids"].tolist() == [[10, 11, 7, 7], [20, 21, 22, 23]]
    assert batch["labels"].tolist() == [[-100, 11, -100, -100], [-100, 21, -100, 23]]
    assert batch["position_ids"][:, 0].tolist() == [[10, 11, 1, 1], [110, 111, 1, 1], [210, 211, 1, 1]]
    assert set(batch) == {"input_ids", "labels", "position_ids"}


def test_on_the_left_every_row_ends_with_its_last_token_and_a_mask_hides_the_padding():
    batch = PadCollator(7, side="left")([sample(2), sample(4, start=20)])
    assert batch["input_ids"].tolist() == [[7, 7, 10, 11], [20, 21, 22, 23]]
    assert batch["labels"].tolist() == [[-100, -100, -100, 11], [-100, 21, -100, 23]]
    assert batch["position_ids"][:, 0].tolist() == [[1, 1, 10, 11], [1, 1, 110, 111], [1, 1, 210, 211]]
    assert batch["attention_mask"].tolist() == [[0, 0, 1, 1], [1, 1, 1, 1]]


@pytest.mark.parametrize("side", ["left", "right"])
def test_images_follow_one_another_row_by_row_and_text_alone_has_none(side):
    batch = PadCollator(0, side=side)([sample(3, images=2), sample(1), sample(2, images=1, start=30)])
    assert batch["image_grid_thw"].shape == (3, 3)
    assert batch["pixel_values"].dtype == np.float32
    assert batch["pixel_values"][:, 0].tolist() == [10] * 8 + [30] * 4


def test_videos_follow_one_another_on_their_own():
    batch = PadCollator(0)([sample(3, videos=1), sample(2, images=1), sample(2, videos=2, images=1, start=30)])
    assert batch["video_grid_thw"].tolist() == [[2, 2, 2]] * 3
    assert batch["pixel_values_videos"][:, 0].tolist() == [11] * 8 + [31] * 16
    assert len(batch["image_grid_thw"]) == 2


def test_inputs_that_no_collator_has_heard_of_travel_like_any_other():
    seconds = [np.array(each, dtype=np.float32) for each in ([0.5], [1.0, 2.0])]
    samples = [Sample(np.arange(3), np.arange(3), media={"second_per_grid_ts": one}) for one in seconds]
    for collate in (PadCollator(0), PackCollator()):
        batch = collate([samples[0], Sample(np.arange(2), np.arange(2)), samples[1]])
        assert batch["second_per_grid_ts"].tolist() == [0.5, 1.0, 2.0]
        assert batch["second_per_grid_ts"].dtype == np.float32


@pytest.mark.parametrize("side", ["left", "right"])
def test_shapes_and_dtypes_are_what_the_model_takes(side):
    batch = PadCollator(0, side=side)([sample(5), sample(3), sample(1)])
    assert {name: array.shape for name, array in batch.items() if name != "attention_mask"} == {
        "input_ids": (3, 5),
        "labels": (3, 5),
        "position_ids": (3, 3, 5),
    }
    assert {array.dtype for array in batch.values()} == {np.dtype(np.int64)}


def test_samples_stay_as_they_were():
    one = sample(2)
    PadCollator(0)([one, sample(4)])
    assert one.input_ids.tolist() == [10, 11] and one.position_ids.shape == (3, 2)


def test_a_pack_is_one_row_of_samples_whose_first_tokens_nobody_predicts():
    batch = PackCollator()([sample(3, start=11), sample(2, start=31), sample(1, start=41)])
    assert batch["input_ids"].tolist() == [[11, 12, 13, 31, 32, 41]]
    assert batch["labels"].tolist() == [[-100, -100, 13, -100, -100, -100]]
    assert batch["position_ids"].tolist() == [
        [[11, 12, 13, 31, 32, 41]],
        [[111, 112, 113, 131, 132, 141]],
        [[211, 212, 213, 231, 232, 241]],
    ]
    assert batch["cu_seqlens"].tolist() == [0, 3, 5, 6] and batch["cu_seqlens"].dtype == np.int32
    assert set(batch) == {"input_ids", "labels", "position_ids", "cu_seqlens"}


def test_images_and_videos_go_with_their_samples_into_a_pack():
    batch = PackCollator()([sample(2, images=1, start=10), sample(3), sample(2, images=2, start=30, videos=1)])
    assert batch["pixel_values"][:, 0].tolist() == [10] * 4 + [30] * 8
    assert len(batch["image_grid_thw"]) == 3 and batch["pixel_values_videos"].shape == (8, 6)


@pytest.mark.parametrize("packs", [False, True])
def test_every_label_has_its_samples_weight(packs):
    rows = [[WeightedSample(sample(3), 0.5)], [WeightedSample(sample(1), 0.25)]]
    batch = TrainingCollator(7, packs=packs)(rows)
    assert batch["loss_weights"].tolist() == ([[0.5, 0.5, 0.5, 0.25]] if packs else [[0.5] * 3, [0.25, 0, 0]])
    assert batch["loss_weights"].dtype == np.float32 and batch["loss_weights"].shape == batch["labels"].shape
    assert ("cu_seqlens" in batch) == packs


@pytest.mark.parametrize("packs", [False, True])
def test_a_samples_own_weights_are_multiplied_by_what_it_weighs_as_a_whole(packs):
    own = dataclasses.replace(sample(3), loss_weights=np.array([0, 2, 0.5], dtype=np.float32))
    batch = TrainingCollator(7, packs=packs)([[WeightedSample(own, 0.5)], [WeightedSample(sample(2), 0.25)]])
    assert batch["loss_weights"].dtype == np.float32 and batch["loss_weights"].flags.c_contiguous
    assert batch["loss_weights"].tolist() == ([[0, 1, 0.25, 0.25, 0.25]] if packs else [[0, 1, 0.25], [0.25, 0.25, 0]])


def test_the_packs_of_a_batch_are_laid_behind_one_another():
    first, second = sample(2), sample(1, start=30)
    rows = [[WeightedSample(first, 1.0), WeightedSample(second, 2.0)], [WeightedSample(first, 3.0)]]
    batch = TrainingCollator(7, packs=True)(rows)
    assert batch["cu_seqlens"].tolist() == [0, 2, 3, 5]
    assert batch["loss_weights"].tolist() == [[1, 1, 2, 3, 3]]


def test_samples_without_positions_and_grids_make_a_batch_without_them():
    pixels = [np.full((count, 3, 4, 4), count, dtype=np.float32) for count in (2, 1)]
    ids = np.arange(3)
    samples = [Sample(ids, ids, media={"pixel_values": one}) for one in pixels]
    batch = PadCollator(0)([*samples, Sample(ids, ids)])
    assert set(batch) == {"input_ids", "labels", "pixel_values"}
    assert batch["pixel_values"].shape == (3, 3, 4, 4)
    assert batch["pixel_values"][:, 0, 0, 0].tolist() == [2, 2, 1]


def test_in_a_pack_of_samples_without_positions_places_are_counted_from_each_ones_start():
    ids = np.arange(3)
    one = Sample(ids, ids)
    batch = PackCollator()([one, one])
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 1, 2]]
    assert batch["labels"].tolist() == [[-100, 1, 2, -100, 1, 2]]


@pytest.mark.parametrize(
    ("dtype", "wanted"), [("float32", np.float32), ("float16", np.float16), ("bfloat16", np.uint16)]
)
def test_pixels_alone_are_rounded_to_the_dtype_that_the_model_computes_with(dtype, wanted):
    one = dataclasses.replace(sample(3, images=1, videos=1), position_ids=None)
    batch = TrainingCollator(0, pixel_dtype=dtype)([[WeightedSample(one, 0.5)]])
    assert {name for name, array in batch.items() if array.dtype == wanted} >= {"pixel_values", "pixel_values_videos"}
    assert batch["loss_weights"].dtype == np.float32 and batch["image_grid_thw"].dtype == np.int64


def test_what_is_found_of_a_batch_travels_with_it():
    seen = []
    found = TrainingCollator(0, lay_out=lambda batch: seen.append(set(batch)) or {"places": batch["input_ids"][0]})(
        [[WeightedSample(sample(3), 0.5)]]
    )
    assert found["layout.places"].tolist() == [10, 11, 12]
    assert seen == [{"input_ids", "labels", "position_ids", "loss_weights"}]
