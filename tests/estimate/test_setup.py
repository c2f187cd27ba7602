"""What a config says about memory beside the model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from paddlemix.configuration.arguments import FinetuneConfig
from paddlemix.configuration.file import load_config
from paddlemix.configuration.rules import weights_dtype
from paddlemix.estimate.setup import Batch, Cards, Precision, Setup


@pytest.fixture
def config(tmp_path: Path) -> Any:
    def load(**keys: Any) -> FinetuneConfig:
        values = {
            "model_name_or_path": "Qwen/Qwen2-VL-2B",
            "output_dir": "out",
            "do_train": True,
            "dataset": {"train": [{"name": "chatml_dataset", "data_files": "a.json"}]},
            **{name: value for name, value in keys.items() if name not in CUTS},
        }
        (tmp_path / "config.json").write_text(json.dumps(values))
        loaded = load_config(str(tmp_path / "config.json"), has_gpu=True)
        # How a run may be cut is the business of the config's rules.
        cuts = {name: value for name, value in keys.items() if name in CUTS}
        return replace(loaded, training={**loaded.training, **cuts})

    return load


CUTS = ("sharding", "sharding_parallel_degree", "tensor_parallel_degree", "pipeline_parallel_degree")


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, Precision(4, 4, 8, 4, 4, score=4)),
        ({"bf16": True}, Precision(4, 4, 8, 2, 4)),
        ({"bf16": True, "fp16_opt_level": "O2"}, Precision(2, 2, 12, 2, 2)),
        ({"bf16": True, "fp16_opt_level": "O2", "amp_master_grad": True}, Precision(2, 4, 12, 2, 2)),
        ({"fp16": True}, Precision(4, 4, 8, 2, 4)),
        ({"bf16": True, "fp16_opt_level": "O2", "gradient_accumulation_steps": 2}, Precision(2, 4, 12, 2, 2)),
        ({"fp16": True, "fp16_opt_level": "O2"}, Precision(2, 4, 12, 2, 2)),
        ({"dtype": "bfloat16"}, Precision(2, 2, 12, 2, 2)),
        ({"dtype": "bfloat16", "bf16": True, "gradient_accumulation_steps": 2}, Precision(2, 4, 12, 2, 2)),
        ({"optim": "adamw_16bit_moment"}, Precision(4, 4, 4, 4, 4, score=4)),
        ({"optim": "adamw_mini"}, Precision(4, 4, 4, 4, 4, score=4)),
    ],
)
def test_bytes_of_a_number_follow_from_precision_and_optimizer(
    config: Any, keys: dict[str, Any], expected: Precision
) -> None:
    assert Precision.of(config(**keys)) == expected


def test_scores_are_held_where_flash_attention_and_built_ops_are_not(config: Any, monkeypatch: Any) -> None:
    held = {"device": "cpu"}, {}, {"bf16": True}, {"fp16": True}
    assert [Precision.of(config(**keys)).score for keys in held] == [0, 4, 0, 0]
    monkeypatch.setattr("paddlemix.estimate.setup.is_older_than_ampere", lambda: True)
    # float32's weights, of which products read a copy in half precision.
    assert [Precision.of(config(**keys)).score for keys in held] == [0, 4, 6, 6]


@pytest.mark.parametrize(
    ("keys", "held"),
    [
        ({}, "float32"),
        ({"fp16_opt_level": "O2"}, "float32"),
        ({"bf16": True}, "float32"),
        ({"bf16": True, "fp16_opt_level": "O2"}, "bfloat16"),
        ({"fp16": True, "fp16_opt_level": "O2"}, "float16"),
        ({"bf16": True, "dtype": "bfloat16"}, "bfloat16"),
    ],
)
def test_weights_are_held_as_level_and_dtype_say(config: Any, keys: dict[str, Any], held: str) -> None:
    assert weights_dtype(config(**keys).precision) == held


@pytest.mark.parametrize(
    ("keys", "count", "expected"),
    [
        ({}, None, Cards()),
        ({}, 4, Cards(count=4)),
        ({"sharding": "stage1"}, 8, Cards(8, 1, 8, 1)),
        ({"sharding": "stage2 offload", "sharding_parallel_degree": 2}, None, Cards(2, 1, 2, 2, offload=True)),
        ({"sharding": "stage3", "tensor_parallel_degree": 2}, 8, Cards(8, 2, 4, 3)),
        ({"tensor_parallel_degree": 2}, None, Cards(2, 2)),
    ],
)
def test_cards_are_cut_as_the_degrees_say(
    config: Any, keys: dict[str, Any], count: int | None, expected: Cards
) -> None:
    assert Cards.of(config(**keys).training, count) == expected


@pytest.mark.parametrize(
    ("keys", "more", "expected"),
    [
        ({"pipeline_parallel_degree": 2}, {}, "`pipeline_parallel_degree` is 2, of which the memory is not estimated"),
        ({"tensor_parallel_degree": 2}, {"cards": 3}, "--cards is 3; expected a multiple of 2"),
        ({}, {"cards": 0}, "--cards is 0; expected a multiple of 1"),
        ({}, {"image_share": 1.5}, "--image_share is 1.5; expected 0 to 1"),
    ],
)
def test_what_cannot_be_estimated_is_said(
    config: Any, keys: dict[str, Any], more: dict[str, Any], expected: str
) -> None:
    with pytest.raises(ValueError) as caught:
        Setup.of(config(**keys), **more)
    assert str(caught.value).startswith(expected)


def test_a_batch_is_rows_of_the_longest_record(config: Any) -> None:
    setup = Setup.of(config(per_device_train_batch_size=3, max_length=1000, recompute=True), image_share=0.25)
    assert setup.batch == Batch(3000, 0.25, 3)
    assert (setup.batch.image_tokens, setup.batch.targets) == (750, 2250)
    assert setup.recompute_vit and setup.recompute_llm
