"""The time axis of Qwen2.5-VL's positions: seconds, whole steps of which are counted."""

from __future__ import annotations

import numpy as np
import paddle
import pytest

from paddlemix.models.qwen2_vl.positions import TimeScale, batch_mrope_positions, mrope_positions

from ...references import references_of

EACH_REFERENCE = references_of("qwen2_5_vl_tiny")

VIDEO = 91
WITH_VIDEOS = ["video", "mixed_left", "mixed_right"]


def times(seconds, patches, steps=2, text=6):
    ids = np.array([1] * text + [VIDEO] * patches + [1])
    scales = [TimeScale(seconds, steps)]
    found = mrope_positions(ids, [(patches, 2, 2)], vision_token_ids=(VIDEO,), merge_size=2, time_scales=scales)
    return found[0, text:].tolist()


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.5, [6, 7, 8, 9]),
        (1.0, [6, 8, 10, 11]),
        (1.5, [6, 9, 12, 13]),
        (2.0, [6, 10, 14, 15]),
        # More than 4 frames a second: some patches share a step, and none of 3 s is lost.
        (1 / 15, [6, 6, 6, 7]),
        (2 / 3, [6, 7, 8, 9]),
        (0.4, [6, 6, 7, 8]),
    ],
)
def test_a_patchs_place_is_its_time_in_steps_and_text_goes_on_behind_the_largest(seconds, expected):
    assert times(seconds, patches=3) == expected


def test_a_video_of_thirty_frames_a_second_passes_through_as_many_steps_as_its_time_has():
    found = times(1 / 15, patches=45)
    assert found[:-1] == [6 + 2 * patch // 15 for patch in range(45)] and found[-1] == 12


def test_factors_are_multiplied_in_the_references_order():
    """Patch times seconds first: the fifth patch of 0.08 s would else reach its second step one patch earlier."""
    patch, seconds, steps = np.float32([5, 0.08, 5])
    assert patch * seconds * steps < 2 <= patch * np.float32(0.08 * 5)
    assert times(0.08, patches=6, steps=5, text=0)[5] == 1


@EACH_REFERENCE
@pytest.mark.parametrize("lasting", ["seconds", "whole seconds", "counted"])
@pytest.mark.parametrize("batch", WITH_VIDEOS)
def test_positions_that_count_patches_or_whole_seconds_would_have_failed_the_comparison(
    reference, model, batch, lasting
):
    inputs = reference.inputs(batch)
    seconds = inputs["second_per_grid_ts"].numpy()
    steps = model.config.vision_config.tokens_per_second
    scales = {
        "seconds": [TimeScale(one, steps) for one in seconds],
        "whole seconds": [TimeScale(int(one), steps) for one in seconds],
        "counted": None,
    }
    positions, _ = batch_mrope_positions(
        *(
            inputs[name].numpy() if name in inputs else None
            for name in ("input_ids", "attention_mask", "image_grid_thw", "video_grid_thw")
        ),
        image_token_id=model.config.image_token_id,
        video_token_id=model.config.video_token_id,
        merge_size=2,
        video_time_scales=scales[lasting],
    )
    with paddle.no_grad():
        logits = model(**inputs, position_ids=paddle.to_tensor(positions)).logits.numpy()
    apart = np.abs(logits - reference.arrays[f"{batch}/logits"])[reference.is_token(batch)].max()
    assert apart < 5e-5 if lasting == "seconds" else apart > 0.1


@EACH_REFERENCE
def test_patches_last_a_second_where_nothing_is_said(reference, model):
    inputs = reference.inputs("mixed_right")
    seconds = paddle.ones_like(inputs.pop("second_per_grid_ts"))
    with paddle.no_grad():
        unsaid, said, other = (
            model(**inputs, **more).logits.numpy()
            for more in ({}, {"second_per_grid_ts": seconds}, {"second_per_grid_ts": seconds * 2})
        )
    np.testing.assert_array_equal(unsaid, said)
    assert np.abs(unsaid - other).max() > 0.1


@EACH_REFERENCE
def test_seconds_of_another_number_of_videos_are_refused_with_both_counts(reference, model):
    inputs = reference.inputs("mixed_right")
    inputs["second_per_grid_ts"] = inputs["second_per_grid_ts"][:2]
    with pytest.raises(ValueError, match=r"has 2 numbers, but `video_grid_thw` 3 videos"):
        model(**inputs)
