"""Runs that begin with adapters: one is trained further, or a new one begins on those that become part of the model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import paddle
import pytest
from safetensors.numpy import load_file

from paddlemix.auto import AutoModelMIX, AutoProcessorMIX
from paddlemix.configuration import file as config_file
from paddlemix.configuration.arguments import DataArguments, FinetuneConfig, ModelArguments
from paddlemix.configuration.problems import ConfigError, Place
from paddlemix.estimate.shapes import model_to_train
from paddlemix.models.registry import find_family
from paddlemix.peft.adapter_config import AdapterConfig
from paddlemix.peft.chain import find_chain
from paddlemix.peft.lora_model import MixLoRAModel
from paddlemix.peft.probe import logits_of, probe_inputs
from paddlemix.peft.targets import linear_layers
from paddlemix.tools import supervised_finetune
from paddlemix.training.finetune import AdapterStart, choose_trained
from paddlemix.training.finetune import Run as TrainingRun

from ..families import FamilyCase, each_family
from ..references import PEFT_ADAPTERS, base_of
from .test_lora import ARGS

RECORDS = 4
ADAPTER_FILE = "adapter_model.safetensors"
PEFT_FOLDER = Path(__file__).parents[1] / "fixtures" / "peft_adapter"

Run = Callable[..., Path]


@pytest.fixture
def run(tmp_path: Path, shapes: Path) -> Run:
    """A function that trains on all records in every step, with the loss before and after it, and gives the folder."""
    records = [{"name": "vqa_dataset", "data_files": str(shapes / "train_vqa.json"), "max_samples": RECORDS}]

    def run(out: str, model: Path, **keys: Any) -> Path:
        config = {
            "model_name_or_path": str(model),
            "dataset": {"train": records, "eval": records},
            "output_dir": str(tmp_path / out),
            "do_train": True,
            "do_eval": True,
            "lora": True,
            "max_steps": 2,
            "per_device_train_batch_size": RECORDS,
            "per_device_eval_batch_size": RECORDS,
            "learning_rate": 5e-3,
            "warmup_ratio": 0.0,
            "lr_scheduler_type": "constant",
            "save_strategy": "no",
            "report_to": "none",
            "skip_memory_metrics": True,
            "seed": 0,
            **keys,
        }
        file = tmp_path / "config.json"
        file.write_text(json.dumps(config))
        supervised_finetune.run(config_file.load_config(str(file), has_gpu=False))
        return tmp_path / out

    return run


def losses(out: Path) -> tuple[float, float]:
    """The loss of the first step and that of the evaluation at the end."""
    log = json.loads((out / "trainer_log.json").read_text())
    return next(one["loss"] for one in log if "loss" in one), log[-1]["eval_loss"]


def settings(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "adapter_config.json").read_text())


def answers(folder: Path) -> np.ndarray:
    """The logits of a model, or of an adapter on the base that it names."""
    return logits_of(AutoModelMIX.from_pretrained(folder), probe_inputs(AutoProcessorMIX.from_pretrained(folder)))


@each_family
def test_training_goes_on_where_the_adapter_ended(case: FamilyCase, request: pytest.FixtureRequest, run: Run) -> None:
    base = case.folder(request)
    first = run("first", base, lora_rank=4, lora_alpha=12, lora_dropout=0.0)
    begun, ended = losses(first)
    assert begun - ended > 0.01
    second = run("second", first)
    assert losses(second)[0] == pytest.approx(ended, rel=1e-5) and losses(second)[1] < ended
    assert settings(second) == settings(first) and settings(first)["base_model_name_or_path"] == str(base)
    # The same with the base named.
    third = run("third", base, lora_path=str(first))
    assert (third / ADAPTER_FILE).read_bytes() == (second / ADAPTER_FILE).read_bytes()


@each_family
def test_a_new_adapter_on_an_earlier_one_says_and_keeps_the_model_that_it_is_on(
    case: FamilyCase, request: pytest.FixtureRequest, run: Run
) -> None:
    base = case.folder(request)
    first = run("first", base, lora_dropout=0.0)
    second = run(
        "second", first, create_new_adapter=True, lora_rank=2, lora_dropout=0.0, lora_target_modules=[".*mlp.*"]
    )
    assert losses(second)[0] == pytest.approx(losses(first)[1], rel=1e-5)
    assert settings(second)["base_model_name_or_path"] == str(second / "merged_base") and settings(second)["r"] == 2
    np.testing.assert_allclose(answers(second / "merged_base"), answers(first), atol=1e-4)
    assert np.abs(answers(second) - answers(first)).max() > 0.01
    # Of several the last is trained further, on what the earlier ones made of the base.
    third = run("third", base, lora_path=[str(first), str(second)])
    assert losses(third)[0] == pytest.approx(losses(second)[1], rel=1e-4)
    assert settings(third)["base_model_name_or_path"] == str(third / "merged_base") and settings(third)["r"] == 2
    found, wanted = (load_file(one / "merged_base" / "model.safetensors") for one in (third, second))
    assert found.keys() == wanted.keys() and all(np.array_equal(found[name], wanted[name]) for name in wanted)


def test_a_run_that_goes_on_from_a_checkpoint_ends_as_if_it_had_not_been_stopped(
    run: Run, tiny_checkpoint: Path
) -> None:
    first = run("first", tiny_checkpoint)
    second = shutil.copytree(first, first.parent / "second")
    for number, keys in enumerate(({"lora_path": str(first)}, {"lora_path": [str(first), str(second)]})):
        keys |= {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}
        whole = run(f"whole-{number}", tiny_checkpoint, **keys)
        stopped = shutil.copytree(whole, whole.parent / f"stopped-{number}")
        shutil.rmtree(stopped / "checkpoint-4")
        (stopped / ADAPTER_FILE).unlink()
        run(stopped.name, tiny_checkpoint, **keys, resume_from_checkpoint=True)
        assert (stopped / ADAPTER_FILE).read_bytes() == (whole / ADAPTER_FILE).read_bytes()


KINDS: dict[str, dict[str, Any]] = {
    "patterns": {"lora_rank_pattern": {"q_proj": 2, "mlp.*": 3}, "lora_alpha_pattern": {"v_proj": 4}},
    "dora": {"lora_dora": True, "lora_plus_scale": 2.0, "lora_rank_pattern": {"q_proj": 2}},
    "biases": {"lora_bias": "all"},
    "dora and biases": {"lora_dora": True, "lora_bias": "lora_only"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_goes_on_and_is_resumed_bit_for_bit(kind: str, run: Run, tiny_checkpoint: Path) -> None:
    keys = KINDS[kind]
    first = run("first", tiny_checkpoint, lora_dropout=0.0, **keys)
    begun, ended = losses(first)
    assert begun - ended > 0.01
    second = run("second", first, lora_plus_scale=keys.get("lora_plus_scale", 1.0))
    assert losses(second)[0] == pytest.approx(ended, rel=1e-5) and losses(second)[1] < ended
    assert settings(second) == settings(first)
    assert load_file(second / ADAPTER_FILE).keys() == load_file(first / ADAPTER_FILE).keys()
    # On top of it, a plain one: it has become a part of the model.
    third = run("third", first, create_new_adapter=True, lora_rank=2, lora_dropout=0.0)
    assert losses(third)[0] == pytest.approx(ended, rel=1e-4) and "use_dora" not in settings(third)
    # The kind is the adapter's, also where the config says it.
    keys = {"lora_path": str(first), "max_steps": 4, "save_strategy": "steps", "save_steps": 2, **keys}
    whole = run("whole", tiny_checkpoint, **keys)
    stopped = shutil.copytree(whole, whole.parent / "stopped")
    shutil.rmtree(stopped / "checkpoint-4")
    (stopped / ADAPTER_FILE).unlink()
    run("stopped", tiny_checkpoint, **keys, resume_from_checkpoint=True)
    assert (stopped / ADAPTER_FILE).read_bytes() == (whole / ADAPTER_FILE).read_bytes()


@pytest.mark.parametrize("variant", PEFT_ADAPTERS)
def test_what_peft_wrote_is_trained_further(variant: str) -> None:
    base, folder = base_of(variant), PEFT_FOLDER / variant
    keys = ModelArguments(model_name_or_path=str(base), lora=True, lora_plus_scale=2.0)
    start = AdapterStart(str(base), folder)
    model = choose_trained(
        AutoModelMIX.from_pretrained(base), find_family(base), keys, is_base=True, seed=0, start=start
    )
    before = AutoModelMIX.from_pretrained(base, lora_path=folder)
    inputs = {"input_ids": paddle.to_tensor([[5, 6, 7, 8, 9]])}
    model.eval()
    assert np.array_equal(logits_of(model, inputs), logits_of(before, inputs))
    assert model.adapter_config == replace(before.adapter_config, base=str(base))
    assert (model.adapted_layers, model.whole_layers) == (before.adapted_layers, before.whole_layers)
    model.train()
    model(**inputs, labels=inputs["input_ids"]).loss.backward()
    reached = {name for name, one in model.named_parameters() if one.grad is not None}
    trained = {name for name, one in model.named_parameters() if not one.stop_gradient}
    assert any("lora_B" in name for name in reached) and reached <= trained


class TestKeysThatContradictTheAdapter:
    @pytest.fixture(scope="class")
    def adapter(self, tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
        model = AutoModelMIX.from_pretrained(tiny_checkpoint)
        config = AdapterConfig(4, 8.0, 0.25, base=str(tiny_checkpoint))
        whole = ["visual.merger.mlp.0.weight", "visual.merger.mlp.0.bias"]
        layers = [name for name in linear_layers(model) if name.endswith("q_proj")]
        folder = tmp_path_factory.mktemp("adapter")
        MixLoRAModel.adapting(model, config, layers, whole).save_pretrained(folder)
        return folder

    def load(self, adapter: Path, **keys: Any) -> MixLoRAModel:
        model = ModelArguments(model_name_or_path=str(adapter), lora=True, **keys)
        config = FinetuneConfig(model, DataArguments(), {}, places={key: Place("c.json") for key in keys})
        return cast(MixLoRAModel, TrainingRun.of(config).load_model(ARGS))

    @pytest.mark.parametrize(
        ("keys", "said"),
        [
            ({"lora_rank": 8}, "`lora_rank` is 8, but 4 in the adapter"),
            ({"lora_alpha": 4}, "`lora_alpha` is 4, but 8 in the adapter"),
            ({"rslora": True}, "`rslora` is true, but false in the adapter"),
            ({"lora_dora": True}, "`lora_dora` is true, but false in the adapter"),
            ({"lora_bias": "all"}, "`lora_bias` is all, but none in the adapter"),
            (
                {"lora_rank_pattern": {"0.*q_proj": 8}},
                "`lora_rank_pattern` gives model.layers.0.self_attn.q_proj rank 8",
            ),
            ({"lora_alpha_pattern": {"q_proj": 3.0}}, "gives model.layers.0.self_attn.q_proj alpha 3, but it has 8"),
            ({"lora_target_modules": [".*k_proj"]}, "`lora_target_modules` names model.layers.0.self_attn.k_proj"),
            (
                {"lora_target_modules": [".*0.*q_proj"]},
                "`lora_target_modules` does not name model.layers.1.self_attn.q",
            ),
            ({"lora_modules_to_save": []}, "`lora_modules_to_save` does not name visual.merger.mlp.0.bias"),
            ({"lora_modules_to_save": [".*mlp.*"]}, "`lora_modules_to_save` names "),
        ],
    )
    def test_are_refused_by_name_with_the_way_to_a_new_adapter(
        self, adapter: Path, keys: dict[str, Any], said: str, tmp_path: Path
    ) -> None:
        with pytest.raises(ValueError, match="set `create_new_adapter` to true") as caught:
            self.load(adapter, **keys)
        assert said in str(caught.value) and "\n" not in str(caught.value) and str(adapter) in str(caught.value)

    def test_are_not_those_that_say_what_it_is_nor_those_of_training(self, adapter: Path) -> None:
        same = {"lora_rank": 4, "lora_alpha": 8, "rslora": False, "lora_target_modules": [".*q_proj"]}
        same |= {"lora_dora": False, "lora_bias": "none", "lora_rank_pattern": {"q_proj": 4}}
        model = self.load(adapter, **same, lora_modules_to_save=[r"visual\.merger\.mlp\.0"], lora_dropout=0.5)
        assert (model.adapter_config.dropout, model.adapter_config.alpha) == (0.5, 8.0)
        assert self.load(adapter).adapter_config.dropout == 0.25


class TestRefused:
    @pytest.fixture
    def adapter(self, tiny_checkpoint: Path, tmp_path: Path) -> Path:
        return self.save(tiny_checkpoint, tmp_path / "adapter", tiny_checkpoint)

    @staticmethod
    def save(model: Path, folder: Path, base: Path) -> Path:
        config, layers = AdapterConfig(2, 4.0, base=str(base)), ["model.layers.0.self_attn.q_proj"]
        MixLoRAModel.adapting(AutoModelMIX.from_pretrained(model), config, layers).save_pretrained(folder)
        return folder

    def test_a_chain_of_adapters_is_told_with_its_list(
        self, adapter: Path, tiny_checkpoint: Path, tmp_path: Path
    ) -> None:
        other = self.save(tiny_checkpoint, tmp_path / "other", adapter)
        with pytest.raises(ValueError, match=r"is an adapter itself. Give the base of it, and set `lora_path` to \["):
            find_chain(str(adapter), [str(other)])
        assert find_chain(str(tiny_checkpoint), [str(adapter), str(other)]).continued == other
        with pytest.raises(ValueError, match="the base .* is an adapter too. Merge that one") as caught:
            find_chain(str(other))
        assert f"{other} as `lora_path`" in str(caught.value)

    def test_an_adapter_counts_once(self, adapter: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="are both the adapter .*; take one out"):
            find_chain(str(adapter), [f"{adapter}/"])
        other = self.save(tiny_checkpoint, tmp_path / "other", tiny_checkpoint)
        with pytest.raises(ValueError, match=f"`lora_path` names {adapter} twice"):
            find_chain(str(tiny_checkpoint), [str(adapter), str(other), str(adapter)])

    def test_a_new_adapter_needs_one_that_it_is_put_on(self, tiny_checkpoint: Path) -> None:
        with pytest.raises(ValueError, match="`create_new_adapter` is true, but no adapter is named"):
            find_chain(str(tiny_checkpoint), creates_new=True)

    def test_a_run_does_not_replace_the_model_that_it_is_on(
        self, tiny_checkpoint: Path, run: Run, tmp_path: Path
    ) -> None:
        base = shutil.copytree(tiny_checkpoint, tmp_path / "out" / "merged_base")
        adapter = self.save(base, tmp_path / "adapter", base)
        with pytest.raises(ValueError, match=r"`output_dir` .*out holds the model that the adapters are on"):
            run("out", adapter, create_new_adapter=True, resume_from_checkpoint=True)

    def test_overwriting_the_folder_of_an_adapter_to_start_from_is_refused(
        self, tiny_checkpoint: Path, run: Run, tmp_path: Path
    ) -> None:
        self.save(tiny_checkpoint, tmp_path / "out" / "checkpoint-1", tiny_checkpoint)
        for named in ({"lora_path": str(tmp_path / "out" / "checkpoint-1")}, {}):
            model = tiny_checkpoint if named else tmp_path / "out" / "checkpoint-1"
            with pytest.raises(ConfigError, match="holds the model to train"):
                run("out", model, overwrite_output_dir=True, **named)


def test_memory_is_estimated_of_the_adapter_that_is_trained_further(tiny_checkpoint: Path, tmp_path: Path) -> None:
    adapter = TestRefused.save(tiny_checkpoint, tmp_path / "adapter", tiny_checkpoint)
    model, _ = model_to_train(ModelArguments(model_name_or_path=str(adapter), lora=True), dtype="float32")
    assert isinstance(model, MixLoRAModel) and len(model.adapted_layers) == 1 and model.adapter_config.rank == 2
