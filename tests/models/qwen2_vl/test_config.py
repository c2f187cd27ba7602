from __future__ import annotations

import json

import pytest

from paddlemix.models.base import read_config
from paddlemix.models.qwen2_vl import Qwen2VLConfig


@pytest.fixture
def nested(reference):
    values = read_config(reference.folder)
    assert "text_config" in values and "hidden_size" not in values
    return values


def test_the_nested_config_of_later_writers_means_what_the_flat_one_means(nested):
    text = nested.pop("text_config")
    flat = Qwen2VLConfig(**{**nested, **text, "model_type": "qwen2_vl"})
    assert Qwen2VLConfig(**nested, text_config=text).to_published() == flat.to_published()


@pytest.mark.parametrize(
    "key", ["hidden_size", "num_key_value_heads", "rope_scaling", "tie_word_embeddings", "pad_token_id", "vocab_size"]
)
def test_every_nested_value_arrives(nested, key):
    # Later writers leave out what is their default: False for tied embeddings.
    assert getattr(Qwen2VLConfig(**nested), key) == nested["text_config"].get(key, False)


def test_what_is_written_reads_back_as_the_same_config(nested):
    written = Qwen2VLConfig(**nested).to_published()
    assert "text_config" not in written and written["architectures"] == ["Qwen2VLForConditionalGeneration"]
    assert Qwen2VLConfig(**json.loads(json.dumps(written))).to_published() == written


def test_a_config_can_be_printed_and_logged(nested):
    config = Qwen2VLConfig(**nested)
    assert json.loads(config.to_json_string())["vision_config"]["depth"] == 2
    assert "vision_config" in repr(config)


def test_the_vision_tower_ends_at_the_language_models_width_where_nothing_else_is_said():
    assert (
        Qwen2VLConfig(hidden_size=1536, num_attention_heads=12, num_key_value_heads=2).vision_config.hidden_size == 1536
    )


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"num_attention_heads": 27}, "`num_attention_heads` 27"),
        ({"num_key_value_heads": 3}, "`num_key_value_heads` 3"),
        (
            {"rope_scaling": {"type": "mrope", "mrope_section": [16, 16, 16]}},
            "adds up to 48; half of a head's width is 64",
        ),
        ({"vision_config": {"hidden_size": 8}}, "`vision_config.hidden_size` 8 differs"),
    ],
)
def test_numbers_that_contradict_one_another_are_refused(values, said):
    with pytest.raises(ValueError) as caught:
        Qwen2VLConfig(**values)
    assert said in str(caught.value)
