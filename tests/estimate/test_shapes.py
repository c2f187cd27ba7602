"""Models without their memory."""

from __future__ import annotations

from pathlib import Path

import paddle
import pytest

from paddlemix.configuration.arguments import DataArguments, FinetuneConfig, ModelArguments
from paddlemix.estimate.shapes import model_to_train
from paddlemix.models.registry import FAMILIES


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("Qwen/Qwen2-VL-2B", 2_208_985_600),
        ("Qwen/Qwen2-VL-7B", 8_291_375_616),
        ("Qwen/Qwen2-VL-72B", 73_405_560_320),
    ],
)
def test_published_models_have_as_many_numbers_as_published_and_take_no_memory(name: str, numbers: int) -> None:
    before = paddle.base.core.host_memory_stat_current_value("Allocated", 0)
    model, _ = model_to_train(ModelArguments(model_name_or_path=f"{name}-Instruct"), dtype="bfloat16")
    assert sum(one.size for one in model.parameters()) == numbers
    assert paddle.base.core.host_memory_stat_current_value("Allocated", 0) - before < 2**20


def test_every_known_name_is_a_model() -> None:
    names = [name for family in FAMILIES for name in family.published]
    assert len(names) > 3
    for name in names:
        assert model_to_train(ModelArguments(model_name_or_path=name, freeze_llm=True), dtype="float32")[0]


def test_adapters_of_a_base_model_bring_embedding_and_head() -> None:
    base, tuned = (
        model_to_train(ModelArguments(model_name_or_path=name, lora=True), dtype="bfloat16")[0]
        for name in ("qwen-vl/qwen-vl-7b", "qwen-vl/qwen-vl-chat-7b")
    )
    assert base.whole_layers == ["transformer.wte", "lm_head"] and tuned.whole_layers == []


def test_a_folder_is_read_as_its_run_would_read_it(tiny_checkpoint: Path) -> None:
    from paddlemix.training.finetune import Run

    keys = ModelArguments(model_name_or_path=str(tiny_checkpoint), lora=True, lora_rank=4)
    training = {"fp16_opt_level": "O1", "bf16": False, "fp16": False, "seed": 3, "tensor_parallel_degree": -1}
    args, run = type("Args", (), training), Run.of(FinetuneConfig(keys, DataArguments(), {}))
    loaded = {name: (one.shape, one.stop_gradient) for name, one in run.load_model(args).named_parameters()}
    empty = {
        name: (one.shape, one.stop_gradient)
        for name, one in model_to_train(keys, dtype="float32")[0].named_parameters()
    }
    assert loaded == empty and len(loaded) > 30
