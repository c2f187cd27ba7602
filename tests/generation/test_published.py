"""Reading generation_config.json."""

from __future__ import annotations

import json
import logging

import pytest

from paddlemix.generation import GenerationConfig

# What the files beside Qwen2-VL's weights hold.
INSTRUCT = {
    "bos_token_id": 151643,
    "pad_token_id": 151643,
    "do_sample": True,
    "eos_token_id": [151645, 151643],
    "repetition_penalty": 1.05,
    "temperature": 0.01,
    "top_p": 0.001,
    "top_k": 1,
    "transformers_version": "4.37.0",
}
BASE = {"bos_token_id": 151643, "do_sample": False, "eos_token_id": 151643, "max_new_tokens": 2048}


@pytest.fixture
def read(tmp_path):
    """Read `values` as a checkpoint's file, with overrides."""

    def from_values(values, **overrides):
        text = values if isinstance(values, str) else json.dumps(values)
        (tmp_path / "generation_config.json").write_text(text, "utf-8")
        return GenerationConfig.from_pretrained(tmp_path, **overrides)

    return from_values


def test_the_instruct_models_settings_are_taken_over(read, caplog):
    wanted = GenerationConfig(
        temperature=0.01, top_k=1, top_p=0.001, repetition_penalty=1.05, eos_token_ids=[151645, 151643]
    )
    assert read(INSTRUCT) == wanted
    assert not caplog.records


def test_the_base_models_settings_are_taken_over(read, caplog):
    assert read(BASE) == GenerationConfig(max_new_tokens=2048, eos_token_ids=[151643])
    assert not caplog.records


def test_without_a_file_the_defaults_hold(tmp_path):
    assert GenerationConfig.from_pretrained(tmp_path, top_k=3) == GenerationConfig(top_k=3)


def test_a_folder_that_is_not_there_is_no_checkpoint_without_a_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="away is no local folder"):
        GenerationConfig.from_pretrained(tmp_path / "away")


def test_what_is_given_wins_over_the_file_and_none_is_not_given(read):
    config = read(INSTRUCT, temperature=0.0, max_new_tokens=None, seed=5, top_p=None)
    assert (config.temperature, config.max_new_tokens, config.seed, config.top_p) == (0, 512, 5, 0.001)


@pytest.mark.parametrize("values", [{}, {"do_sample": False}, {"do_sample": None}])
def test_a_file_that_does_not_ask_for_sampling_is_greedy_unless_a_temperature_is_given(read, values):
    values = {**values, "temperature": 0.7, "top_k": 20}
    assert read(values) == GenerationConfig(top_k=20)
    assert read(values, temperature=0.5) == GenerationConfig(temperature=0.5, top_k=20)


def test_a_file_that_asks_for_sampling_and_no_more_means_what_it_means_to_the_reference(read):
    assert read({"do_sample": True}) == GenerationConfig(temperature=1.0, top_k=50)
    assert read({"do_sample": True, "top_k": None, "top_p": None}) == GenerationConfig(temperature=1.0)


def test_stop_strings_and_lengths_are_taken_over(read):
    assert read({"stop_strings": "\n", "min_new_tokens": 2}).stop_strings == ("\n",)
    assert read({"stop_strings": ["a", "b"]}).stop_strings == ("a", "b")
    assert read({"min_new_tokens": 2}).min_new_tokens == 2


def test_values_that_ask_for_nothing_and_settings_without_effect_are_left_aside_quietly(read, caplog):
    quiet = {"num_beams": 1, "typical_p": 1.0, "min_p": None, "no_repeat_ngram_size": 0, "bad_words_ids": None}
    quiet |= {"use_cache": True, "max_length": 20, "cache_implementation": "static"}
    assert read(quiet) == GenerationConfig()
    assert not caplog.records


def test_what_the_file_of_qwen_vl_chat_holds_is_taken_over_quietly(read, caplog):
    values = {"chat_format": "chatml", "do_sample": True, "eos_token_id": 151643, "max_new_tokens": 512}
    values |= {"max_window_size": 6144, "pad_token_id": 151643, "top_k": 0, "top_p": 0.3}
    wanted = GenerationConfig(temperature=1.0, top_p=0.3, eos_token_ids=[151643])
    assert read({**values, "transformers_version": "4.31.0"}) == wanted
    assert not caplog.records


def test_beams_and_stop_words_are_taken_over(read):
    values = {"num_beams": 4, "length_penalty": 0.6, "early_stopping": "never", "stop_words_ids": [[5, 6], [7]]}
    assert read(values) == GenerationConfig(**values)
    assert GenerationConfig(**values).stop_words_ids == ((5, 6), (7,))


def test_unknown_keys_are_left_aside_with_a_warning_that_names_them(read, caplog):
    with caplog.at_level(logging.WARNING):
        assert read({"top_kk": 3, "chat_formatt": "chatml"}) == GenerationConfig()
    [record] = caplog.records
    assert record.getMessage().endswith(
        "generation_config.json: unknown keys, which change nothing: chat_formatt, top_kk"
    )


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"num_beam_groups": 4}, "`num_beam_groups` is 4, which is not done here; set it to 1 or remove it."),
        ({"num_beams": 0}, "`num_beams` is 0; expected a whole number, at least 1 and at most 1024."),
        ({"early_stopping": "soon"}, "`early_stopping` is 'soon'; expected true, false or \"never\"."),
        (
            {"stop_words_ids": [5]},
            "`stop_words_ids` is [5]; expected a list of lists of token ids, none empty, at most 1000 of at most 1000.",
        ),
        (
            {"num_beams": 2, "do_sample": True},
            "`num_beams` is 2 and `temperature` 1.0; beams are not drawn: set the temperature to 0 (`do_sample` to "
            "false), or `num_beams` to 1.",
        ),
        ({"min_p": 0.1}, "`min_p` is 0.1, which is not done here; set it to 0 or remove it."),
        ({"max_time": 3.5}, "`max_time` is 3.5, which is not done here; set it to null or remove it."),
        ({"token_healing": True}, "`token_healing` is true, which is not done here; set it to false or remove it."),
        ({"top_p": 1.5}, "`top_p` is 1.5; expected a number above 0 and at most 1."),
        ({"eos_token_id": "x"}, "`eos_token_ids` is ['x']; expected a list of token ids."),
        ({"do_sample": "true"}, '`do_sample` is "true"; expected true or false.'),
        ([1], "a JSON object was expected, not a list."),
        ("{", "1: not valid JSON: Expecting property name enclosed in double quotes."),
    ],
)
def test_what_cannot_be_honoured_is_refused_in_a_sentence_that_names_the_file(read, tmp_path, values, said):
    with pytest.raises(ValueError) as caught:
        read(values)
    assert str(caught.value).replace(".json:1: ", ".json: 1: ") == f"{tmp_path / 'generation_config.json'}: {said}"


def test_an_override_that_is_no_setting_is_an_error_of_the_caller(read):
    with pytest.raises(TypeError, match="num_return_sequences"):
        read({}, num_return_sequences=1)
