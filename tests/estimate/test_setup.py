"""What a config says about memory beside the model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from paddlemix.configuration.arguments import FinetuneConfig
from paddlemix.configuration.file import load_config
from paddlemix.estimate.setup import Batch, Cards, Kernels, Precision, Setup, weights_dtype_of


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
        ({}, Precision(4, 4, 8, 4, 4)),
        ({"bf16": True}, Precision(4, 4, 8, 2, 4)),
        ({"bf16": True, "fp16_opt_level": "O2"}, Precision(2, 2, 12, 2, 2)),
        ({"bf16": True, "fp16_opt_level": "O2", "amp_master_grad": True}, Precision(2, 4, 12, 2, 2)),
        ({"fp16": True}, Precision(4, 4, 8, 2, 4, logit=10)),
        ({"bf16": True, "fp16_opt_level": "O2", "gradient_accumulation_steps": 2}, Precision(2, 4, 12, 2, 2)),
        ({"fp16": True, "fp16_opt_level": "O2"}, Precision(2, 4, 12, 2, 2, logit=10)),
        ({"dtype": "bfloat16"}, Precision(2, 2, 8, 2, 2)),
        ({"optim": "adamw_16bit_moment"}, Precision(4, 4, 4, 4, 4)),
        ({"optim": "adamw_mini"}, Precision(4, 4, 4, 4, 4)),
    ],
)
def test_bytes_of_a_number_follow_from_precision_and_optimizer(
    config: Any, keys: dict[str, Any], expected: Precision
) -> None:
    assert Precision.of(config(**keys)) == expected


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, Kernels()),
        ({"bf16": True}, Kernels(attention=False, cross_attention=False, norms=False)),
        ({"bf16": True, "mixtoken": True}, Kernels(attention=True, cross_attention=False, norms=False)),
        ({"bf16": True, "fp16_opt_level": "O2", "mixtoken": True}, Kernels(attention=True, cross_attention=False)),
    ],
)
def test_what_is_fused_follows_from_precision_and_packing(config: Any, keys: dict[str, Any], expected: Kernels) -> None:
    assert Setup.of(config(**keys)).kernels == expected


def test_weights_are_held_as_the_run_holds_them(config: Any) -> None:
    from paddlemix.configuration.file import build_training_arguments
    from paddlemix.training.finetune import weights_dtype

    for keys in ({}, {"fp16_opt_level": "O2"}):
        some = config(report_to="none", **keys)
        assert weights_dtype_of(some) == weights_dtype(build_training_arguments(some)) == "float32"
    assert weights_dtype_of(config(bf16=True, fp16_opt_level="O2")) == "bfloat16"
    assert weights_dtype_of(config(fp16=True, fp16_opt_level="O2", dtype="float32")) == "float32"


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
    assert setup.batch == Batch(3000, 0.25, 1000)
    assert (setup.batch.image_tokens, setup.batch.targets) == (750, 2250)
    assert setup.recompute_vit and setup.recompute_llm
