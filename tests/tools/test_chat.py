"""The terminal chat of a model that a command line names, whatever its family."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from paddlemix.contract import Processor
from paddlemix.conversation import Conversation
from paddlemix.conversation import Image as ImagePart
from paddlemix.generation import dialogue
from paddlemix.models.registry import find_family
from paddlemix.tools import chat

from ..families import FamilyCase, each_family

BOX = "<|object_ref_start|>star<|object_ref_end|><|box_start|>(100,100),(500,500)<|box_end|>"


def talk(
    monkeypatch: pytest.MonkeyPatch,
    checkpoint: Path,
    output_dir: Path,
    *lines: str,
    main: Callable[[], None] = chat.main,
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join([*lines, ""])))
    words = ["--model_name_or_path", checkpoint, "--output_dir", output_dir, "--max_new_tokens", 3]
    monkeypatch.setattr(sys, "argv", ["chat.py", *map(str, words)])
    main()


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{name}.png" for name in ("first", "second")]
    for path, size in zip(paths, [(400, 200), (100, 100)], strict=True):
        Image.new("RGB", size, "grey").save(path)
    return paths


@each_family
def test_every_familys_script_chats_about_images_and_videos_that_are_shown_at_any_turn(
    case: FamilyCase,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
    images: list[Path],
    tmp_path: Path,
) -> None:
    first, second = images
    folder = case.folder(request)
    script = import_module(f"paddlemix.examples.{find_family(folder).package.rpartition('.')[2]}.chat_demo")
    monkeypatch.setenv("VIDEO_MAX_PIXELS", "3136")
    lines = [
        "你好",
        f"/image {first}",
        "What is it?",
        f"/video {first} {first}",
        "Sure?",
        f"/image {second}",
        "And this?",
    ]
    talk(monkeypatch, folder, tmp_path / "out", *lines, "clear", f"/image {second}", "Again?", main=script.main)
    shown = capsys.readouterr().out
    assert shown.count("Picture 1 is shown") == 2 and shown.count("Picture 2 is shown") == 1
    reads_videos = case.model_type != "qwen"
    assert ("Video 1 is shown" in shown) == reads_videos
    errors = [] if reads_videos else [f"error: the video {first} cannot be shown: Qwen-VL reads images only."]
    assert [line.removeprefix("you> ") for line in shown.splitlines() if "error:" in line] == errors
    assert shown.endswith("Goodbye.\n")


def test_qwen2_5_vl_is_given_its_boxes_back_as_it_wrote_them_and_they_are_drawn(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tiny_qwen2_5_vl: Path,
    images: list[Path],
    tmp_path: Path,
) -> None:
    answer = '```json\n[\n\t{"bbox_2d": [10, 10, 50, 50], "label": "star <|im_end|>"}\n]\n```'
    prompts: list[str] = []

    def say(model: object, processor: Processor, question: Conversation, config: object) -> Iterator[str]:
        prompts.append(processor.decode(processor.encode_prompt(question).input_ids))
        return iter([answer])

    monkeypatch.setattr(dialogue, "stream_answer", say)
    talk(monkeypatch, tiny_qwen2_5_vl, tmp_path / "out", f"/image {images[0]}", "Where?", "Sure?")
    assert f"<|im_start|>assistant\n{answer}<|im_end|>\n<|im_start|>user\nSure?<|im_end|>" in prompts[1]
    drawn = np.asarray(Image.open(tmp_path / "out" / "chat_1.jpg"))
    assert drawn.shape == (200, 400, 3) and np.ptp(drawn) > 60
    assert "chat_1.jpg: the image with the boxes of this answer" in capsys.readouterr().out


def test_qwen2_vl_is_asked_with_what_was_said_before_and_its_boxes_are_drawn(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tiny_checkpoint: Path,
    images: list[Path],
    tmp_path: Path,
) -> None:
    asked: list[Conversation] = []

    def say(model: object, processor: object, question: Conversation, config: object) -> Iterator[str]:
        asked.append(question)
        return iter([BOX[:30], BOX[30:]])

    monkeypatch.setattr(dialogue, "stream_answer", say)
    lines = [f"/image {images[0]}", "Where?", f"/image {images[1]}", "And here?", "clear", "你好"]
    talk(monkeypatch, tiny_checkpoint, tmp_path / "out", *lines)
    assert [len(one.turns) for one in asked] == [1, 3, 1]
    assert [part.path for part in asked[1].parts if isinstance(part, ImagePart)] == [str(path) for path in images]
    files = [tmp_path / "out" / f"chat_{number}.jpg" for number in (1, 2)]
    assert sorted((tmp_path / "out").iterdir()) == files
    assert [Image.open(path).size for path in files] == [(400, 200), (100, 100)]
    assert all(np.ptp(np.asarray(Image.open(path))) > 60 for path in files)
    assert f"{BOX}\n{files[0]}: the image with the boxes of this answer\n" in capsys.readouterr().out


def test_a_model_has_to_be_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["chat.py"])
    with pytest.raises(SystemExit):
        chat.main()
    assert "--model_name_or_path" in capsys.readouterr().err
