"""Every config of the package is one that a run is made of."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import paddlemix
from paddlemix.configuration import file as config_file
from paddlemix.training.finetune import Run

FOLDER = Path(paddlemix.__file__).parent / "config"
CONFIGS = sorted(FOLDER.rglob("*.json"))
# What stands for the model that a config names, by a part of its path.
TINY = {"qwen2_5_vl": "tiny_qwen2_5_vl", "qwen2_vl": "tiny_checkpoint", "qwen_vl": "tiny_qwen_vl"}


def test_each_family_has_configs_for_all_weights_for_adapters_and_for_several_cards() -> None:
    for family in TINY:
        texts = [file.read_text("utf-8") for file in (FOLDER / family).glob("*.json")]
        shown = [json.loads(text) for text in texts]
        assert any(not config.get("lora") and "sharding" not in config for config in shown)
        assert any(config.get("lora") for config in shown)
        assert any(config.get("sharding") == "stage2" for config in shown)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.relative_to(FOLDER).as_posix())
def test_a_run_can_be_made_of_it(
    path: Path, request: pytest.FixtureRequest, shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from paddlemix.training.plan import describe_plan
    from paddlemix.training.sft import SFTTrainer

    config_file.load_config(str(path), has_gpu=True)  # as it is
    (fixture,) = {tiny for family, tiny in TINY.items() if family in path.relative_to(FOLDER).as_posix()}
    tiny = request.getfixturevalue(fixture)
    sets = {
        part: [{"name": "chatml_dataset", "data_files": str(shapes / f"{part}_grounding.json")}]
        for part in ("train", "eval")
    }
    flags = ["--model_name_or_path", str(tiny), "--dataset", json.dumps(sets), "--output_dir", str(tmp_path / "out")]
    # One process shares nothing, so that stages which need GPUs do not matter here.
    config = config_file.load_config(str(path), [*flags, "--bf16", "false", "--report_to", "none"], has_gpu=True)
    run = Run.of(config)
    train, evaluation = run.load_datasets()
    args = config_file.build_training_arguments(config)
    model = run.load_model(args)
    trainer = SFTTrainer(model, args, train, evaluation, run.processor, sampling=run.sampling)
    plan = describe_plan(model, train, evaluation, args, trainer.train_sampler)
    assert "trained" in plan and len(next(iter(trainer.get_train_dataloader()))["input_ids"]) > 0
