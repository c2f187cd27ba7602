"""Qwen2-VL and its kin against the reference implementation's numbers, see tests/models/make_reference.py."""

from __future__ import annotations

import numpy as np
import paddle
import pytest

from paddlemix.generation.cache import KVCache
from paddlemix.handover import HostCopies, Layout
from paddlemix.models.qwen2_vl.vision import Qwen2VLVisionTower
from paddlemix.ops import apply_rotary

from ...references import references_of

pytestmark = references_of("qwen2_vl_tiny", "qwen2_5_vl_tiny")

# Logits reach 12. The reference lies up to 1.5e-5 from its own float64 numbers; we lie up to 2.1e-5 from it, and up to
# 3.1e-5 for Qwen2.5-VL.
LOGITS_TOLERANCE = 5e-5

BATCHES = ["text", "text_left", "text_right", "one_picture", "several_pictures", "adjacent_pictures"]
BATCHES += ["picture_at_end", "video", "mixed_left", "mixed_right"]
WITH_IMAGES = [name for name in BATCHES if not name.startswith(("text", "video"))]


@pytest.fixture(scope="session")
def outputs(reference, model):
    with paddle.no_grad():
        return {name: model(**reference.inputs(name)) for name in reference.batches}


def test_every_stored_batch_is_compared(reference):
    assert sorted(reference.batches) == sorted(BATCHES)


@pytest.mark.parametrize("batch", BATCHES)
def test_logits_and_loss_are_the_references(reference, outputs, batch):
    wanted, is_token = reference.arrays[f"{batch}/logits"], reference.is_token(batch)
    # Not vacuous: the logits are large and tell the places apart.
    assert np.abs(wanted[is_token]).max() > 5 and wanted[is_token].std(axis=0).min() > 0.1
    np.testing.assert_allclose(outputs[batch].logits.numpy()[is_token], wanted[is_token], atol=LOGITS_TOLERANCE, rtol=0)
    np.testing.assert_allclose(float(outputs[batch].loss), reference.arrays[f"{batch}/loss"], rtol=1e-5)


@pytest.mark.parametrize("batch", BATCHES)
def test_positions_and_deltas_are_exactly_the_references(reference, model, outputs, batch):
    positions, deltas = model.positions(model.config, HostCopies(reference.inputs(batch)))
    np.testing.assert_array_equal(positions, reference.arrays[f"{batch}/position_ids"])
    np.testing.assert_array_equal(deltas, reference.arrays[f"{batch}/rope_deltas"])
    np.testing.assert_array_equal(outputs[batch].rope_deltas.numpy(), deltas)


@pytest.mark.parametrize("batch", [name for name in BATCHES if "text" not in name])
def test_plain_positions_would_have_failed_the_comparison(reference, model, batch):
    inputs = reference.inputs(batch)
    counted = paddle.arange(inputs["input_ids"].shape[1]).expand([3, *inputs["input_ids"].shape])
    with paddle.no_grad():
        logits = model(**inputs, position_ids=counted).logits.numpy()
    assert np.abs(logits - reference.arrays[f"{batch}/logits"])[reference.is_token(batch)].max() > 0.1


@pytest.mark.parametrize("batch", WITH_IMAGES)
def test_other_pixels_give_other_logits_from_the_image_on_and_not_before(reference, model, outputs, batch):
    inputs = reference.inputs(batch)
    with paddle.no_grad():
        logits = model(**{**inputs, "pixel_values": inputs["pixel_values"].flip(0)}).logits.numpy()
    difference = np.abs(logits - outputs[batch].logits.numpy()).max(-1)
    is_image = (inputs["input_ids"] == model.config.image_token_id).numpy()
    behind = (np.cumsum(is_image, axis=1) > 0) & reference.is_token(batch)
    before = ~behind & reference.is_token(batch)
    assert difference[is_image].mean() > 0.1
    assert difference[behind].min() > 1e-3
    assert difference[before].max() == 0


def outputs_of(stages, call):
    """What each of `stages` returns during `call()`."""
    found = {}
    hooks = [
        stage.register_forward_post_hook(lambda _, __, output, name=name: found.__setitem__(name, output.numpy()))
        for name, stage in stages.items()
    ]
    with paddle.no_grad():
        call()
    for hook in hooks:
        hook.remove()
    return found


def test_each_stage_of_the_vision_tower_gives_the_references_numbers(reference, model):
    stages = {"patch_embed": model.visual.patch_embed, "merger": model.visual.merger}
    stages |= {f"blocks.{index}": block for index, block in enumerate(model.visual.blocks)}
    pixels, grids = (paddle.to_tensor(reference.arrays[f"vision/{key}"]) for key in ("pixel_values", "grid_thw"))
    # Where patches are sorted by windows, these stages give them in that order; the tower gives them as they came.
    stages |= {"output": model.visual} if "vision/output" in reference.arrays else {}
    found = outputs_of(stages, lambda: model.visual(pixels, grids))
    inputs = {"vision/pixel_values", "vision/grid_thw"}
    assert {f"vision/{name}" for name in stages} == {key for key in reference.arrays if "vision/" in key} - inputs
    assert len({tuple(grid) for grid in grids.tolist()}) == 3
    for name in stages:
        wanted = reference.arrays[f"vision/{name}"]
        assert wanted.std() > 0.1
        # Values reach 4.5, and 3e-6 apart were measured; 17 and 1.6e-5 for Qwen2.5-VL.
        atol = 4e-6 * np.abs(wanted).max()
        np.testing.assert_allclose(found[name], wanted, atol=atol, rtol=0, err_msg=name)


def test_each_decoder_layer_and_the_last_norm_give_the_references_numbers(reference, model):
    stages = {"norm": model.model.norm}
    stages |= {f"layers.{index}": layer for index, layer in enumerate(model.model.layers)}
    found = outputs_of(stages, lambda: model(**reference.inputs("video")))
    assert sorted(f"decoder/{name}" for name in stages) == sorted(key for key in reference.arrays if "decoder/" in key)
    for name in stages:
        wanted = reference.arrays[f"decoder/{name}"]
        assert wanted.std() > 0.1
        # Values reach 11; 1.4e-5 apart were measured.
        np.testing.assert_allclose(found[name], wanted, atol=5e-5, rtol=0, err_msg=name)


def test_queries_of_the_decoder_turn_as_the_references_with_time_height_and_width(reference, model):
    positions = reference.arrays["video/position_ids"]
    assert len(np.unique(positions, axis=0)) == 3
    query = paddle.to_tensor(reference.arrays["rotary/query"])
    found = apply_rotary(query, *model._rotary(paddle.to_tensor(positions))).numpy()
    wanted = reference.arrays["rotary/turned_query"]
    assert np.abs(wanted - query.numpy()).max() > 1
    # Numbers reach 2.8; 2.4e-7 apart were measured.
    np.testing.assert_allclose(found, wanted, atol=1e-6, rtol=0)


def test_queries_of_the_vision_tower_turn_as_the_references_with_row_and_column(reference, model):
    patches = paddle.to_tensor(reference.arrays["rotary/patch"])
    # In the order in which patches come, which a tower with windows changes.
    layout = Layout(Qwen2VLVisionTower.lay_out(model.config.vision_config, reference.arrays["vision/grid_thw"]))
    found = apply_rotary(patches, *model.visual._rotary(layout)).numpy()
    wanted = reference.arrays["rotary/turned_patch"]
    assert np.abs(wanted - patches.numpy()).max() > 1
    np.testing.assert_allclose(found, wanted, atol=1e-6, rtol=0)


def test_each_step_with_the_cache_gives_the_references_logits(reference, model):
    inputs, tokens = reference.inputs("mixed_left"), paddle.to_tensor(reference.arrays["greedy/tokens"])
    wanted = reference.arrays["greedy/logits"]
    (rows, length), steps = inputs["input_ids"].shape, tokens.shape[1]
    assert steps == wanted.shape[1] == 12 and (inputs["attention_mask"][0] == 0).any()
    del inputs["labels"]
    caches = [KVCache(length + steps) for _ in range(model.config.num_hidden_layers)]
    with paddle.no_grad():
        output = model(**inputs, past_key_values=caches)
        for step in range(steps):
            np.testing.assert_allclose(
                output.logits[:, -1].numpy(), wanted[:, step], atol=LOGITS_TOLERANCE, rtol=0, err_msg=f"step {step}"
            )
            mask = paddle.concat([inputs["attention_mask"], paddle.ones([rows, step + 1], dtype="int64")], axis=1)
            following, deltas = tokens[:, step : step + 1], output.rope_deltas
            if step + 1 < steps:
                output = model(following, mask, past_key_values=caches, rope_deltas=deltas)


def test_generation_writes_the_references_greedy_tokens(reference, model):
    """With every input the batch has, seconds too: positions go on from them while an answer is written."""
    inputs, tokens = reference.inputs("mixed_left"), reference.arrays["greedy/tokens"]
    del inputs["labels"]
    assert ("second_per_grid_ts" in inputs) == ("second_per_grid_ts" in model.own_inputs)
    written = model.generate(**inputs, max_new_tokens=12).numpy()[:, inputs["input_ids"].shape[1] :]
    np.testing.assert_array_equal(written, tokens)
    if inputs.pop("second_per_grid_ts", None) is not None:
        unsaid = model.generate(**inputs, max_new_tokens=12).numpy()[:, inputs["input_ids"].shape[1] :]
        assert np.array_equal(unsaid[:2], tokens[:2]) and not np.array_equal(unsaid[2], tokens[2])


def test_the_gradient_of_every_parameter_is_the_references(reference, fresh_model, as_published):
    fresh_model(**reference.inputs("mixed_left")).loss.backward()
    wanted = {key.removeprefix("gradient/"): value for key, value in reference.arrays.items() if "gradient/" in key}
    parameters = dict(fresh_model.named_parameters())
    assert sorted(parameters) == sorted(wanted)
    for name, parameter in parameters.items():
        gradient = as_published(fresh_model, name, parameter.grad)
        scale = np.abs(wanted[name]).max()
        assert scale > 1e-3, name
        # 5e-6 of the largest entry were measured, and 1e-5 for Qwen2.5-VL.
        np.testing.assert_allclose(gradient, wanted[name], atol=3e-5 * scale, rtol=0, err_msg=name)
