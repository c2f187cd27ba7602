"""Qwen-VL against the numbers of the original code."""

from __future__ import annotations

import json

import numpy as np
import paddle
import pytest
from paddle import nn

from paddlemix.generation.cache import KVCache
from paddlemix.models import decoder
from paddlemix.models.qwen_vl.positions import ntk_alpha, scaled_frequencies
from paddlemix.models.qwen_vl.resampler import sincos_grid
from paddlemix.ops import resize_grid

# Logits reach 8.7; 2.4e-5 apart were measured, also on other lengths.
LOGITS_TOLERANCE = 6e-5
# States of the tower and the decoder reach 12; 1e-5 apart were measured.
STATES_TOLERANCE = 3e-5

WITH_LOGITS = ["text", "pad_left", "pad_right", "image_multi", "image_batch"]
LENGTHS = [20, 24, 25, 40, 48, 49, 60, 80]
LOSSES = ["loss_text", "loss_image_multi", "loss_image_batch", "loss_padded"]


def run(model, inputs, mode="eval"):
    """Of a model in `mode`, which goes back to evaluation afterwards."""
    getattr(model, mode)()
    with paddle.no_grad():
        output = model(**inputs)
    model.eval()
    return output


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


def test_every_case_with_logits_is_compared(original):
    stored = [key for key in original.arrays if key.split("/")[1].startswith("logits")]
    compared = [f"{case}/logits" for case in WITH_LOGITS] + [f"long/logits_{length}" for length in LENGTHS]
    compared += [f"long/logits_{name}" for name in ("train_60", "nontk_60", "nologn_60", "train_stale_40")]
    assert sorted(stored) == sorted(compared)


@pytest.mark.parametrize("case", WITH_LOGITS)
def test_logits_of_tokens_are_the_originals(original, model, case):
    inputs, wanted = original.inputs(case), original.arrays[f"{case}/logits"]
    assert ("pixel_values" in inputs) == case.startswith("image")
    is_token = inputs.get("attention_mask", paddle.ones_like(inputs["input_ids"])).numpy() == 1
    assert is_token.all() != case.startswith("pad")
    assert np.abs(wanted[is_token]).max() > 5 and wanted[is_token].std(axis=0).min() > 0.1
    found = run(model, inputs).logits.numpy()
    np.testing.assert_allclose(found[is_token], wanted[is_token], atol=LOGITS_TOLERANCE, rtol=0)


def test_states_of_padding_on_the_left_are_not_the_originals_and_change_nothing_behind_them(original, model):
    """Padding sees no token here, which leaves it the mean of all; the original adds up two masks of minus infinity's

    size there, so that it sees some. Nothing reads those places in either.
    """
    inputs = original.inputs("pad_left")
    is_padding = inputs["attention_mask"].numpy() == 0
    before = run(model, inputs).logits.numpy()
    assert is_padding.sum() > 5 and np.abs(before - original.arrays["pad_left/logits"])[is_padding].max() > 1
    ids = np.where(is_padding, 5, inputs["input_ids"].numpy())
    after = run(model, {**inputs, "input_ids": paddle.to_tensor(ids)}).logits.numpy()
    assert np.abs(before - after)[is_padding].max() > 0.1
    np.testing.assert_allclose(after[~is_padding], before[~is_padding], atol=LOGITS_TOLERANCE, rtol=0)


def test_hidden_states_keys_and_values_of_each_layer_are_the_originals(original, model):
    decoder, inputs = model.transformer, original.inputs("text")
    stages = {"hidden_0": decoder.wte, "hidden_1": decoder.h[0], "hidden_2": decoder.h[1], "hidden_3": decoder.ln_f}
    caches = [KVCache(24) for _ in decoder.h]
    found = outputs_of(stages, lambda: model(**inputs, past_key_values=caches))
    for layer, cache in enumerate(caches):
        found |= {f"past_k_{layer}": cache._key.numpy(), f"past_v_{layer}": cache._value.numpy()}
    wanted = {key for key in original.arrays if key.startswith(("text/hidden", "text/past"))}
    assert {f"text/{name}" for name in found} == wanted and len(found) == 10
    for name, array in found.items():
        np.testing.assert_allclose(array, original.arrays[f"text/{name}"], atol=STATES_TOLERANCE, rtol=0, err_msg=name)


def test_attention_weights_of_each_layer_are_the_originals(original, model, monkeypatch):
    weights, attend = [], decoder.attention

    def watched(query, key, value, mask):
        hidden = mask.dense(query.shape[1], key.shape[1]).numpy()
        scores = np.einsum("blhd,bshd->bhls", query.numpy(), key.numpy()) / np.sqrt(query.shape[-1]) + hidden
        powers = np.exp(scores - scores.max(-1, keepdims=True))
        weights.append(powers / powers.sum(-1, keepdims=True))
        return attend(query, key, value, mask)

    monkeypatch.setattr(decoder, "attention", watched)
    run(model, original.inputs("text"))
    assert len(weights) == 3
    for layer, found in enumerate(weights):
        # Between 0 and 1; 2e-6 apart were measured.
        np.testing.assert_allclose(found, original.arrays[f"text/attn_{layer}"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("case", ["image_multi", "image_batch"])
def test_images_take_the_places_of_their_tokens_before_the_first_layer(original, model, case):
    seen = []
    hook = model.transformer.h[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].numpy()))
    found = outputs_of({"hidden_1": model.transformer.h[0]}, lambda: model(**original.inputs(case)))
    hook.remove()
    wanted = original.arrays[f"{case}/hidden_0"]
    assert np.abs(wanted - original.arrays["text/hidden_0"].mean()).max() > 0.1
    np.testing.assert_allclose(seen[0], wanted, atol=STATES_TOLERANCE, rtol=0)
    np.testing.assert_allclose(found["hidden_1"], original.arrays[f"{case}/hidden_1"], atol=STATES_TOLERANCE, rtol=0)


def test_each_stage_of_the_tower_gives_the_originals_numbers(original, model):
    tower, arrays = model.transformer.visual, original.arrays
    pool = tower.attn_pool
    stages = {"conv1": tower.conv1, "ln_pre": tower.ln_pre, "ln_post": tower.ln_post, "attn_pool": pool}
    stages |= {"kv_proj": pool.kv_proj, "ln_kv": pool.ln_kv, "ln_q": pool.ln_q, "output": tower}
    stages |= {f"block_{index}": block for index, block in enumerate(tower.transformer.resblocks)}
    found = outputs_of(stages, lambda: tower(paddle.to_tensor(arrays["vision/pixel_values"])))
    # The original's convolution puts the width first, its blocks the patches.
    found["conv1"] = found["conv1"].transpose(0, 2, 1).reshape(arrays["vision/conv1"].shape)
    found |= {name: found[name].swapaxes(0, 1) for name in found if name.startswith("block")}
    found["positional_embedding_interp"] = resize_grid(tower.positional_embedding, 8).numpy()
    found["resampler_pos_interp"] = resize_grid(pool.pos_embed, 8).numpy()
    assert {f"vision/{name}" for name in (*found, "pixel_values")} == {key for key in arrays if "vision/" in key}
    for name, array in found.items():
        assert arrays[f"vision/{name}"].std() > 0.01, name
        np.testing.assert_allclose(array, arrays[f"vision/{name}"], atol=STATES_TOLERANCE, rtol=0, err_msg=name)


def test_an_image_of_twice_the_side_gives_the_originals_tokens(original, model):
    pixels = paddle.to_tensor(original.arrays["vision_224/pixel_values_f16"].astype(np.float32))
    assert pixels.shape == [1, 3, 224, 224]
    with paddle.no_grad():
        found = model.transformer.visual(pixels).numpy()
    np.testing.assert_allclose(found, original.arrays["vision_224/output"], atol=STATES_TOLERANCE, rtol=0)


def test_the_constant_places_are_those_that_the_checkpoint_holds(model):
    stored = model.transformer.visual.attn_pool.pos_embed.numpy()
    np.testing.assert_allclose(sincos_grid(4, 256), stored, atol=1e-6, rtol=0)


@pytest.mark.parametrize("length", LENGTHS)
def test_logits_beyond_the_trained_length_are_the_originals(original, short_model, length):
    arrays = original.arrays
    assert sorted(arrays["long/lens"]) == LENGTHS
    ids = paddle.to_tensor(arrays["long/input_ids"][:, :length])
    found, wanted = run(short_model, {"input_ids": ids}).logits.numpy(), arrays[f"long/logits_{length}"]
    np.testing.assert_allclose(found, wanted, atol=LOGITS_TOLERANCE, rtol=0)


def test_the_rotary_base_grows_as_the_originals(original, short_model):
    arrays, config = original.arrays, short_model.config
    alphas = [ntk_alpha(length, config.seq_length) for length in arrays["long/lens"]]
    assert alphas == arrays["long/ntk_alpha"].tolist() and len(set(alphas)) == 3
    for length, alpha in zip(arrays["long/lens"], alphas, strict=True):
        found = scaled_frequencies(config.rotary_emb_base, config.head_dim, alpha).numpy()
        # By a unit in the last place, where the power is rounded otherwise.
        np.testing.assert_allclose(found, arrays[f"long/inv_freq_{length}"], rtol=1.2e-7, atol=0)


@pytest.mark.parametrize(("key", "case"), [("use_dynamic_ntk", "nontk_60"), ("use_logn_attn", "nologn_60")])
def test_dynamic_ntk_and_logn_can_each_be_switched_off(original, short_model, key, case):
    ids = paddle.to_tensor(original.arrays["long/input_ids"][:, :60])
    setattr(short_model.config, key, False)
    found = run(short_model, {"input_ids": ids}).logits.numpy()
    setattr(short_model.config, key, True)
    wanted = original.arrays[f"long/logits_{case}"]
    np.testing.assert_allclose(found, wanted, atol=LOGITS_TOLERANCE, rtol=0)
    assert np.abs(wanted - original.arrays["long/logits_60"]).max() > 0.1


def test_training_knows_neither_ntk_nor_logn(original, short_model):
    ids = paddle.to_tensor(original.arrays["long/input_ids"][:, :60])
    found = run(short_model, {"input_ids": ids}, "train").logits.numpy()
    np.testing.assert_allclose(found, original.arrays["long/logits_train_60"], atol=LOGITS_TOLERANCE, rtol=0)
    assert np.abs(found - original.arrays["long/logits_60"]).max() > 0.1


def test_training_does_not_depend_on_what_was_evaluated_before(original, short_model):
    """The original keeps the rotary base of the last evaluation, and a loss depends on when the model was evaluated."""
    ids = paddle.to_tensor(original.arrays["long/input_ids"])
    before = run(short_model, {"input_ids": ids[:, :40]}, "train").logits.numpy()
    run(short_model, {"input_ids": ids})
    after = run(short_model, {"input_ids": ids[:, :40]}, "train").logits.numpy()
    assert (before == after).all()
    assert np.abs(after - original.arrays["long/logits_train_stale_40"]).max() > 0.1


@pytest.mark.parametrize("case", LOSSES)
@pytest.mark.parametrize("mode", ["eval", "train"])
def test_losses_are_the_originals(original, model, case, mode):
    if (case, mode) == ("loss_padded", "eval"):
        pytest.skip("the original's loss of this batch was taken in training alone")
    found = float(run(model, original.inputs(case), mode).loss)
    wanted = float(original.arrays[f"{case}/loss_{mode}"])
    assert wanted > 3
    assert found == pytest.approx(wanted, rel=2e-6)


@pytest.mark.parametrize("case", LOSSES[:3])
def test_the_gradient_of_every_parameter_is_the_originals(original, fresh_model, as_published, case):
    arrays = original.arrays
    fresh_model.train()
    fresh_model(**original.inputs(case)).loss.backward()
    parameters = dict(fresh_model.named_parameters())
    wanted = dict(zip(arrays[f"{case}/grad_names"].tolist(), arrays[f"{case}/grad_norms"].tolist(), strict=True))
    assert sorted(parameters) == sorted(wanted) and len(wanted) == 80
    norms = {name: np.linalg.norm(one.grad.numpy().astype(np.float64)) for name, one in parameters.items()}
    for name, norm in wanted.items():
        # 1.6e-6 of a norm were measured. A batch without images has zeros for the tower.
        assert norms[name] == pytest.approx(norm, rel=1e-5, abs=0), name
        assert (norm == 0) == (case == "loss_text" and ".visual." in name), name
    assert np.linalg.norm(list(norms.values())) == pytest.approx(float(arrays[f"{case}/grad_total_norm"]), rel=1e-5)
    whole = [key for key in arrays if key.startswith(f"{case}/grad/")]
    assert len(whole) == 13
    for key in whole:
        name = key.removeprefix(f"{case}/grad/")
        gradient = as_published(fresh_model, name, parameters[name].grad)
        # 6e-6 of the largest entry were measured.
        scale = np.abs(arrays[key]).max()
        np.testing.assert_allclose(gradient, arrays[key], atol=3e-5 * scale, rtol=0, err_msg=name)


def test_five_adamw_steps_give_the_originals_losses_and_parameters(original, fresh_model):
    arrays, inputs = original.arrays, original.inputs("loss_image_batch")
    before = {key: value.numpy().copy() for key, value in fresh_model.named_parameters()}
    fresh_model.train()
    optimizer = paddle.optimizer.AdamW(
        1e-3, beta1=0.9, beta2=0.95, epsilon=1e-8, weight_decay=0.1, parameters=fresh_model.parameters()
    )
    losses = []
    for _ in range(5):
        loss = fresh_model(**inputs).loss
        loss.backward()
        optimizer.step()
        optimizer.clear_grad()
        losses.append(float(loss))
    assert losses[4] < 0.7 * losses[0]
    # 1.7e-5 apart were measured. AdamW makes whole steps of gradients that are rounding alone (the key's biases): noise
    # of 1e-7 in the pixels moves our own losses by 6e-6.
    np.testing.assert_allclose(losses, arrays["adamw/losses"], atol=5e-5, rtol=0)
    for key, name in (("final_ln_f", "transformer.ln_f.weight"), ("final_query", "transformer.visual.attn_pool.query")):
        found = dict(fresh_model.named_parameters())[name].numpy()
        assert np.abs(found - before[name]).max() > 2e-3
        # 1e-5 apart were measured; each step moves a parameter by about 1e-3.
        np.testing.assert_allclose(found, arrays[f"adamw/{key}"], atol=3e-5, rtol=0, err_msg=name)


def test_the_config_is_written_as_it_was_published(original, model):
    published = json.loads((original.folder / "config.json").read_text("utf-8"))
    written = model.config.to_published()
    shared = published.keys() & written.keys()
    assert len(shared) > 20 and {key: written[key] for key in shared} == {key: published[key] for key in shared}
    # What is left says how the original's own code computes.
    assert published.keys() - shared == {
        "bf16", "fp16", "fp32", "use_flash_attn", "use_cache", "tokenizer_type", "onnx_safe", "torch_dtype",
    }  # fmt: skip
    assert isinstance(model.transformer.visual.attn_pool.kv_proj, nn.Linear)
