"""From conversations and raw answers to predictions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from paddlemix.auto import AutoProcessorMIX
from paddlemix.conversation import Box, Conversation, Image, Point, Quad, RecordId, Reference, Text, ToolCall, Turn
from paddlemix.evaluation import predict
from paddlemix.evaluation.report import score
from paddlemix.generation import GenerationConfig

BOX = "<|object_ref_start|>bus<|object_ref_end|><|box_start|>(100,200),(300,400)<|box_end|>"
CONFIG = GenerationConfig(max_new_tokens=4)


@pytest.fixture
def image(tmp_path: Path) -> Image:
    PIL.Image.new("RGB", (200, 100)).save(tmp_path / "a.png")
    return Image(str(tmp_path / "a.png"))


def chat(image: Image, index: int, *answer: Any, **options: Any) -> Conversation:
    turns = (Turn("user", (image, Text("Find it."))), Turn("assistant", answer))
    return Conversation(turns, RecordId("x.json", index), **options)


def predictions(
    monkeypatch: pytest.MonkeyPatch, checkpoint: Path, conversations: Sequence[Conversation], raw: Sequence[str]
) -> list[predict.Prediction]:
    """What `predict_set` makes of raw answers; no model is asked."""
    left = list(raw)
    monkeypatch.setattr(predict, "answer", lambda model, processor, questions, config: [left.pop(0) for _ in questions])
    processor = AutoProcessorMIX.from_pretrained(checkpoint)
    return list(predict.predict_set(None, processor, conversations, CONFIG, batch_size=2))


def test_boxes_are_in_pixels_of_the_original_image_on_both_sides(
    monkeypatch: pytest.MonkeyPatch, tiny_checkpoint: Path, image: Image
) -> None:
    gold = chat(image, 0, Reference("bus"), Box(100, 200, 300, 400, unit="thousandth"))
    [one] = predictions(monkeypatch, tiny_checkpoint, [gold], [BOX])
    assert one.boxes == one.gold_boxes == ((20.0, 20.0, 60.0, 40.0),)
    assert one.grounding and one.text == "bus(100,200),(300,400)"


def test_points_are_in_fractions_of_the_image_on_both_sides(
    monkeypatch: pytest.MonkeyPatch, tiny_checkpoint: Path, image: Image
) -> None:
    gold = chat(image, 0, Text("click "), Point(100, 25))
    raw = "click <|box_start|>(500,300)<|box_end|>"
    [one] = predictions(monkeypatch, tiny_checkpoint, [gold], [raw])
    assert one.points == ((0.5, 0.3),) and one.gold_points == ((0.5, 0.25),)
    assert one.section == "pointing" and one.text == "click (500,300)" and one.boxes == ()


def test_gold_boxes_and_points_are_clamped_as_the_prompt_has_them(
    monkeypatch: pytest.MonkeyPatch, tiny_checkpoint: Path, image: Image
) -> None:
    gold = chat(image, 0, Box(150, -20, 260, 50), Point(201, 50))
    [one] = predictions(monkeypatch, tiny_checkpoint, [gold], ["<|box_start|>(750,0),(999,500)<|box_end|>"])
    assert one.gold_boxes == ((150, 0, 200, 50),) and one.gold_points == ((1, 0.5),)
    assert score([one])["grounding"]["grounding_accuracy@0.5"] == 1.0


def test_boxes_on_the_second_image_are_compared_there(
    monkeypatch: pytest.MonkeyPatch, tiny_checkpoint: Path, image: Image, tmp_path: Path
) -> None:
    PIL.Image.new("RGB", (600, 300)).save(tmp_path / "large.png")
    asked = Turn("user", (image, Image(str(tmp_path / "large.png")), Text("Find it.")))
    said = Turn("assistant", (Text("Picture 2: "), Box(300, 150, 600, 300, image=1)))
    both = [Conversation((asked, said), RecordId("x.json", index)) for index in range(2)]
    box = "<|box_start|>(500,500),(999,999)<|box_end|>"
    right, wrong = predictions(monkeypatch, tiny_checkpoint, both, [f"Picture 2: {box}", f"Picture 1: {box}"])
    assert right.gold_boxes == (Box(300, 150, 600, 300, image=1),)
    assert [score([one])["grounding"]["grounding_accuracy@0.5"] for one in (right, wrong)] == [1.0, 0.0]


def test_quads_are_scored_as_boxes_are(monkeypatch: pytest.MonkeyPatch, tiny_checkpoint: Path, image: Image) -> None:
    gold = chat(image, 0, Reference("sign"), Quad((20, 20, 100, 30, 90, 60, 10, 40)))
    quad = "<|quad_start|>(100,200),(500,300),(450,600),(50,400)<|quad_end|>"
    [one] = predictions(monkeypatch, tiny_checkpoint, [gold], [quad])
    assert one.grounding and one.boxes == one.gold_boxes == ((20, 20, 100, 30, 90, 60, 10, 40),)
    assert score([one])["grounding"]["mean_iou"] == pytest.approx(1)


def test_a_set_whose_answers_mostly_hold_boxes_asks_for_boxes_in_every_question(
    monkeypatch: pytest.MonkeyPatch, tiny_checkpoint: Path, image: Image
) -> None:
    box = Box(1, 1, 9, 9)
    some = [chat(image, 0, box), chat(image, 1, box), chat(image, 2, Text("There is none."))]
    made = predictions(monkeypatch, tiny_checkpoint, some, [BOX, "no box", BOX])
    assert [one.grounding for one in made] == [True, True, True]
    assert [len(one.boxes) for one in made] == [1, 0, 1] and made[2].gold_boxes == ()


def test_a_set_of_words_asks_for_words(monkeypatch: pytest.MonkeyPatch, tiny_checkpoint: Path, image: Image) -> None:
    some = [chat(image, 0, Text("red")), chat(image, 1, Text("blue"), task="vqa", answers=("blue", "cyan"))]
    made = predictions(monkeypatch, tiny_checkpoint, some, ["red", "cyan"])
    assert [one.grounding for one in made] == [False, False]
    assert [one.gold_answers for one in made] == [("red",), ("blue", "cyan")]


def test_a_set_of_calls_asks_with_the_tools_and_wants_the_call(
    monkeypatch: pytest.MonkeyPatch, tiny_checkpoint: Path
) -> None:
    call = ToolCall("zoom", '{"factor": 2}')
    turns = (Turn("user", (Text("?"),)), Turn("assistant", (Text("Look."),), calls=(call,)))
    conversation = Conversation(turns, RecordId("x.json", 0), tools=('{"name": "zoom"}',))
    assert predict.question_of(conversation).tools == conversation.tools
    (made,) = predictions(monkeypatch, tiny_checkpoint, [conversation], ["red"])
    assert made.gold_answers == ('Look.\n<tool_call>\n{"name": "zoom", "arguments": {"factor": 2}}\n</tool_call>',)


def test_the_last_answer_is_asked_for_and_the_earlier_ones_are_given(tiny_checkpoint: Path, image: Image) -> None:
    conversation = Conversation(
        (
            Turn("user", (image, Text("one?"))),
            Turn("assistant", (Text("first"),)),
            Turn("user", (Text("two?"),)),
            Turn("assistant", (Text("second"),)),
        ),
        RecordId("x.json", 0),
    )
    processor = AutoProcessorMIX.from_pretrained(tiny_checkpoint)
    prompt = processor.decode(processor.encode_prompt(predict.question_of(conversation)).input_ids)
    assert "first" in prompt and "second" not in prompt and prompt.endswith("<|im_start|>assistant\n")
