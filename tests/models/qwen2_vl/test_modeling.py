from __future__ import annotations

import numpy as np
import paddle
import pytest

from paddlemix.generation.cache import KVCache
from paddlemix.models.config_file import read_config
from paddlemix.models.qwen2_vl import Qwen2VLConfig, Qwen2VLForConditionalGeneration


def losses_of_training(model, inputs, steps=4):
    model.train()
    optimizer = paddle.optimizer.AdamW(3e-3, parameters=model.parameters())
    losses = []
    for _ in range(steps):
        loss = model(**inputs).loss
        loss.backward()
        optimizer.step()
        optimizer.clear_grad()
        losses.append(float(loss))
    return losses


@pytest.mark.parametrize("batch", ["text_right", "mixed_right", "video"])
def test_training_lowers_the_loss_of_batches_with_and_without_images(reference, fresh_model, batch):
    before = fresh_model.visual.patch_embed.proj.weight.numpy().copy()
    losses = losses_of_training(fresh_model, reference.inputs(batch))
    assert losses == sorted(losses, reverse=True) and losses[-1] < 0.9 * losses[0]
    has_vision = batch != "text_right"
    assert (np.abs(fresh_model.visual.patch_embed.proj.weight.numpy() - before).max() > 1e-4) == has_vision


def test_in_training_the_loss_is_the_same_and_no_logits_are_kept(reference, fresh_model):
    inputs = reference.inputs("mixed_right")
    evaluated = float(fresh_model(**inputs).loss)
    fresh_model.train()
    output = fresh_model(**inputs)
    assert output.logits is None and float(output.loss) == evaluated


def test_a_batch_without_targets_has_no_loss_and_gradients_of_zero(reference, fresh_model):
    inputs = reference.inputs("mixed_right")
    loss = fresh_model(**{**inputs, "labels": paddle.full_like(inputs["labels"], -100)}).loss
    loss.backward()
    assert float(loss) == 0
    gradients = [parameter.grad for parameter in fresh_model.parameters() if parameter.grad is not None]
    assert gradients and all(float(gradient.abs().max()) == 0 for gradient in gradients)


def test_a_batch_without_targets_can_be_met_while_the_head_alone_is_trained(reference, fresh_model):
    head = "model.embed_tokens.weight" if fresh_model.config.tie_word_embeddings else "lm_head.weight"
    for name, parameter in fresh_model.named_parameters():
        parameter.stop_gradient = name != head
    inputs = reference.inputs("text")
    fresh_model(**{**inputs, "labels": paddle.full_like(inputs["labels"], -100)}).loss.backward()
    assert float(dict(fresh_model.named_parameters())[head].grad.abs().max()) == 0


@pytest.mark.parametrize("batch", ["text_right", "one_picture", "video", "mixed_right"])
@pytest.mark.parametrize("trains", [False, True])
def test_the_tower_runs_once_for_a_loss_whatever_the_batch_shows(reference, fresh_model, batch, trains):
    calls = []
    fresh_model.visual.register_forward_pre_hook(lambda layer, inputs: calls.append(layer))
    fresh_model.train() if trains else fresh_model.eval()
    inputs = reference.inputs(batch)
    shown = {"pixel_values", "pixel_values_videos"} & set(inputs)
    assert len(shown) == {"text_right": 0, "mixed_right": 2}.get(batch, 1)
    fresh_model(**inputs)
    assert len(calls) == 1
    fresh_model.eval()
    del inputs["labels"]
    fresh_model(**inputs)
    assert len(calls) == 1 + bool(shown)


def test_right_padding_needs_no_mask_when_the_positions_are_given(reference, model):
    inputs = reference.inputs("mixed_right")
    positions = paddle.to_tensor(reference.arrays["mixed_right/position_ids"])
    del inputs["attention_mask"]
    with paddle.no_grad():
        output = model(**inputs, position_ids=positions)
    is_token = reference.is_token("mixed_right")
    np.testing.assert_allclose(
        output.logits.numpy()[is_token], reference.arrays["mixed_right/logits"][is_token], atol=5e-5, rtol=0
    )
    np.testing.assert_allclose(float(output.loss), reference.arrays["mixed_right/loss"], rtol=1e-5)


def test_the_last_logits_are_those_of_the_last_place(reference, model):
    inputs = reference.inputs("mixed_left")
    with paddle.no_grad():
        logits = model(**inputs, last_logits_only=True).logits.numpy()
    assert logits.shape[1] == 1
    np.testing.assert_allclose(logits[:, 0], reference.arrays["mixed_left/logits"][:, -1], atol=5e-5, rtol=0)


def test_a_cache_filled_in_two_goes_gives_the_logits_of_one(reference, model):
    inputs = reference.inputs("text_left")
    length = inputs["input_ids"].shape[1]
    caches = [KVCache(length) for _ in range(model.config.num_hidden_layers)]
    with paddle.no_grad():
        first = model(inputs["input_ids"][:, :6], inputs["attention_mask"][:, :6], past_key_values=caches)
        second = model(
            inputs["input_ids"][:, 6:],
            inputs["attention_mask"],
            past_key_values=caches,
            rope_deltas=first.rope_deltas,
        )
    wanted = reference.arrays["text_left/logits"][:, 6:]
    np.testing.assert_allclose(second.logits.numpy(), wanted, atol=5e-5, rtol=0)


def test_decoding_without_the_deltas_of_the_prefill_is_refused(reference, model):
    inputs = reference.inputs("text")
    caches = [KVCache(20) for _ in range(model.config.num_hidden_layers)]
    model(inputs["input_ids"], past_key_values=caches)
    with pytest.raises(ValueError, match="`rope_deltas` of the prefill must be given"):
        model(inputs["input_ids"][:, :1], past_key_values=caches)


def test_embeddings_without_positions_are_refused(model):
    with pytest.raises(ValueError, match="`position_ids` must be given with `inputs_embeds`"):
        model(inputs_embeds=paddle.zeros([1, 2, model.config.hidden_size]))


@pytest.mark.parametrize("given_positions", [False, True])
def test_a_wrong_number_of_vision_tokens_is_refused_with_both_counts(reference, model, given_positions):
    inputs = reference.inputs("one_picture")
    ids = inputs["input_ids"].clone()
    place = int((ids[0] == model.config.image_token_id).numpy().argmax())
    ids[0, place] = 1
    positions = {"position_ids": paddle.to_tensor(reference.arrays["one_picture/position_ids"])}
    with pytest.raises(ValueError, match=r"5 vision tokens stand in the sequence.* make 6"):
        model(**{**inputs, "input_ids": ids}, **(positions if given_positions else {}))


def test_a_new_model_starts_from_the_configs_range_with_zero_biases_and_norms_of_one(reference):
    paddle.seed(0)
    values = {**read_config(reference.folder), "initializer_range": 0.5}
    values["text_config"] = {**values["text_config"], "initializer_range": 0.5}
    built = Qwen2VLForConditionalGeneration(Qwen2VLConfig(**values))
    for name, parameter in built.named_parameters():
        array = parameter.numpy()
        if array.ndim == 2:
            assert 0.4 < array.std() < 0.6, name
        else:
            assert (array == float(name.endswith("weight"))).all(), name
