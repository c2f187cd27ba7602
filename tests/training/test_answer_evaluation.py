"""Evaluation while training by what the model writes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import paddle
import pytest
from safetensors.numpy import load_file

from paddlemix.auto import AutoModelMIX, AutoProcessorMIX
from paddlemix.configuration import file as config_file
from paddlemix.configuration.problems import ConfigError
from paddlemix.configuration.rules import CONSISTENCY
from paddlemix.datasets.mix_dataset import DatasetSpec, MixDataset
from paddlemix.evaluation.evaluate import evaluate_model
from paddlemix.evaluation.score_names import ALL_SCORES
from paddlemix.generation import GenerationConfig
from paddlemix.tools import supervised_finetune
from paddlemix.training import answer_evaluation
from paddlemix.training.answer_evaluation import AnswerEvaluation, flat_metrics

TOOL = Path(__file__).parents[2] / "paddlemix" / "tools" / "supervised_finetune.py"
NEW_TOKENS, QUESTIONS, RIGHT = 4, 7, 5
KEYS = {"predict_with_generate": True, "max_new_tokens": NEW_TOKENS, "per_device_eval_batch_size": 2}


@pytest.fixture(scope="module")
def sets(tiny_qwen_vl: Path, shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    """Questions to which most right answers are what the untrained model says, and questions that ask for boxes."""
    folder = tmp_path_factory.mktemp("records")
    images = sorted((shapes / "pictures" / "train").iterdir())
    records = [
        {"image": str(image), "question": f"What is shown in number {place}?", "answer": "none of it"}
        for place, image in enumerate(images)
    ]
    (folder / "asked.json").write_text(json.dumps(records), "utf-8")
    said = evaluate(tiny_qwen_vl, [DatasetSpec("vqa_dataset", str(folder / "asked.json"))])[1]
    known = [{**record, "answer": one.text} for record, one in zip(records, said, strict=True) if one.text.strip()]
    records = [*known[:RIGHT], *records[: QUESTIONS - RIGHT]]
    assert len(known) >= RIGHT and len(records) == QUESTIONS
    (folder / "words.json").write_text(json.dumps(records), "utf-8")
    return [
        {"name": "vqa_dataset", "data_files": str(folder / "words.json")},
        {"name": "chatml_dataset", "data_files": str(shapes / "eval_grounding.json")},
    ]


def load_sets(checkpoint: Path, sets: list[Any]) -> MixDataset:
    specs = [one if isinstance(one, DatasetSpec) else DatasetSpec(**one) for one in sets]
    return MixDataset.load(specs, AutoProcessorMIX.from_pretrained(checkpoint))


def evaluate(checkpoint: Path, sets: list[Any]):
    """What evaluate.py finds."""
    processor, config = AutoProcessorMIX.from_pretrained(checkpoint), GenerationConfig(max_new_tokens=NEW_TOKENS)
    return evaluate_model(
        AutoModelMIX.from_pretrained(checkpoint), processor, load_sets(checkpoint, sets), config, batch_size=3
    )


def answers_of(checkpoint: Path, sets: list[Any], **more: Any) -> AnswerEvaluation:
    processor = AutoProcessorMIX.from_pretrained(checkpoint)
    mix = load_sets(checkpoint, sets)
    return AnswerEvaluation(mix, processor, max_new_tokens=NEW_TOKENS, batch_size=2, **more)


@pytest.fixture
def run(tmp_path: Path, tiny_qwen_vl: Path, shapes: Path, sets: list[dict[str, str]]) -> Callable[..., Path]:
    """Train for a few steps that hardly move the weights, evaluating and saving after each; the output folder."""

    def write(out: str, **changes: Any) -> Path:
        train = [{"name": "vqa_dataset", "data_files": str(shapes / "train_vqa.json")}]
        config = {
            "model_name_or_path": str(tiny_qwen_vl),
            "dataset": {"train": train, "eval": sets},
            "output_dir": str(tmp_path / out),
            "do_train": True,
            "max_steps": 4,
            "per_device_train_batch_size": 2,
            "learning_rate": 1e-9,
            "save_steps": 1,
            "eval_steps": 1,
            "evaluation_strategy": "steps",
            "report_to": "none",
            "skip_memory_metrics": True,
            **KEYS,
            **changes,
        }
        (tmp_path / "config.json").write_text(json.dumps(config))
        return tmp_path / "config.json"

    def train(out: str, **changes: Any) -> Path:
        supervised_finetune.run(config_file.load_config(str(write(out, **changes)), has_gpu=False))
        return tmp_path / out

    train.write = write
    return train


def evaluations(out: Path) -> list[dict[str, float]]:
    """While training, and once more at the end."""
    log = json.loads((out / "trainer_log.json").read_text("utf-8"))
    return [entry for entry in log if "eval_loss" in entry]


def test_scores_are_those_of_evaluate_py_under_flat_names(tiny_qwen_vl: Path, sets: list[dict[str, str]]) -> None:
    report, _ = evaluate(tiny_qwen_vl, sets)
    model = AutoModelMIX.from_pretrained(tiny_qwen_vl)
    metrics = answers_of(tiny_qwen_vl, sets).metrics(model)
    assert metrics == flat_metrics(report)
    assert metrics["vqa_exact_match"] == report["vqa"]["exact_match"] == RIGHT / QUESTIONS
    assert metrics["grounding_accuracy@0.5"] == report["grounding"]["grounding_accuracy@0.5"]
    assert metrics["predictions"] == report["predictions"] == QUESTIONS + report["grounding"]["questions"]


def test_words_and_what_is_not_known_are_no_metrics() -> None:
    report = {"predictions": 2, "caption": {"cider": None, "bleu_1": 0.5, "signature": "x", "by": {"one": {"n": 1}}}}
    assert flat_metrics(report) == {"predictions": 2.0, "caption_bleu_1": 0.5, "caption_by_one_n": 1.0}


@pytest.mark.parametrize("ranks", [2, 3])
def test_shares_of_several_ranks_are_scored_together_and_in_order(
    tiny_qwen_vl: Path, sets: list[dict[str, str]], ranks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, answers = AutoModelMIX.from_pretrained(tiny_qwen_vl), answers_of(tiny_qwen_vl, sets)
    told: list[str] = []

    def tell(text: str) -> list[str]:
        told.append(text)
        raise InterruptedError

    monkeypatch.setattr(answer_evaluation, "share", tell)
    for rank in range(ranks):
        with pytest.raises(InterruptedError):
            answers.metrics(model, rank=rank, ranks=ranks)
    scored: list[Any] = []
    monkeypatch.setattr(answer_evaluation, "score", lambda predictions: scored.extend(predictions) or {})
    # What tensor-parallel neighbours of a rank say is what it says.
    monkeypatch.setattr(answer_evaluation, "share", lambda text: [*told, *told])
    answers.metrics(model, rank=0, ranks=ranks)
    assert scored == evaluate(tiny_qwen_vl, sets)[1]


def test_a_limit_asks_the_first_questions_alone(tiny_qwen_vl: Path, sets: list[dict[str, str]]) -> None:
    model = AutoModelMIX.from_pretrained(tiny_qwen_vl)
    metrics = answers_of(tiny_qwen_vl, sets, limit=QUESTIONS + 1).metrics(model)
    assert metrics["vqa_questions"] == QUESTIONS and metrics["grounding_questions"] == 1
    assert answers_of(tiny_qwen_vl, sets, limit=RIGHT).metrics(model)["vqa_exact_match"] == 1.0


def test_memory_does_not_grow_with_the_number_of_answers(
    tiny_qwen_vl: Path, sets: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[int] = []
    model, answers = AutoModelMIX.from_pretrained(tiny_qwen_vl), answers_of(tiny_qwen_vl, sets)
    encode = type(answers._processor).encode_prompt

    def watched(processor: Any, question: Any) -> Any:
        held.append(paddle.base.core.host_memory_stat_current_value("Allocated", 0))
        return encode(processor, question)

    monkeypatch.setattr(type(answers._processor), "encode_prompt", watched)
    answers.metrics(model)
    weights = sum(parameter.size * 4 for parameter in model.parameters())
    assert len(held) > QUESTIONS and set(held) == {held[0]} and held[0] >= weights


def test_training_is_the_same_bit_by_bit_and_metrics_are_logged(run: Callable[..., Path]) -> None:
    from visualdl import LogReader

    keys = {"learning_rate": 5e-3, "lora": True, "lora_dropout": 0.5}
    plain = run("plain", **keys, predict_with_generate=False, max_new_tokens=None)
    asked = run("asked", **keys, report_to="visualdl")
    first, second = (load_file(out / "adapter_model.safetensors") for out in (plain, asked))
    assert len(first) == 20 and [name for name in first if first[name].tobytes() != second[name].tobytes()] == []
    assert [entry["step"] for entry in evaluations(asked)] == [1, 2, 3, 4, 4]
    assert all("eval_vqa_exact_match" in entry for entry in evaluations(asked))
    assert not any("eval_vqa_exact_match" in entry for entry in evaluations(plain))
    curves = LogReader(file_path=str(next(asked.glob("runs/*/vdlrecords*")))).get_tags()["scalar"]
    assert {"eval/loss", "eval/vqa_exact_match", "eval/grounding_accuracy@0.5"} <= set(curves)


def test_a_score_chooses_the_best_checkpoint_and_stops_training_also_after_a_resume(run: Callable[..., Path]) -> None:
    keys = {
        "load_best_model_at_end": True,
        "metric_for_best_model": "vqa_exact_match",
        "early_stopping_patience": 2,
    }
    whole = run("whole", **keys)
    # No evaluation is better than the first.
    assert [entry["eval_vqa_exact_match"] for entry in evaluations(whole)] == [RIGHT / QUESTIONS] * (3 + 1)
    assert sorted(path.name for path in whole.glob("checkpoint-*")) == [f"checkpoint-{step}" for step in (1, 2, 3)]
    best = load_file(whole / "checkpoint-1" / "model.safetensors")
    assert all((load_file(whole / "model.safetensors")[name] == tensor).all() for name, tensor in best.items())
    resumed = run("resumed", **keys, resume_from_checkpoint=str(whole / "checkpoint-2"))
    times = ("runtime", "per_second")
    first, second = (
        [{name: one for name, one in entry.items() if not name.endswith(times)} for entry in evaluations(out)]
        for out in (whole, resumed)
    )
    assert first == second


def test_a_score_that_the_records_do_not_give_is_refused_before_an_earlier_run_is_given_up(
    run: Callable[..., Path], tmp_path: Path
) -> None:
    whole = run("out", max_steps=1)
    with pytest.raises(ConfigError, match='"vqa_vqav2_accuracy", which the records .* one of .*vqa_exact_match'):
        run("out", overwrite_output_dir=True, metric_for_best_model="vqa_vqav2_accuracy")
    assert (whole / "checkpoint-1" / "model.safetensors").is_file() and (whole / "model.safetensors").is_file()


def test_scores_are_known_before_a_model_answers(tiny_qwen_vl: Path, sets: list[dict[str, str]]) -> None:
    answers = answers_of(tiny_qwen_vl, sets)
    given = answers.metrics(AutoModelMIX.from_pretrained(tiny_qwen_vl))
    assert answers.score_names() == [name for name in given if name in ALL_SCORES]
    assert {"vqa_exact_match", "grounding_mean_iou"} < set(answers.score_names()) < set(given)


def test_two_ranks_score_what_one_scores(run: Callable[..., Path], tmp_path: Path) -> None:
    alone = evaluations(run("alone", max_steps=1))
    config = run.write("both", max_steps=1)
    environment = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    environment |= {"OMP_NUM_THREADS": "1", "PADDLE_DISTRI_BACKEND": "gloo", "PYTHONPATH": str(TOOL.parents[2])}
    launcher = [sys.executable, "-m", "paddle.distributed.launch", "--nproc_per_node", "2"]
    command = [*launcher, "--log_dir", str(tmp_path / "log"), str(TOOL), str(config)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    logs = "\n".join(path.read_text("utf-8", "replace") for path in sorted((tmp_path / "log").glob("workerlog.*")))
    assert ended.returncode == 0, logs[-5000:]
    both = evaluations(tmp_path / "both")
    assert len(both) == len(alone) == 1 + 1 and both[0]["eval_vqa_exact_match"] == RIGHT / QUESTIONS
    scores = [name for name in alone[0] if name.startswith(("eval_vqa", "eval_grounding"))]
    assert len(scores) > 5 and [both[0][name] for name in scores] == [alone[0][name] for name in scores]


def test_stage_3_is_refused_because_ranks_would_wait_for_one_another() -> None:
    [rule] = [rule for rule in CONSISTENCY if rule.keys == ("predict_with_generate", "sharding")]
    values = {"predict_with_generate": True, "sharding": "stage3 offload"}
    assert rule.broken(values) and '`sharding` is "stage3 offload"' in rule.sentence.format_map(values)
    assert not rule.broken({**values, "sharding": "stage2"})
