"""run_predict.py: what it prints and what it draws."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from PIL import Image, ImageChops

from paddlemix.examples.qwen2_vl import run_predict

RAW = (
    "<|object_ref_start|>红色的圆<|object_ref_end|><|box_start|>(100,100),(500,500)<|box_end|>"
    "<|object_ref_start|>star<|object_ref_end|><|box_start|>(600,600),(900,900)<|box_end|>"
)


def run(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", ["run_predict.py", *map(str, words)])
    run_predict.main()


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "图片.png"
    Image.new("RGB", (400, 200), "grey").save(path)
    return path


def test_an_untrained_model_answers_without_an_error_and_leaves_a_picture(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tiny_checkpoint: Path,
    picture: Path,
    tmp_path: Path,
) -> None:
    words = ["--model_name_or_path", tiny_checkpoint, "--input_image", picture, "--output_dir", tmp_path / "out"]
    run(monkeypatch, *words, "--prompt", "找出红色的圆", "--dtype", "float32", "--max_new_tokens", 3)
    assert "answer:" in capsys.readouterr().out
    assert Image.open(tmp_path / "out" / "pred.jpg").size == (400, 200)


def test_every_box_of_the_answer_is_drawn_where_it_says(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tiny_checkpoint: Path,
    picture: Path,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(run_predict, "answer", lambda *_: [RAW])
    run(monkeypatch, "--model_name_or_path", tiny_checkpoint, "--input_image", picture, "--output_dir", tmp_path)
    printed = capsys.readouterr().out
    assert "2 boxes" in printed and RAW in printed and "<|" not in printed.split("raw:")[0]
    drawn = Image.open(tmp_path / "pred.jpg").convert("RGB")
    changed = (
        ImageChops.difference(drawn, Image.new("RGB", (400, 200), "grey")).convert("L").point(lambda v: 255 * (v > 60))
    )
    left, top, right, bottom = changed.getbbox()
    # The boxes span (40, 20)-(200, 100) and (240, 120)-(360, 180); labels may stand above them.
    assert left == pytest.approx(40, abs=4) and right == pytest.approx(360, abs=4)
    assert top <= 24 and bottom == pytest.approx(180, abs=4)
    assert changed.getpixel((220, 110)) == 0


def test_visual_false_draws_nothing(
    monkeypatch: pytest.MonkeyPatch, tiny_checkpoint: Path, picture: Path, tmp_path: Path
) -> None:
    words = ["--model_name_or_path", tiny_checkpoint, "--input_image", picture, "--output_dir", tmp_path / "out"]
    run(monkeypatch, *words, "--visual", "False", "--max_new_tokens", 1)
    assert not (tmp_path / "out").exists()


def test_a_missing_picture_is_named(monkeypatch: pytest.MonkeyPatch, tiny_checkpoint: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere\.jpg does not exist"):
        run(monkeypatch, "--model_name_or_path", tiny_checkpoint, "--input_image", "nowhere.jpg")
