"""Ranks that share a model train it as one process does."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
from safetensors.numpy import load_file

from paddlemix.auto import AutoModelMIX
from paddlemix.models.qwen2_vl import Qwen2VLConfig, Qwen2VLForConditionalGeneration
from paddlemix.tools import supervised_finetune

from .conftest import Launch
from .train_cases import train
from .train_split import NEW_TOKENS, PROMPT, answer

TRAIN = Path(__file__).with_name("train_split.py")
IMAGES, TEXTS, STEPS, SAVED_AT = 8, 4, 10, 5
# Float32 sums in another order: losses differ by 2e-7 here, weights by 8e-7 of their norm.
CLOSE = 1e-5
# What is left of that after steps so large shows in a gradient's norm: 1.2e-5 at most here.
CLOSE_NORMS = 5e-5
CLIP = 0.05
Run = dict[str, Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("split")


@pytest.fixture(scope="module")
def records(shapes: Path, folder: Path) -> Path:
    """Records with images, and some of text alone with answers of very different lengths."""
    shown_image = json.loads((shapes / "train_grounding.json").read_text("utf-8"))[:IMAGES]
    assert len(shown_image) == IMAGES
    for record in shown_image:
        for turn in record["conversations"]:
            turn["value"] = turn["value"].replace("<img>", f"<img>{shapes}/")
    numbers = [" ".join(str(number) for number in range(3 * 2**index)) for index in range(TEXTS)]
    texts = [{"conversations": [["Count up.", text]]} for text in numbers]
    file = folder / "records.json"
    file.write_text(json.dumps([*shown_image, *texts]), "utf-8")
    return file


@pytest.fixture(scope="module")
def qwen2_vl(tiny_checkpoint: Path, folder: Path) -> Path:
    """The tiny Qwen2-VL with heads enough for two ranks: four that ask, and two groups of keys."""
    values = json.loads((tiny_checkpoint / "config.json").read_text("utf-8"))
    values |= {"hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2}
    values["vision_config"]["hidden_size"] = 64
    assert values["vocab_size"] % 2 == 0 and values["vision_config"]["num_heads"] == 2
    copied = shutil.copytree(tiny_checkpoint, folder / "qwen2_vl")
    paddle.seed(0)
    Qwen2VLForConditionalGeneration(Qwen2VLConfig(**values)).save_pretrained(copied)
    return copied


@pytest.fixture(scope="module")
def settings(records: Path, qwen2_vl: Path, tiny_qwen_vl: Path) -> dict[str, Run]:
    """A run of each family: Qwen2-VL with padded batches, Qwen-VL with packs."""
    sets = {"name": "chatml_dataset", "data_files": str(records)}
    shared = {
        "dataset": {"train": [sets], "eval": [{**sets, "max_samples": 5}]},
        "do_train": True,
        "do_eval": True,
        "eval_steps": 10 * STEPS,
        "max_steps": STEPS,
        "save_steps": SAVED_AT,
        "logging_steps": 1,
        # So large an epsilon keeps Adam from making whole steps of gradients that are nothing but rounding, such as
        # those of a key's bias, and lets a wrong norm of gradients show.
        "adam_epsilon": 1e-2,
        "learning_rate": 0.3,
        "max_grad_norm": CLIP,
        "report_to": "none",
        "skip_memory_metrics": True,
    }
    return {
        "padded": {**shared, "model_name_or_path": str(qwen2_vl)},
        "packs": {**shared, "model_name_or_path": str(tiny_qwen_vl), "mixtoken": True, "max_length": 512},
    }


@pytest.fixture(scope="module")
def write(settings: dict[str, Run], folder: Path) -> Any:
    """Writes a config; rows are those of a global batch, over so many models."""

    def config(name: str, kind: str, models: int = 1, **changes: Any) -> Path:
        rows = {"padded": 4, "packs": 2}[kind] // models
        values = {**settings[kind], "output_dir": str(folder / name), "per_device_train_batch_size": rows, **changes}
        path = folder / f"{name}.json"
        path.write_text(json.dumps(values), "utf-8")
        return path

    return config


@pytest.fixture(scope="module")
def alone(write: Any, folder: Path) -> Path:
    """Both runs in one process."""
    for kind in ("padded", "packs"):
        train(str(write(f"{kind}-alone", kind)))
    return folder


@pytest.fixture(scope="module")
def two(launch: Launch, write: Any, alone: Path) -> Path:
    """Both runs on two ranks that share the model, and two that go on from a checkpoint of two ranks and of one."""
    split = {"tensor_parallel_degree": 2}
    launch(
        TRAIN,
        write("padded-two", "padded", **split),
        write("packs-two", "packs", **split),
        write("resumed-two", "padded", **split, resume_from_checkpoint=str(alone / "padded-two/checkpoint-5")),
        write("resumed-from-one", "padded", **split, resume_from_checkpoint=str(alone / "padded-alone/checkpoint-5")),
    )
    return alone


@pytest.fixture(scope="module")
def four(launch: Launch, write: Any, alone: Path) -> Path:
    """Four ranks, two of which share a model: beside sharding stage 1, and beside data parallelism."""
    split = {"tensor_parallel_degree": 2}
    launch(
        TRAIN,
        write("padded-stage1", "padded", models=2, **split, sharding="stage1"),
        write("packs-data", "packs", models=2, **split),
        ranks=4,
    )
    return alone


def logged(run: Path, key: str) -> list[float]:
    return [entry[key] for entry in json.loads((run / "trainer_log.json").read_text("utf-8")) if key in entry]


def check_same_training(one: Path, other: Path) -> None:
    losses, others = logged(one, "loss"), logged(other, "loss")
    assert len(losses) == STEPS
    np.testing.assert_allclose(others, losses, rtol=CLOSE)
    norms = json.loads((one / "seen-0.json").read_text("utf-8"))["norms"]
    np.testing.assert_allclose(logged(other, "grad_norm"), norms, rtol=CLOSE_NORMS)
    np.testing.assert_allclose(logged(other, "eval_loss"), logged(one, "eval_loss"), rtol=CLOSE)
    check_same_weights(one, other)


def check_same_weights(one: Path, other: Path) -> None:
    weights, others = (load_file(run / "model.safetensors") for run in (one, other))
    assert len(weights) > 30 and set(weights) == set(others)
    far = {name: distance(weights[name], others[name]) for name in weights}
    assert {name: value for name, value in far.items() if value > CLOSE} == {}


def distance(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.linalg.norm(one - other) / max(np.linalg.norm(one), 1e-3))


def held(run: Path) -> list[Run]:
    return [json.loads(file.read_text("utf-8")) for file in sorted(run.glob("rank-*.json"))]


@pytest.mark.parametrize("kind", ["padded", "packs"])
def test_the_run_that_others_are_compared_with_has_trained_and_clipped(
    alone: Path, settings: dict[str, Run], kind: str
) -> None:
    before = load_file(Path(settings[kind]["model_name_or_path"]) / "model.safetensors")
    after = load_file(alone / f"{kind}-alone" / "model.safetensors")
    moved = sum(distance(before[name], after[name]) > 100 * CLOSE for name in before)
    assert moved > 0.8 * len(before)
    seen = json.loads((alone / f"{kind}-alone" / "seen-0.json").read_text("utf-8"))
    assert len(seen["norms"]) == STEPS and min(seen["norms"]) > CLIP
    assert set().union(*seen["shows"]) == {"image"} | ({"pack"} if kind == "packs" else set())


@pytest.mark.parametrize("kind", ["padded", "packs"])
def test_two_ranks_that_share_a_model_train_it_as_one_process_does(two: Path, kind: str) -> None:
    check_same_training(two / f"{kind}-alone", two / f"{kind}-two")


@pytest.mark.parametrize(("kind", "beside", "groups"), [("padded", "stage1", [2, 2, 1]), ("packs", "data", [2, 1, 2])])
def test_four_ranks_with_two_models_train_as_one_process_does(
    four: Path, kind: str, beside: str, groups: list[int]
) -> None:
    run = four / f"{kind}-{beside}"
    check_same_training(four / f"{kind}-alone", run)
    assert [rank["groups"] for rank in held(run)] == [groups] * 4


@pytest.mark.parametrize("run", ["padded-two", "packs-two", "padded-stage1", "packs-data"])
def test_what_ranks_hold_alike_stays_alike_bit_by_bit_and_what_is_split_differs(
    two: Path, four: Path, run: str
) -> None:
    ranks = held(two / run)
    assert len(ranks) == (2 if run.endswith("two") else 4)
    first, second = ranks[:2]
    assert len(first["whole"]) > 10 and len(first["split"]) > 10
    assert all(rank["whole"] == first["whole"] for rank in ranks)
    # Biases that nothing has moved are zero on both.
    assert [name for name in first["split"] if first["split"][name] == second["split"][name]] == []
    assert [rank["split"] for rank in ranks[2:]] == [first["split"], second["split"]][: len(ranks) - 2]


def test_a_run_on_two_ranks_goes_on_bit_by_bit(two: Path) -> None:
    whole, resumed = (load_file(two / name / "model.safetensors") for name in ("padded-two", "resumed-two"))
    assert len(whole) > 30 and [name for name in whole if whole[name].tobytes() != resumed[name].tobytes()] == []


def test_a_checkpoint_of_one_process_is_gone_on_from_by_two_ranks_that_share_the_model(two: Path) -> None:
    check_same_weights(two / "padded-alone", two / "resumed-from-one")


def test_a_checkpoint_of_two_ranks_is_gone_on_from_by_one_process(two: Path, write: Any) -> None:
    checkpoint = two / "padded-two" / f"checkpoint-{SAVED_AT}"
    # What both ranks have of the optimizer is written once, joined.
    assert len(list(checkpoint.glob("optimizer-*"))) == 1 and len(list(checkpoint.glob("random_state-*"))) == 2
    config = write("resumed-alone", "padded", resume_from_checkpoint=str(checkpoint))
    supervised_finetune.main([str(config)])
    check_same_weights(two / "padded-alone", two / "resumed-alone")


@pytest.mark.parametrize("run", ["padded-two", "packs-two"])
def test_one_process_answers_with_the_saved_model_what_the_ranks_answered_together(two: Path, run: str) -> None:
    answers = [rank["answer"] for rank in held(two / run)]
    assert len(answers) == 2 and all(len(each) == len(PROMPT) + NEW_TOKENS for each in answers)
    assert answers == [answer(AutoModelMIX.from_pretrained(two / run))] * 2


def test_the_loss_of_a_split_vocabulary_is_the_plain_one_with_its_gradients(checked: list[str]) -> None:
    assert ["the split ops are right" in text for text in checked] == [True, True]
