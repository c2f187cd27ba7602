"""The evaluation tool on a tiny model."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from paddlemix.tools import evaluate


def run(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", ["evaluate.py", *map(str, words)])
    evaluate.main()


def sets(shapes: Path) -> str:
    names = {"grounding": "chatml_dataset", "vqa": "vqa_dataset", "caption": "coco_caption"}
    return json.dumps([{"name": name, "data_files": str(shapes / f"eval_{kind}.json")} for kind, name in names.items()])


def test_every_record_is_scored_in_its_section(
    monkeypatch: pytest.MonkeyPatch, tiny_checkpoint: Path, shapes: Path, tmp_path: Path
) -> None:
    output, predictions = tmp_path / "metrics.json", tmp_path / "predictions.json"
    words = ["--output", output, "--predictions", predictions, "--max_new_tokens", 4, "--batch_size", 3]
    run(monkeypatch, tiny_checkpoint, "--dataset", sets(shapes), *words)
    report = json.loads(output.read_text())
    assert (report["grounding"]["questions"], report["vqa"]["questions"], report["caption"]["captions"]) == (4, 4, 1)
    rows = json.loads(predictions.read_text())
    assert len(rows) == report["predictions"] == 9
    assert rows[0]["gold_boxes"] and rows[0]["source"].endswith("eval_grounding.json, record 0")


def test_a_config_names_model_and_sets(
    monkeypatch: pytest.MonkeyPatch, tiny_checkpoint: Path, shapes: Path, tmp_path: Path
) -> None:
    config = {
        "model_name_or_path": "unused",
        "dataset": {"eval": json.loads(sets(shapes))[1:2]},
        "output_dir": str(tiny_checkpoint),
        "do_eval": True,
        "min_pixels": 3136,
        "max_pixels": 3136,
    }
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    run(monkeypatch, path, "--output", tmp_path / "metrics.json", "--max_new_tokens", 2)
    assert json.loads((tmp_path / "metrics.json").read_text())["vqa"]["questions"] == 4


def test_without_any_set_the_error_says_what_to_give(monkeypatch: pytest.MonkeyPatch, tiny_checkpoint: Path) -> None:
    with pytest.raises(ValueError, match="--dataset"):
        run(monkeypatch, tiny_checkpoint)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[{", "Invalid JSON"),
        ('{"name": "vqa_dataset"}', "list"),
        ('[{"name": "vqa_dataset", "data_file": "a.json"}]', "0.data_file"),
        ('[{"name": "vqa_dataset", "data_files": 3}]', "0.data_files"),
    ],
)
def test_a_wrong_record_set_on_the_command_line_is_a_usage_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], text: str, named: str
) -> None:
    with pytest.raises(SystemExit):
        run(monkeypatch, "model", "--dataset", text)
    assert named in capsys.readouterr().err


def test_scores_do_not_go_into_the_hubs_cache(
    monkeypatch: pytest.MonkeyPatch, tiny_checkpoint: Path, shapes: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr("paddlemix.hub._from_hub", lambda *_: tiny_checkpoint)
    with pytest.raises(ValueError, match="Qwen/Tiny is no local folder .* give a file with --output"):
        run(monkeypatch, "Qwen/Tiny", "--dataset", sets(shapes))
    vqa = json.dumps(json.loads(sets(shapes))[1:2])
    run(monkeypatch, "Qwen/Tiny", "--dataset", vqa, "--output", tmp_path / "scores.json", "--max_new_tokens", 2)
    assert json.loads((tmp_path / "scores.json").read_text())["vqa"]["questions"] == 4
