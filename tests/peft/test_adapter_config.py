"""An adapter_config.json of strangers: kinds and bounds of its values, and patterns that end."""

from __future__ import annotations

import json
import time

import pytest

from paddlemix.peft.adapter_config import read_adapter_config

GOOD = {
    "peft_type": "LORA",
    "r": 8,
    "lora_alpha": 16,
    "lora_dropout": 0.1,
    "base_model_name_or_path": "owner/name",
    "rank_pattern": {"q_proj": 4, r"^model\.layers\.(0|1|2)\..*_proj": 2, r".*layers\.\d+\.mlp\.(up|down)_proj": 16},
    "alpha_pattern": {f"layers.{number}.self_attn.q_proj": 8.0 for number in range(1000)},
    "modules_to_save": ["lm_head"],
    "trainable_token_indices": [1, 2],
}
LAYERS = [f"model.layers.{number}.self_attn.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa_proj" for number in range(200)]


@pytest.fixture
def read(tmp_path):
    def read_with(**changes):
        (tmp_path / "adapter_config.json").write_text(json.dumps({**GOOD, **changes}))
        return read_adapter_config(tmp_path)

    return read_with


def test_an_ordinary_config_is_read_with_its_patterns(read):
    config = read()
    assert (config.rank, config.alpha, config.dropout, config.base) == (8, 16, 0.1, "owner/name")
    assert config.product_of("model.layers.1.self_attn.q_proj") == (4, 8)
    assert config.product_of("model.layers.1.self_attn.k_proj") == (2, 16)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("r", ["8", 0, -1, 2**20 + 1, 10**400, 8.0, True, [8], {}]),
        ("lora_alpha", ["8", 0, 1e10, 10**400, True, [8]]),
        ("lora_dropout", ["0", 1.5, -1, True, [0.1]]),
        ("use_rslora", ["yes", 1, [True]]),
        ("use_dora", ["yes", 1, {}]),
        ("bias", ["some", ["none"], {"a": 1}, 5]),
        ("base_model_name_or_path", [5, ["a"], "a\0b", {"a": 1}]),
        ("modules_to_save", [[1], [""], {"a": 1}, 5]),
        ("trainable_token_indices", ["1", [-1], [2**31], [1.5], {"a": 5}, [[1]], 7]),
        ("rank_pattern", [["q_proj"], "q_proj", 5, {"q_proj": [4]}, {"q_proj": 10**10}, {"q_proj": 1.5}]),
        ("alpha_pattern", [["q_proj"], {"q_proj": "4"}, {"q_proj": 10**400}, {str(one): 1 for one in range(10_001)}]),
        ("peft_type", ["IA3", 5, ["LORA"]]),
        ("init_lora_weights", ["pissa", [1], 10**400]),
    ],
)
def test_every_value_of_another_kind_is_refused_by_its_key(read, tmp_path, name, wrong):
    for value in wrong:
        with pytest.raises(ValueError, match=r"adapter_config\.json: ") as caught:
            read(**{name: value})
        said = str(caught.value)
        assert (said.startswith(f"{tmp_path / 'adapter_config.json'}: ") and f"`{name}`" in said) or "`q_proj`" in said
        assert "\n" not in said and len(said) < 600


@pytest.mark.parametrize(
    "patterns",
    [
        ["(a*)*b"],
        ["(a|a)+b"],
        [r"(a)\1b"],
        ["(.|.)" * 40 + "b"],
        [".?" * 100 + "b"],
        ["a*" * 30 + "b"],
        [f"a*a*a*{number}" for number in range(9999)],
        [f".*{number}.*" for number in range(5000)],
        ["a" * 100_000],
        ["("],
        ["(?P<a>x)(?P=a)"],
        ["a{99999999999999999999}"],
    ],
    ids=lambda patterns: patterns[0][:20],
)
@pytest.mark.parametrize("name", ["rank_pattern", "alpha_pattern"])
def test_patterns_that_may_take_any_time_are_refused(read, name, patterns):
    began = time.thread_time()
    with pytest.raises(ValueError, match=rf"adapter_config\.json: `{name}`: ") as caught:
        read(**{name: dict.fromkeys(patterns, 4)})
    assert time.thread_time() - began < 1 and len(str(caught.value)) < 600


@pytest.mark.parametrize(
    "patterns", [["a*a*a*b"], [f"a*{number}.*x" for number in range(70)], [f"a*{number}" for number in range(2000)]]
)
def test_the_slowest_patterns_that_are_read_take_seconds_at_most(read, patterns):
    config = read(alpha_pattern=dict.fromkeys(patterns, 4.0))
    began = time.thread_time()
    assert {config.product_of(layer).alpha for layer in LAYERS} == {16}
    assert time.thread_time() - began < 10
