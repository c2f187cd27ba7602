"""The terminal chat of a model that a command line names, whatever its family."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from paddlemix.conversation import Conversation
from paddlemix.conversation import Image as ImagePart
from paddlemix.generation import dialogue
from paddlemix.tools import chat

BOX = "<|object_ref_start|>star<|object_ref_end|><|box_start|>(100,100),(500,500)<|box_end|>"


def talk(monkeypatch: pytest.MonkeyPatch, checkpoint: Path, output_dir: Path, *lines: str) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join([*lines, ""])))
    words = ["--model_name_or_path", checkpoint, "--output_dir", output_dir, "--max_new_tokens", 3]
    monkeypatch.setattr(sys, "argv", ["chat.py", *map(str, words)])
    chat.main()


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{name}.png" for name in ("first", "second")]
    for path, size in zip(paths, [(400, 200), (100, 100)], strict=True):
        Image.new("RGB", size, "grey").save(path)
    return paths


@pytest.mark.parametrize("family", ["tiny_checkpoint", "tiny_qwen_vl"])
def test_every_family_chats_about_images_that_are_shown_at_any_turn(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
    images: list[Path],
    tmp_path: Path,
    family: str,
) -> None:
    first, second = images
    lines = ["你好", f"/image {first}", "What is it?", "Sure?", f"/image {second}", "And this?"]
    talk(monkeypatch, request.getfixturevalue(family), tmp_path / "out", *lines)
    shown = capsys.readouterr().out
    assert "Picture 1 is shown" in shown and "Picture 2 is shown" in shown
    assert "error:" not in shown and shown.endswith("Goodbye.\n")


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
