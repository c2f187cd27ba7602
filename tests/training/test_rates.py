"""Learning rates of the vision tower and the aligner."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from paddlemix.configuration import file as config_file
from paddlemix.configuration.arguments import DataArguments, FinetuneConfig, ModelArguments
from paddlemix.models.registry import find_family
from paddlemix.tools import supervised_finetune
from paddlemix.training.finetune import Run
from paddlemix.training.rates import factors_by_module, set_module_rates

ARGS = SimpleNamespace(tensor_parallel_degree=-1, fp16_opt_level="O1", bf16=False, fp16=False, seed=3)
RATES = {"learning_rate": 1e-3, "vision_learning_rate": 1e-4, "aligner_learning_rate": 4e-3}
PARTS = {
    "qwen2_vl": {"visual.patch_embed": 0.1, "visual.blocks": 0.1, "visual.merger": 4.0},
    "qwen": {
        "transformer.visual.conv1": 0.1,
        "transformer.visual.positional_embedding": 0.1,
        "transformer.visual.ln_pre": 0.1,
        "transformer.visual.transformer": 0.1,
        "transformer.visual.ln_post": 0.1,
        "transformer.visual.proj": 0.1,
        "transformer.visual.attn_pool": 4.0,
    },
}


def load_model(keys: ModelArguments) -> Any:
    return Run.of(FinetuneConfig(keys, DataArguments(), {})).load_model(ARGS)


@pytest.mark.parametrize("checkpoint", ["tiny_checkpoint", "tiny_qwen_vl"])
def test_each_parameter_has_the_rate_of_its_part(checkpoint: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(checkpoint)
    family, model = find_family(folder), load_model(ModelArguments(model_name_or_path=str(folder)))
    assert set_module_rates(model, family, RATES) == {
        "vision_learning_rate": pytest.approx(0.1),
        "aligner_learning_rate": pytest.approx(4.0),
    }
    parts, met = PARTS[family.model_type], set()
    for name, parameter in model.named_parameters():
        part = next((part for part in parts if name.startswith(part)), "")
        met.add(part)
        assert parameter.optimize_attr["learning_rate"] == pytest.approx(parts.get(part, 1.0)), name
    assert met == {*parts, ""}


def test_adapters_of_the_tower_have_its_rate_and_that_of_lora_plus(tiny_checkpoint: Path) -> None:
    model = load_model(
        ModelArguments(
            model_name_or_path=str(tiny_checkpoint),
            lora=True,
            lora_plus_scale=8.0,
            lora_target_modules=[r"visual\.blocks.*qkv", ".*q_proj"],
        )
    )
    set_module_rates(model, find_family(tiny_checkpoint), {**RATES, "aligner_learning_rate": None})
    assert factors_by_module(model) == {
        "visual.blocks": pytest.approx([0.1, 0.8]),
        "model.layers": pytest.approx([1.0, 8.0]),
    }


@pytest.mark.parametrize(
    ("frozen", "key", "part"),
    [
        ("freeze_vit", "vision_learning_rate", "the vision tower"),
        ("freeze_aligner", "aligner_learning_rate", "the aligner"),
        ("lora", "vision_learning_rate", "the vision tower"),
    ],
)
def test_a_rate_of_what_is_frozen_is_refused(tiny_checkpoint: Path, frozen: str, key: str, part: str) -> None:
    model = load_model(ModelArguments(model_name_or_path=str(tiny_checkpoint), **{frozen: True}))
    with pytest.raises(ValueError, match=f"^`{key}` is {RATES[key]:g}, but nothing of {part} is trained."):
        set_module_rates(model, find_family(tiny_checkpoint), {**dict.fromkeys(RATES), "learning_rate": 1, **RATES})


@pytest.fixture
def run(tmp_path: Path, tiny_checkpoint: Path, shapes: Path) -> Callable[..., Path]:
    """Train for a few steps; the output folder."""

    def train(out: str, **changes: Any) -> Path:
        config = {
            "model_name_or_path": str(tiny_checkpoint),
            "dataset": {"train": [{"name": "vqa_dataset", "data_files": str(shapes / "train_vqa.json")}]},
            "output_dir": str(tmp_path / out),
            "do_train": True,
            "max_steps": 3,
            "per_device_train_batch_size": 4,
            "save_steps": 1,
            "skip_memory_metrics": True,
            "weight_decay": 0.0,
            **RATES,
            **changes,
        }
        (tmp_path / "config.json").write_text(json.dumps(config))
        supervised_finetune.run(config_file.load_config(str(tmp_path / "config.json"), has_gpu=False))
        return tmp_path / out

    return train


def largest_step(before: Path, after: Path, prefix: str) -> float:
    """AdamW's first step moves no weight by more than its learning rate, and most by about that."""
    old, new = (load_file(folder / "model.safetensors") for folder in (before, after))
    return max(float(np.abs(new[name] - old[name]).max()) for name in old if name.startswith(prefix))


def test_weights_move_by_their_rates_which_plan_and_logs_show(
    run: Callable[..., Path], tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from visualdl import LogReader

    out = run("out", lr_scheduler_type="linear", warmup_ratio=0.0)
    first = out / "checkpoint-1"
    for part, rate in (("visual.blocks", 1e-4), ("visual.merger", 4e-3), ("model.layers", 1e-3)):
        assert largest_step(tiny_checkpoint, first, part) == pytest.approx(rate, rel=1e-3), part

    plan = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["visual.merger", "0.004"] in plan and ["visual.blocks", "0.0001"] in plan

    logged = [entry for entry in json.loads((out / "trainer_log.json").read_text()) if "loss" in entry]
    # The rate of the next step, as PaddleNLP logs it.
    for entry, share in zip(logged, (2 / 3, 1 / 3, 0.0), strict=True):
        assert [entry[key] for key in RATES] == pytest.approx([rate * share for rate in RATES.values()], rel=1e-3)
    curves = LogReader(file_path=str(next(out.glob("runs/*/vdlrecords*")))).get_tags()["scalar"]
    assert {f"train/{key}" for key in RATES} <= set(curves)


def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(run: Callable[..., Path]) -> None:
    whole = run("whole", report_to="none")
    resumed = run("resumed", report_to="none", resume_from_checkpoint=str(whole / "checkpoint-1"))
    first, second = (load_file(out / "model.safetensors") for out in (whole, resumed))
    assert len(first) > 30 and [name for name in first if first[name].tobytes() != second[name].tobytes()] == []
