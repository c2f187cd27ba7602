"""Questions to Qwen-VL, with a model that is not run: what it is asked is noted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from paddlemix.conversation import Image, Text, Video
from paddlemix.generation import GenerationConfig
from paddlemix.generation.dialogue import Exchange
from paddlemix.models.qwen_vl.chat import dialogue as dialogue_module
from paddlemix.models.qwen_vl.chat.dialogue import QwenVLDialogue, pieces, query_text
from paddlemix.models.qwen_vl.images import QwenVLImageProcessor
from paddlemix.models.qwen_vl.processing import QwenVLProcessor


def image_paths(images: list[str], words: str) -> list[str]:
    turn = QwenVLDialogue.question([*map(Image, images), Text(words)])
    return [part.path for part in turn.parts if isinstance(part, Image)]


def test_a_question_is_asked_after_the_history_in_the_form_of_model_chat(
    monkeypatch: pytest.MonkeyPatch, qwen_tokenizer: Any
) -> None:
    asked = []

    def say(*given: Any, **settings: Any) -> Iterator[str]:
        asked.append((given, settings))
        return iter(["A", "A", "A bus", "A bus."])

    monkeypatch.setattr(dialogue_module, "chat_stream", say)
    processor, config = QwenVLProcessor(qwen_tokenizer, QwenVLImageProcessor(28)), GenerationConfig(seed=7)
    dialogue = QwenVLDialogue("model", processor, config)
    first = dialogue.question([Image("a.jpg"), Text("What?")])
    then = dialogue.question([Image("b.jpg"), Text("And now?")], [first])
    assert list(dialogue.reply([Exchange(first, "<ref>a star</ref>")], then)) == ["A", " bus", "."]
    query, before = "Picture 2: <img>b.jpg</img>\nAnd now?", "Picture 1: <img>a.jpg</img>\nWhat?"
    settings = {"system": None, "generation_config": config, "image_processor": processor.image_processor}
    settings["image_opening"] = processor.image_opening
    assert asked == [(("model", qwen_tokenizer, query, [(before, "<ref>a star</ref>")]), settings)]


def test_images_stand_before_the_prompt_numbered_and_a_line_each() -> None:
    query = query_text(QwenVLDialogue.question([Image("a.jpg"), Image("b.jpg"), Text("What has changed?")]))
    assert query == "Picture 1: <img>a.jpg</img>\nPicture 2: <img>b.jpg</img>\nWhat has changed?"
    assert image_paths(["a.jpg", "b.jpg"], "What has changed?") == ["a.jpg", "b.jpg"]


def test_images_that_the_prompt_shows_itself_count_too() -> None:
    assert image_paths(["a.jpg"], "<img>b.jpg</img>?") == ["a.jpg", "b.jpg"]
    assert image_paths([], "你好") == []
    with pytest.raises(ValueError, match="is not closed"):
        image_paths([], "<img>b.jpg?")


def test_a_video_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"the video a\.mp4 cannot be shown: Qwen-VL reads images only"):
        QwenVLDialogue.question([Video("a.mp4"), Text("?")])


def test_pieces_are_what_each_text_adds() -> None:
    assert list(pieces(iter(["", "图", "图", "图中"]))) == ["图", "中"]
