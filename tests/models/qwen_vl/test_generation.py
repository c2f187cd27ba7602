"""Answers of Qwen-VL against those of the original code."""

from __future__ import annotations

import json

import numpy as np
import paddle
import pytest

from paddlemix.generation import GenerationConfig, TokenStream
from paddlemix.generation.reading import CachedReader

GREEDY = ["gen_text", "gen_image", "gen_image_batch", "gen_leftpad"]
STOPPED = {"gen_stop": "gen_stop_words_ids", "gen_stop_single": "gen_stop_single_words_ids"}
LONG = ["gen_long60", "gen_cross20", "gen_long_image"]
# Logits reach 9; 3e-5 apart were measured, of which each step adds some.
LOGITS_TOLERANCE = 1e-4


def generated(model, original, case, **settings):
    """Prompts and answers, and what they must be."""
    inputs = original.inputs(case)
    found = model.generate(inputs.pop("input_ids"), **inputs, do_sample=False, **settings)
    return found.numpy(), original.arrays[f"{case}/sequences"]


def test_every_stored_answer_is_compared(original):
    stored = {key.removesuffix("/sequences") for key in original.arrays if key.endswith("/sequences")}
    assert stored == {*GREEDY, *STOPPED, *LONG, "gen_beam3"}


@pytest.mark.parametrize("case", [*GREEDY, *LONG])
def test_greedy_answers_are_the_originals(original, model, short_model, case):
    found, wanted = generated(short_model if case in LONG else model, original, case)
    answers = wanted[:, original.arrays[f"{case}/input_ids"].shape[1] :]
    assert answers.shape[1] == 12 and min(len(set(answer)) for answer in answers.tolist()) >= 5
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("case", [*GREEDY, *LONG])
def test_each_step_with_the_cache_gives_the_originals_logits(original, model, short_model, case):
    arrays, inputs = original.arrays, original.inputs(case)
    wanted, length = arrays[f"{case}/scores"], inputs["input_ids"].shape[1]
    batch = {key: value.numpy() for key, value in inputs.items()}
    reader = CachedReader(short_model if case in LONG else model, batch, 12)
    logits = reader.read_prompts().numpy()
    for step in range(12):
        np.testing.assert_allclose(logits, wanted[:, step], atol=LOGITS_TOLERANCE, rtol=0, err_msg=f"step {step}")
        logits = reader.read(arrays[f"{case}/sequences"][:, length + step]).numpy()


def test_the_rotary_base_stays_the_prompts_while_an_answer_outgrows_the_trained_length(original, short_model):
    # Of 20 tokens and 12 more; the trained length is 24.
    sequence = original.arrays["gen_cross20/sequences"]
    last = original.arrays["gen_cross20/scores"][:, -1]
    with paddle.no_grad():
        anew = short_model(paddle.to_tensor(sequence[:, :-1])).logits[:, -1].numpy()
    assert sequence.shape[1] == 32 and np.abs(anew - last).max() > 0.1


@pytest.mark.parametrize("case", STOPPED)
def test_stop_words_end_an_answer_as_the_originals_do(original, model, case):
    words = original.manifest[STOPPED[case]]
    found, wanted = generated(model, original, case, stop_words_ids=words)
    plain, _ = generated(model, original, "gen_text" if case == "gen_stop" else "gen_image")
    [ending] = [word for word in words if wanted[0, -1 - len(word) : -1].tolist() == word]
    assert wanted[0, -1] == 384 and (plain[0, : wanted.shape[1] - 1] == wanted[0, :-1]).all() and ending
    np.testing.assert_array_equal(found, wanted)


def test_beams_give_the_originals_answers(original, model):
    found, wanted = generated(model, original, "gen_beam3", num_beams=3)
    greedy, _ = generated(model, original, "gen_beam3")
    assert not np.array_equal(wanted, greedy)
    np.testing.assert_array_equal(found, wanted)


def test_a_batch_padded_on_the_left_gives_what_its_rows_give_alone(original, model):
    inputs = original.inputs("gen_leftpad")
    ids, mask = inputs["input_ids"].numpy(), inputs["attention_mask"].numpy() == 1
    assert not mask.all()
    together = original.arrays["gen_leftpad/sequences"][:, ids.shape[1] :]
    for row in range(2):
        alone = paddle.to_tensor(ids[row][mask[row]][None])
        found = model.generate(alone, do_sample=False).numpy()[:, alone.shape[1] :]
        np.testing.assert_array_equal(found, together[row : row + 1])


def test_beams_of_images_are_those_of_a_batch_and_of_its_rows(original, model):
    inputs = original.inputs("gen_image_batch")
    pixels = inputs.pop("pixel_values")
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    together = model.generate(ids, attention_mask=mask, pixel_values=pixels, num_beams=3, do_sample=False).numpy()
    for row in range(2):
        is_token = mask.numpy()[row] == 1
        alone = paddle.to_tensor(ids.numpy()[row][is_token][None])
        found = model.generate(alone, pixel_values=pixels[row : row + 1], num_beams=3, do_sample=False).numpy()
        answer = together[row, ids.shape[1] :]
        np.testing.assert_array_equal(found[0, alone.shape[1] :], answer)
    assert not np.array_equal(together, original.arrays["gen_image_batch/sequences"])


def test_the_checkpoints_generation_file_is_read_without_noise(original, caplog):
    values = json.loads((original.folder / "generation_config.json").read_text("utf-8"))
    assert {"chat_format", "max_window_size"} <= values.keys()
    config = GenerationConfig.from_pretrained(original.folder)
    assert config == GenerationConfig(max_new_tokens=12, eos_token_ids=[384])
    assert not caplog.records


def test_an_answer_that_spells_an_image_is_text(original, model):
    inputs = original.inputs("gen_text")
    batch = {key: value.numpy() for key, value in inputs.items()}
    reader = CachedReader(model, batch, 3)
    reader.read_prompts()
    start = original.manifest["special"]["img"]
    for token in (start, 5, start + 1):
        assert np.isfinite(reader.read(np.array([token])).numpy()).all()


def test_tokens_come_one_by_one(original, model):
    inputs = original.inputs("gen_image")
    batch = {key: value.numpy() for key, value in inputs.items()}
    stream = TokenStream(model, batch, GenerationConfig(max_new_tokens=12), end_token_ids=[384])
    wanted = original.arrays["gen_image/sequences"][0, batch["input_ids"].shape[1] :].tolist()
    assert [token for _, token in stream] == wanted
