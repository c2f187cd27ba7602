"""run_predict.py of every family: what it prints and what it draws."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageChops

from paddlemix.conversation import Conversation, Text
from paddlemix.examples.qwen2_vl import run_predict
from paddlemix.generation import dialogue
from paddlemix.tools import predict
from paddlemix.tools.precision import usable_dtype

RAW = (
    "<|object_ref_start|>红色的圆<|object_ref_end|><|box_start|>(100,100),(500,500)<|box_end|>"
    "<|object_ref_start|>star<|object_ref_end|><|box_start|>(600,600),(900,900)<|box_end|>"
)


def run(monkeypatch: pytest.MonkeyPatch, *words: object, script: predict.Script = run_predict.SCRIPT) -> None:
    monkeypatch.setattr(sys, "argv", ["run_predict.py", *map(str, words)])
    predict.main(script)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "图片.png"
    Image.new("RGB", (400, 200), "grey").save(path)
    return path


def test_an_untrained_model_answers_without_an_error_and_leaves_an_image(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tiny_checkpoint: Path,
    image: Path,
    tmp_path: Path,
) -> None:
    words = ["--model_name_or_path", tiny_checkpoint, "--input_image", image, "--output_dir", tmp_path / "out"]
    run(monkeypatch, *words, "--prompt", "找出红色的圆", "--dtype", "float32", "--max_new_tokens", 3)
    assert "answer:" in capsys.readouterr().out
    assert Image.open(tmp_path / "out" / "pred.jpg").size == (400, 200)


def test_every_box_of_the_answer_is_drawn_where_it_says(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tiny_checkpoint: Path,
    image: Path,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(dialogue, "stream_answer", lambda *_: iter([RAW[:30], RAW[30:]]))
    run(monkeypatch, "--model_name_or_path", tiny_checkpoint, "--input_image", image, "--output_dir", tmp_path)
    printed = capsys.readouterr().out
    assert "2 boxes" in printed and f"raw:    {RAW}\n" in printed and "<|" not in printed.split("answer:")[1]
    drawn = Image.open(tmp_path / "pred.jpg").convert("RGB")
    changed = (
        ImageChops.difference(drawn, Image.new("RGB", (400, 200), "grey")).convert("L").point(lambda v: 255 * (v > 60))
    )
    left, top, right, bottom = changed.getbbox()
    # The boxes span (40, 20)-(200, 100) and (240, 120)-(360, 180); labels may stand above them.
    assert left == pytest.approx(40, abs=4) and right == pytest.approx(360, abs=4)
    assert top <= 24 and bottom == pytest.approx(180, abs=4)
    assert changed.getpixel((220, 110)) == 0


def test_points_of_the_answer_are_drawn_and_counted(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tiny_checkpoint: Path,
    image: Path,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(dialogue, "stream_answer", lambda *_: iter(["click(<|box_start|>(500,250)<|box_end|>)"]))
    run(monkeypatch, "--model_name_or_path", tiny_checkpoint, "--input_image", image, "--output_dir", tmp_path)
    printed = capsys.readouterr().out
    assert "answer: click((500,250))" in printed and "the image with 0 boxes and 1 points" in printed
    drawn = Image.open(tmp_path / "pred.jpg").convert("RGB")
    red, green, _ = drawn.getpixel((200, 50))
    assert red > green + 100 and drawn.getpixel((100, 100)) == pytest.approx((128, 128, 128), abs=3)


def test_visual_false_draws_nothing(
    monkeypatch: pytest.MonkeyPatch, tiny_checkpoint: Path, image: Path, tmp_path: Path
) -> None:
    words = ["--model_name_or_path", tiny_checkpoint, "--input_image", image, "--output_dir", tmp_path / "out"]
    run(monkeypatch, *words, "--visual", "False", "--max_new_tokens", 1)
    assert not (tmp_path / "out").exists()


def test_a_missing_image_is_named(monkeypatch: pytest.MonkeyPatch, tiny_checkpoint: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere\.jpg does not exist"):
        run(monkeypatch, "--model_name_or_path", tiny_checkpoint, "--input_image", "nowhere.jpg")


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{name}.png" for name in ("before", "between", "after")]
    for path, size in zip(paths, [(400, 200), (300, 300), (200, 400)], strict=True):
        Image.new("RGB", size, "grey").save(path)
    return paths


def boxed(name: str) -> str:
    return f"<|object_ref_start|>{name}<|object_ref_end|><|box_start|>(100,100),(500,500)<|box_end|>"


@pytest.mark.parametrize(
    ("answer", "drawn"),
    [
        (f"{boxed('a')}{boxed('b')}", [3]),
        (f"In Picture 1 {boxed('a')}, in image 2 nothing.", [1]),
        (f"图2中{boxed('a')}；图片1中{boxed('b')}", [1, 2]),
        (f"{boxed('the star in Picture 2')} and {boxed('a')}", [2]),
        (f"Picture 7 {boxed('a')}", [3]),
    ],
)
def test_a_box_is_drawn_on_the_image_mentioned_before_it_or_else_on_the_last(
    monkeypatch: pytest.MonkeyPatch,
    tiny_checkpoint: Path,
    images: list[Path],
    tmp_path: Path,
    answer: str,
    drawn: list[int],
) -> None:
    seen = []

    def say(model: object, processor: object, question: Conversation, config: object) -> Iterator[str]:
        seen.append("".join(part.text if isinstance(part, Text) else "<image>" for part in question.parts))
        return iter([answer])

    monkeypatch.setattr(dialogue, "stream_answer", say)
    words = ["--model_name_or_path", tiny_checkpoint, "--input_image", *images, "--prompt", "?"]
    run(monkeypatch, *words, "--output_dir", tmp_path / "out")
    assert seen == ["Picture 1: <image>Picture 2: <image>Picture 3: <image>?"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["pred_1.jpg", "pred_2.jpg", "pred_3.jpg"]
    changed = [
        number
        for number, path in enumerate(images, 1)
        if np.ptp(np.asarray(Image.open(tmp_path / "out" / f"pred_{number}.jpg"))) > 60
    ]
    assert changed == drawn
    for number, path in enumerate(images, 1):
        assert Image.open(tmp_path / "out" / f"pred_{number}.jpg").size == Image.open(path).size


def test_a_video_of_frame_files_is_answered_and_nothing_is_drawn(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny_checkpoint: Path, tmp_path: Path
) -> None:
    frames = [tmp_path / f"{number}.png" for number in range(3)]
    for number, path in enumerate(frames):
        Image.new("RGB", (64, 48), (80 * number, 0, 0)).save(path)
    monkeypatch.setenv("VIDEO_MAX_PIXELS", "3136")
    words = ["--model_name_or_path", tiny_checkpoint, "--input_video", *frames, "--output_dir", tmp_path / "out"]
    run(monkeypatch, *words, "--prompt", "?", "--max_new_tokens", 2)
    assert "answer:" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_a_video_file_is_answered(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny_checkpoint: Path, tmp_path: Path
) -> None:
    cv2 = pytest.importorskip("cv2", reason="OpenCV writes this video")
    writer = cv2.VideoWriter(str(tmp_path / "a.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 5, (64, 48))
    for number in range(9):
        writer.write(np.full((48, 64, 3), 20 * number, np.uint8))
    writer.release()
    monkeypatch.setenv("VIDEO_MAX_PIXELS", "3136")
    words = ["--model_name_or_path", tiny_checkpoint, "--input_video", tmp_path / "a.avi", "--max_new_tokens", 2]
    run(monkeypatch, *words)
    assert "answer:" in capsys.readouterr().out


def test_the_checkpoints_generation_settings_hold_unless_a_flag_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, tiny_checkpoint: Path, image: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_checkpoint, folder)
    settings = {"do_sample": True, "temperature": 0.5, "top_k": 3, "max_new_tokens": 7}
    (folder / "generation_config.json").write_text(json.dumps(settings))
    seen = []
    monkeypatch.setattr(dialogue, "stream_answer", lambda *given: seen.append(given[-1]) or iter(["."]))
    words = ["--model_name_or_path", folder, "--input_image", image, "--visual", "no"]
    run(monkeypatch, *words)
    run(monkeypatch, *words, "--temperature", 0, "--max_new_tokens", 5, "--seed", 9)
    assert [(one.temperature, one.top_k, one.max_new_tokens, one.seed) for one in seen] == [
        (0.5, 3, 7, 1234),
        (0, 3, 5, 9),
    ]


@pytest.mark.parametrize("shown", [[], ["--input_image", "a.jpg", "--input_video", "a.mp4"]])
def test_images_or_a_video_must_be_given_and_not_both(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], shown: list[str]
) -> None:
    with pytest.raises(SystemExit):
        run(monkeypatch, "--model_name_or_path", "x", *shown)
    assert "--input_video" in capsys.readouterr().err


def test_a_family_without_videos_answers_to_a_text_alone_and_has_a_model_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny_checkpoint: Path, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_checkpoint, tmp_path / "owner" / "model")
    script = predict.Script("Asks.", default_model="owner/model")
    run(monkeypatch, "--prompt", "你好", "--max_new_tokens", 2, script=script)
    assert "answer:" in capsys.readouterr().out
    assert not (tmp_path / "output").exists()
    with pytest.raises(SystemExit):
        run(monkeypatch, "--input_video", "a.mp4", script=script)
    assert "unrecognized arguments: --input_video" in capsys.readouterr().err


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_without_a_gpu_is_refused_before_anything_is_loaded(
    monkeypatch: pytest.MonkeyPatch, image: Path, dtype: str
) -> None:
    monkeypatch.setattr("paddlemix.tools.precision.gpu_is_usable", lambda: False)
    words = ["--model_name_or_path", "nowhere", "--input_image", image, "--dtype", dtype]
    with pytest.raises(ValueError, match=f"--dtype {dtype} needs a GPU.*Take --dtype float32"):
        run(monkeypatch, *words)


@pytest.mark.parametrize(("asked", "usable"), [(None, "float16"), ("float16", "float16"), ("float32", "float32")])
def test_a_card_before_ampere_answers_in_float16(monkeypatch, asked, usable):
    monkeypatch.setattr("paddlemix.tools.precision.gpu_is_usable", lambda: True)
    monkeypatch.setattr("paddlemix.tools.precision.is_older_than_ampere", lambda: True)
    assert usable_dtype(asked) == usable
    with pytest.raises(ValueError, match="compute capability 8.0.*Take --dtype float16"):
        usable_dtype("bfloat16")


@pytest.mark.parametrize(
    ("has_gpu", "asked", "usable"),
    [(True, None, "bfloat16"), (False, None, "float32"), (True, "float16", "float16"), (False, "float32", "float32")],
)
def test_the_precision_is_the_one_asked_for_or_suits_the_machine(monkeypatch, has_gpu, asked, usable):
    monkeypatch.setattr("paddlemix.tools.precision.gpu_is_usable", lambda: has_gpu)
    assert usable_dtype(asked) == usable
