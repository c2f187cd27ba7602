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
        ({"rope_scaling": {"type": "mrope"}}, "expected a `mrope_section`"),
        ({"rope_scaling": {"type": "yarn", "mrope_section": [16, 24, 24]}}, "yarn without a `factor`"),
        (
            {"rope_scaling": {"type": "yarn", "factor": 0.5, "mrope_section": [16, 24, 24]}},
            "`rope_scaling.factor` is 0.5; expected a number of at least 1",
        ),
        ({"rope_scaling": {"type": "dynamic", "factor": 4.0, "mrope_section": [16, 24, 24]}}, 'of the type "dynamic"'),
        (
            {"rope_scaling": {"type": "yarn", "rope_type": "default", "factor": 4.0, "mrope_section": [16, 24, 24]}},
            'has the `type` "yarn" and the `rope_type` "default"',
        ),
        (
            {"rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24], "mrope_interleaved": True}},
            "`rope_scaling.mrope_interleaved` is true",
        ),
        ({"rope_scaling": "yarn"}, '`rope_scaling` is "yarn"; expected an object'),
        ({"rope_parameters": {"rope_type": "linear", "rope_theta": 1e6}}, 'of the type "linear"'),
        ({"vision_config": {"hidden_size": 8}}, "`vision_config.hidden_size` 8 differs"),
    ],
)
def test_numbers_that_contradict_one_another_are_refused(values, said):
    with pytest.raises(ValueError) as caught:
        Qwen2VLConfig(**values)
    assert said in str(caught.value)


IDS = {"image_token_id": 7, "video_token_id": 8, "vision_start_token_id": 5, "vision_end_token_id": 6}


def test_a_null_says_nothing_on_either_level(nested, caplog):
    wanted = Qwen2VLConfig(**{**nested, **IDS}).to_published()
    text = {**nested["text_config"], **dict.fromkeys(IDS), "vision_token_id": None, "rope_parameters": None}
    outer = {**nested, **IDS, "hidden_size": None, "rope_scaling": None, "rope_theta": None, "vocab_size": None}
    tower = {**nested["vision_config"], "in_channels": None, "rope_parameters": None}
    assert Qwen2VLConfig(**{**outer, "text_config": text, "vision_config": tower}).to_published() == wanted
    assert not caplog.records
    # And where the top level says nothing, the nested ids are the model's.
    inside = {key: value for key, value in nested.items() if key not in IDS}
    assert Qwen2VLConfig(**{**inside, "text_config": {**nested["text_config"], **IDS}}).to_published() == wanted


def test_a_null_for_key_heads_stands_for_as_many_as_there_are_query_heads():
    assert Qwen2VLConfig(num_key_value_heads=None).num_key_value_heads == 28
    assert Qwen2VLConfig(text_config={"num_attention_heads": 28, "num_key_value_heads": None}).num_key_value_heads == 28


def test_of_two_ids_that_differ_the_top_levels_counts_and_of_other_values_the_nested_and_the_reason_is_told(caplog):
    text = {"image_token_id": 9, "vocab_size": 900}
    config = Qwen2VLConfig(image_token_id=7, vocab_size=700, text_config=text)
    assert (config.image_token_id, config.vocab_size) == (7, 900)
    said = [record.message for record in caplog.records]
    assert said == [
        "config.json: `image_token_id` is 7 at the top level and 9 in `text_config`; 7 counts: the whole model's ids "
        "stand at the top level.",
        "config.json: `vocab_size` is 700 at the top level and 900 in `text_config`; 900 counts: the language model's "
        "values stand in `text_config`.",
    ]


@pytest.mark.parametrize(
    ("outer", "inner", "tied"),
    [
        (None, None, False),
        (True, None, True),
        (None, True, True),
        (False, True, True),
        (False, None, False),
        (False, False, False),
    ],
)
def test_embeddings_are_tied_where_either_level_says_so(outer, inner, tied):
    config = Qwen2VLConfig(tie_word_embeddings=outer, text_config={"tie_word_embeddings": inner})
    assert config.tie_word_embeddings is tied


def test_levels_that_contradict_one_another_on_tied_embeddings_are_refused():
    with pytest.raises(ValueError, match="`tie_word_embeddings` is true at the top level and false in `text_config`"):
        Qwen2VLConfig(tie_word_embeddings=True, text_config={"tie_word_embeddings": False})


def test_a_text_config_that_is_no_object_is_refused():
    with pytest.raises(ValueError, match='`text_config` is "qwen2"; expected an object'):
        Qwen2VLConfig(text_config="qwen2")


def test_the_towers_numbers_are_read_under_their_later_names_and_forms():
    vision = {"num_attention_heads": 8, "num_hidden_layers": 6, "patch_size": [14, 14], "temporal_patch_size": [2]}
    vision |= {"rope_parameters": {"rope_theta": 10000.0, "rope_type": "axial"}, "in_chans": 3}
    config = Qwen2VLConfig(vision_config=vision).vision_config
    assert (config.num_heads, config.depth, config.patch_size, config.temporal_patch_size) == (8, 6, 14, 2)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"hidden_act": "gelu"}, '`hidden_act` is "gelu"; only "silu" or "swish" is built in'),
        ({"text_config": {"hidden_act": "relu"}}, '`hidden_act` is "relu"'),
        ({"vision_config": {"hidden_act": "gelu"}}, '`vision_config.hidden_act` is "gelu"; only "quick_gelu"'),
        ({"vision_config": {"in_chans": 1}}, "`vision_config.in_chans` is 1; only 3 is built in"),
        ({"vision_config": {"patch_size": [14, 16]}}, "only equal sides"),
        ({"vision_config": {"rope_parameters": {"rope_theta": 5e5}}}, "`vision_config.rope_parameters.rope_theta`"),
        ({"attention_bias": False}, "`attention_bias` is false"),
        ({"mlp_bias": True}, "`mlp_bias` is true"),
        ({"attention_dropout": 0.1}, "`attention_dropout` is 0.1"),
        ({"partial_rotary_factor": 0.5}, "`partial_rotary_factor` is 0.5"),
        ({"head_dim": 64}, "`head_dim` is 64; only 128"),
        ({"layer_types": ["full_attention", "linear_attention"]}, "`layer_types` has linear_attention"),
    ],
)
def test_what_nothing_computes_is_refused_by_name(values, said):
    with pytest.raises(ValueError) as caught:
        Qwen2VLConfig(**values)
    assert said in str(caught.value) and str(caught.value).startswith("config.json: ")


ACTING = {"use_sliding_window": True, "sliding_window": 4096, "max_window_layers": 20}


@pytest.mark.parametrize(
    "values",
    [ACTING, {**ACTING, "max_window_layers": 28, "layer_types": ["full_attention"] * 27 + ["sliding_attention"]}],
)
def test_a_window_that_would_hide_tokens_is_refused(values):
    with pytest.raises(ValueError, match="`use_sliding_window` is true, and with `sliding_window` 4096"):
        Qwen2VLConfig(**values)


@pytest.mark.parametrize(
    "change",
    [
        {"use_sliding_window": False},
        {"sliding_window": 32768},
        {"max_window_layers": 28},
        {"layer_types": ["full_attention"] * 28},
    ],
)
def test_a_window_that_hides_nothing_is_read(change):
    assert Qwen2VLConfig(**{**ACTING, **change}).num_hidden_layers == 28


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"vocab_size": "334"}, '`vocab_size` is "334"; expected a whole number'),
        ({"hidden_size": 3584.0}, "`hidden_size` is 3584.0; expected a whole number"),
        ({"num_hidden_layers": True}, "`num_hidden_layers` is true; expected a whole number"),
        ({"rms_norm_eps": "1e-6"}, '`rms_norm_eps` is "1e-6"; expected a number'),
        ({"text_config": {"intermediate_size": "64"}}, '`intermediate_size` is "64"; expected a whole number'),
        ({"vision_config": {"depth": "32"}}, '`vision_config.depth` is "32"; expected a whole number'),
        ({"vision_config": [1]}, r"`vision_config` is \[1\]; expected an object"),
    ],
)
def test_a_value_of_another_kind_is_refused_by_its_key(values, said):
    with pytest.raises(ValueError, match=f"config.json: {said}"):
        Qwen2VLConfig(**values)


@pytest.mark.parametrize(
    "values", [{"rope_scaling": {str(place): "a" * 100 for place in range(100)}}, {"hidden_act": "a" * 10_000}]
)
def test_a_refusal_quotes_no_more_of_a_value_than_is_read(values):
    with pytest.raises(ValueError, match=r"config.json: `(rope_scaling|hidden_act)` is ") as caught:
        Qwen2VLConfig(**values)
    assert len(str(caught.value)) < 300
