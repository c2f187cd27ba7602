"""`model.generate`, called as the field calls it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import paddle
import pytest

from paddlemix.generation import GenerationConfig, TextStreamer
from paddlemix.models.qwen2_vl import Qwen2VLForConditionalGeneration

TINY = Path(__file__).parents[1] / "fixtures" / "qwen2_vl_tiny"
INPUTS = ["input_ids", "attention_mask", "pixel_values", "image_grid_thw", "pixel_values_videos", "video_grid_thw"]
PAD = 0  # of the fixture's config.json


@pytest.fixture(scope="module", params=["tied", "untied"])
def case(request):
    """A model, a batch padded on the left, and the tokens that the reference implementation gave for it."""
    folder = TINY / request.param
    with np.load(folder / "reference.npz") as stored:
        batch = {key: paddle.to_tensor(stored[f"mixed_left/{key}"]) for key in INPUTS}
        return Qwen2VLForConditionalGeneration.from_pretrained(folder), batch, stored["greedy/tokens"]


@pytest.fixture
def publish(case, monkeypatch):
    """Lets the model have come with a generation_config.json of these values."""
    return lambda **values: monkeypatch.setitem(
        case[0].carried_files, "generation_config.json", json.dumps(values).encode()
    )


def new_tokens(ids, batch):
    return ids[:, batch["input_ids"].shape[1] :].numpy()


def ended(tokens, end, filler):
    """The tokens up to and with each row's first end token, filled up to the longest row."""
    rows = [row[: row.index(end) + 1] if end in row else row for row in tokens.tolist()]
    length = max(map(len, rows))
    assert min(map(len, rows)) < length
    return [row + [filler] * (length - len(row)) for row in rows]


def test_greedy_ids_are_the_prompts_and_the_references_tokens(case):
    model, batch, tokens = case
    ids = model.generate(**batch, max_new_tokens=12)
    assert isinstance(ids, paddle.Tensor) and ids.dtype == paddle.int64
    wanted = np.concatenate([batch["input_ids"].numpy(), tokens], axis=1)
    assert wanted.shape[0] == 3 and min(len(set(row)) for row in tokens.tolist()) >= 6
    np.testing.assert_array_equal(ids.numpy(), wanted)


def test_arrays_are_taken_as_tensors_are(case):
    model, batch, tokens = case
    arrays = {name: tensor.numpy() for name, tensor in batch.items()}
    np.testing.assert_array_equal(new_tokens(model.generate(**arrays, max_new_tokens=12), batch), tokens)


def test_a_row_that_ends_keeps_its_end_token_and_is_filled_with_padding(case):
    model, batch, tokens = case
    end = int(tokens[1, 2])
    wanted = ended(tokens, end, PAD)
    assert new_tokens(model.generate(**batch, max_new_tokens=12, eos_token_id=end), batch).tolist() == wanted
    assert new_tokens(model.generate(**batch, max_new_tokens=12, eos_token_ids=[end]), batch).tolist() == wanted
    other = model.generate(**batch, max_new_tokens=12, eos_token_id=[end], pad_token_id=7)
    assert new_tokens(other, batch).tolist() == ended(tokens, end, 7) != wanted


def test_the_batch_is_as_long_as_its_longest_answer(case):
    model, batch, tokens = case
    ends = sorted({int(row[1]) for row in tokens})
    new = new_tokens(model.generate(**batch, max_new_tokens=12, eos_token_id=ends), batch)
    assert new.shape[1] <= 2 and all(set(row.tolist()) & set(ends) for row in new)


def test_the_checkpoints_file_names_ends_padding_and_length(case, publish):
    model, batch, tokens = case
    end = int(tokens[1, 2])
    publish(eos_token_id=[end], pad_token_id=9, max_new_tokens=11)
    assert new_tokens(model.generate(**batch), batch).tolist() == ended(tokens[:, :11], end, 9)


def test_the_configs_end_token_counts_where_the_file_names_none(case, monkeypatch):
    model, batch, tokens = case
    end = int(tokens[1, 2])
    monkeypatch.setattr(model.config, "eos_token_id", end)
    assert new_tokens(model.generate(**batch, max_new_tokens=12), batch).tolist() == ended(tokens, end, PAD)


def test_a_file_that_samples_draws_unless_do_sample_is_false(case, publish):
    model, batch, tokens = case
    publish(do_sample=True, temperature=3.0, top_k=0, max_new_tokens=12)
    drawn = new_tokens(model.generate(**batch), batch)
    assert (drawn != tokens).any()
    np.testing.assert_array_equal(new_tokens(model.generate(**batch, seed=1234), batch), drawn)
    assert (new_tokens(model.generate(**batch, seed=5), batch) != drawn).any()
    for greedy in ({"do_sample": False}, {"do_sample": False, "temperature": 2.0}, {"temperature": 0}, {"top_k": 1}):
        np.testing.assert_array_equal(new_tokens(model.generate(**batch, **greedy), batch), tokens)


def test_do_sample_alone_draws_at_temperature_1_among_50(case):
    model, batch, tokens = case
    drawn, spelled_out = (
        new_tokens(model.generate(**batch, max_new_tokens=12, **settings), batch)
        for settings in ({"do_sample": True}, {"temperature": 1.0, "top_k": 50})
    )
    np.testing.assert_array_equal(drawn, spelled_out)
    assert (drawn != tokens).any()


def test_a_given_config_replaces_the_file_and_single_settings_win_over_it(case, publish):
    model, batch, tokens = case
    publish(do_sample=True, temperature=3.0, max_new_tokens=3)
    config = GenerationConfig(max_new_tokens=12)
    np.testing.assert_array_equal(new_tokens(model.generate(**batch, generation_config=config), batch), tokens)
    cut = model.generate(**batch, generation_config=config, max_new_tokens=4)
    np.testing.assert_array_equal(new_tokens(cut, batch), tokens[:, :4])


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"num_return_sequences": 4}, ValueError, "`num_return_sequences` is 4, which is not done here"),
        ({"num_beams": 4, "temperature": 0.5}, ValueError, "beams are not drawn"),
        ({"max_new_token": 4}, TypeError, "max_new_token;.*max_new_tokens"),
        ({"max_new_tokens": 0}, ValueError, "`max_new_tokens` is 0"),
        ({"do_sample": True, "temperature": 0}, ValueError, "`temperature` is 0, which draws nothing"),
        ({"stop_strings": ["."]}, ValueError, "sees tokens only"),
        ({"max_length": 40}, ValueError, "`max_length` is 40, which would count the prompt.*set `max_new_tokens`"),
        ({"min_p": 0.1}, ValueError, "`min_p` is 0.1, which is not done here; leave it out"),
        ({"return_dict_in_generate": True}, ValueError, "`return_dict_in_generate` is true, which is not done here"),
        ({"streamer": object()}, TypeError, "`streamer` is <object .*expected an object with `put"),
        ({"streamer": TextStreamer}, TypeError, "`streamer` is <class .*expected an object with `put"),
        ({"generation_config": {"top_k": 1}}, TypeError, "`generation_config` is .*expected a GenerationConfig"),
        ({"logits_processor": [print]}, ValueError, "`logits_processor` is .*, which is not done here"),
    ],
)
def test_what_is_not_done_is_refused_by_name(case, settings, error, message):
    model, batch, _ = case
    with pytest.raises(error, match=message):
        model.generate(**batch, **settings)


def test_settings_of_transformers_that_change_nothing_are_taken(case):
    model, batch, tokens = case
    names = {"use_cache": True, "num_return_sequences": 1, "min_p": None, "max_length": None, "output_scores": False}
    names |= {"logits_processor": None, "stopping_criteria": [], "synced_gpus": False, "bos_token_id": 1}
    names |= {"streamer": None, "tokenizer": None, "stop_strings": None, "top_p": None}
    np.testing.assert_array_equal(new_tokens(model.generate(**batch, max_new_tokens=12, **names), batch), tokens)


def test_a_config_of_transformers_is_taken(case, publish):
    model, batch, tokens = case
    publish(do_sample=True, temperature=3.0, max_new_tokens=3)
    # The kinds of values that the one of transformers 4.57 has.
    values = {"max_length": 20, "max_new_tokens": 12, "do_sample": False, "num_beams": 1, "temperature": 1.0}
    values |= {"top_k": 50, "stop_strings": None, "output_scores": False, "typical_p": 1.0, "eos_token_id": None}
    config = SimpleNamespace(to_dict=lambda: values)
    np.testing.assert_array_equal(new_tokens(model.generate(**batch, generation_config=config), batch), tokens)


def test_the_files_ends_count_beside_a_given_config_that_names_none(case, publish):
    model, batch, tokens = case
    end = int(tokens[1, 2])
    publish(eos_token_id=[end], pad_token_id=9)
    ids = model.generate(**batch, generation_config=GenerationConfig(max_new_tokens=12))
    assert new_tokens(ids, batch).tolist() == ended(tokens, end, 9)


def test_a_batch_padded_on_the_right_is_refused(case):
    model, batch, _ = case
    with pytest.raises(ValueError, match="pad on the left"):
        model.generate(**{**batch, "attention_mask": batch["attention_mask"].flip(1)})
