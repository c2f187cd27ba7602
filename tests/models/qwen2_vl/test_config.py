from __future__ import annotations

import json

import pytest

from paddlemix.models.config_file import read_config
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


def test_rope_parameters_of_newer_writers_mean_what_scaling_and_theta_mean(nested):
    wanted = Qwen2VLConfig(**nested).to_published()
    text = dict(nested["text_config"])
    parameters = {**text.pop("rope_scaling"), "rope_theta": text.pop("rope_theta")}
    newer = {**nested, "text_config": {**text, "rope_parameters": parameters}}
    assert Qwen2VLConfig(**newer).to_published() == wanted
    flat = {key: value for key, value in {**nested, **newer["text_config"]}.items() if key != "text_config"}
    assert Qwen2VLConfig(**{**flat, "model_type": "qwen2_vl"}).to_published() == wanted
    changed = {**nested, "text_config": {**text, "rope_parameters": {**parameters, "rope_theta": 5e5}}}
    assert Qwen2VLConfig(**changed).rope_theta == 5e5


def test_the_flat_config_of_the_published_2b_model_is_read_whole():
    published = {
        "architectures": ["Qwen2VLForConditionalGeneration"],
        "attention_dropout": 0.0,
        "bos_token_id": 151643,
        "eos_token_id": 151645,
        "vision_start_token_id": 151652,
        "vision_end_token_id": 151653,
        "vision_token_id": 151654,
        "image_token_id": 151655,
        "video_token_id": 151656,
        "hidden_act": "silu",
        "hidden_size": 1536,
        "initializer_range": 0.02,
        "intermediate_size": 8960,
        "max_position_embeddings": 32768,
        "max_window_layers": 28,
        "model_type": "qwen2_vl",
        "num_attention_heads": 12,
        "num_hidden_layers": 28,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0,
        "sliding_window": 32768,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "use_sliding_window": False,
        "vision_config": {
            "depth": 32,
            "embed_dim": 1280,
            "mlp_ratio": 4,
            "num_heads": 16,
            "in_chans": 3,
            "hidden_size": 1536,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "spatial_patch_size": 14,
            "temporal_patch_size": 2,
        },
        "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
        "vocab_size": 151936,
    }
    config = Qwen2VLConfig(**published)
    written = config.to_published()
    shared = set(published) & set(written) - {"vision_config"}
    assert len(shared) > 18 and {key: written[key] for key in shared} == {key: published[key] for key in shared}
    assert config.head_dim == 128 and config.vision_config.patch_values == 1176
    assert Qwen2VLConfig(**{**published, "text_config": {"hidden_size": 1536}}).to_published() == written


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
        ({"rope_scaling": {"type": "yarn", "factor": 4.0, "mrope_section": [16, 24, 24]}}, "expected the type mrope"),
        ({"rope_scaling": {"type": "mrope"}}, "expected the type mrope (or default) and a `mrope_section`"),
        ({"rope_parameters": {"rope_type": "linear", "rope_theta": 1e6}}, "'linear'"),
        ({"vision_config": {"hidden_size": 8}}, "`vision_config.hidden_size` 8 differs"),
    ],
)
def test_numbers_that_contradict_one_another_are_refused(values, said):
    with pytest.raises(ValueError) as caught:
        Qwen2VLConfig(**values)
    assert said in str(caught.value)
