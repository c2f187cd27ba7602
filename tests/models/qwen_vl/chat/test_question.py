"""A single question to Qwen-VL, with a model that notes what it was asked."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from paddlemix.generation import GenerationConfig
from paddlemix.models.qwen_vl.chat.question import ChatQuestion, pieces


class Model:
    asked: tuple[Any, ...]

    def chat_stream(self, tokenizer: Any, query: str, **settings: Any) -> Iterator[str]:
        self.asked = (tokenizer, query, settings)
        return iter(["A", "A", "A bus", "A bus."])


def test_images_stand_before_the_prompt_numbered_and_a_line_each():
    model, processor = Model(), SimpleNamespace(tokenizer="tokenizer", image_processor="squares")
    question, config = ChatQuestion(["a.jpg", "b.jpg"], [], "What has changed?"), GenerationConfig(seed=7)
    assert list(question.answer(model, processor, config)) == ["A", " bus", "."]
    query = "Picture 1: <img>a.jpg</img>\nPicture 2: <img>b.jpg</img>\nWhat has changed?"
    assert model.asked == ("tokenizer", query, {"generation_config": config, "image_processor": "squares"})
    assert question.images == ["a.jpg", "b.jpg"]


def test_images_that_the_prompt_shows_itself_count_too():
    assert ChatQuestion(["a.jpg"], [], "<img>b.jpg</img>?").images == ["a.jpg", "b.jpg"]
    assert ChatQuestion([], [], "你好").images == []
    with pytest.raises(ValueError, match="is not closed"):
        ChatQuestion([], [], "<img>b.jpg?")


def test_pieces_are_what_each_text_adds():
    assert list(pieces(iter(["", "图", "图", "图中"]))) == ["图", "中"]
