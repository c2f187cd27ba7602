"""Files as PaddleNLP's own code writes them, of tiny models."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import numpy as np
import paddle
import pytest
from paddlenlp.peft.lora import LoRAConfig, LoRAModel

from paddlemix.auto import AutoModelMIX, AutoProcessorMIX
from paddlemix.models.registry import find_family
from paddlemix.peft.probe import logits_of, probe_inputs
from paddlemix.peft.targets import language_layers
from paddlemix.tools import convert_checkpoint

TWO_RANKS = 2


@pytest.fixture
def convert(tmp_path, monkeypatch):
    """A function that runs the tool."""

    def run(source: Path, *words: object, output: str = "converted") -> Path:
        given = [source, "--output", tmp_path / output, *words]
        monkeypatch.setattr(sys, "argv", ["convert_checkpoint.py", *map(str, given)])
        convert_checkpoint.main()
        return tmp_path / output

    return run


@pytest.fixture(scope="session")
def probe():
    """A function that gives the logits of a prompt with an image."""

    def run(model, processor_folder: Path) -> np.ndarray:
        model.eval()
        return logits_of(model, probe_inputs(AutoProcessorMIX.from_pretrained(processor_folder)))

    return run


@pytest.fixture(scope="session")
def paddlenlps_adapter():
    """A function that puts PaddleNLP's own adapters, which change what is computed, on a model."""

    def make(folder: Path, dtype: str = "float32", **settings: object) -> LoRAModel:
        model = AutoModelMIX.from_pretrained(folder, dtype=dtype)
        targets = language_layers(model, find_family(folder).language_globs)
        given = {"r": 4, "lora_alpha": 8, "target_modules": targets, "base_model_name_or_path": str(folder), **settings}
        adapted = LoRAModel(model, LoRAConfig(dtype=dtype, **given))
        rng = np.random.default_rng(0)
        for name, parameter in adapted.named_parameters():
            if not parameter.stop_gradient:
                numbers = rng.normal(size=parameter.shape).astype("float32") * (0.1 if "lora" in name else 0.3)
                parameter.set_value(paddle.to_tensor(numbers).astype(dtype))
        return adapted

    return make


@pytest.fixture(scope="session")
def split_over_two():
    """A function that splits tensors over two ranks with PaddleNLP's functions, as its own models say."""

    def split(config, tensors: dict[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
        ranks: list[dict[str, np.ndarray]] = []
        for rank in range(TWO_RANKS):
            actions = _actions(config, rank)
            ranks.append({})
            for name, array in tensors.items():
                action = next((one for ending, one in actions.items() if f".{name}".endswith(ending)), None)
                ranks[rank][name] = np.ascontiguousarray(action(array) if action else array)
        return ranks

    return split


def _actions(config, rank: int) -> dict[str, partial]:
    from paddlenlp.transformers import Qwen2Config, QWenConfig
    from paddlenlp.transformers.qwen.modeling import QWenPretrainedModel
    from paddlenlp.transformers.qwen2.modeling import Qwen2PretrainedModel

    is_first = config.model_type == "qwen"
    theirs, model = (QWenConfig, QWenPretrainedModel) if is_first else (Qwen2Config, Qwen2PretrainedModel)
    shape = theirs(
        num_hidden_layers=config.num_hidden_layers,
        num_attention_heads=config.num_attention_heads,
        num_key_value_heads=getattr(config, "num_key_value_heads", None),
        tensor_parallel_degree=TWO_RANKS,
        tensor_parallel_rank=rank,
    )
    shape.tensor_parallel_rank = rank
    return {f".{name.removeprefix('qwen.')}": one for name, one in model._get_tensor_parallel_mappings(shape).items()}
