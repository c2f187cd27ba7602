"""From conversations and raw answers to predictions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import paddle
import PIL.Image
import pytest

from paddlemix.auto import AutoModelMIX, AutoProcessorMIX
from paddlemix.conversation import Box, Conversation, Image, RecordId, Reference, Text, Turn
from paddlemix.datasets.collate import PadCollator
from paddlemix.evaluation import predict
from paddlemix.examples.demo.make_model import scale_to_width
from paddlemix.generation import GenerationConfig, generate
from paddlemix.models.qwen_vl.images import QwenVLImageProcessor
from paddlemix.models.qwen_vl.processing import QwenVLProcessor

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


def distinct_model(checkpoint: Path) -> tuple[Any, Any]:
    """A model that says different things to different questions, and its processor."""
    model, processor = (auto.from_pretrained(checkpoint) for auto in (AutoModelMIX, AutoProcessorMIX))
    # At its first weights the model says the same to everything.
    paddle.seed(1)
    scale_to_width(model)
    return model, processor


def test_answers_come_one_a_conversation_and_do_not_depend_on_the_batch(tiny_checkpoint: Path, image: Image) -> None:
    model, processor = distinct_model(tiny_checkpoint)
    questions = [
        Conversation((Turn("user", (image, Text("short"))),), RecordId("x", 0)),
        Conversation((Turn("user", (Text("a much longer question without any image at all"),)),), RecordId("x", 1)),
    ]
    together = predict.answer(model, processor, questions, CONFIG)
    apart = [predict.answer(model, processor, [question], CONFIG)[0] for question in questions]
    assert together == apart and len(set(together)) == 2


@pytest.mark.parametrize("settings", [{}, {"temperature": 3.0}, {"temperature": 3.0, "repetition_penalty": 1.3}])
def test_a_streamed_answer_is_the_answer_in_pieces(
    tiny_checkpoint: Path, image: Image, settings: dict[str, float]
) -> None:
    model, processor = distinct_model(tiny_checkpoint)
    question = Conversation((Turn("user", (image, Text("what is it?"))),), RecordId("x", 0))
    config = GenerationConfig(max_new_tokens=24, **settings)
    pieces = list(predict.stream_answer(model, processor, question, config))
    assert len(pieces) > 1 and all(pieces)
    assert ["".join(pieces)] == predict.answer(model, processor, [question], config)
    stop = pieces[1]
    stopped = GenerationConfig(max_new_tokens=24, stop_strings=[stop], **settings)
    before = "".join(pieces).split(stop)[0]
    assert predict.answer(model, processor, [question], stopped) == [before]
    assert "".join(predict.stream_answer(model, processor, question, stopped)) == before


def test_an_answer_ends_at_the_tokenizers_end_token_which_is_not_part_of_it(
    tiny_checkpoint: Path, image: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, processor = distinct_model(tiny_checkpoint)
    question = Conversation((Turn("user", (image, Text("what is it?"))),), RecordId("x", 0))
    config = GenerationConfig(max_new_tokens=12)
    batch = PadCollator(0, side="left")([processor.encode_prompt(question)])
    [ids] = generate(model, batch, config, end_token_ids=())
    end = next(token for token in ids[2:] if token not in ids[:2])
    for attribute in ("eos_token_id", "pad_token_id"):
        with monkeypatch.context() as patched:
            patched.setattr(processor.tokenizer, attribute, end)
            [cut] = predict.answer(model, processor, [question], config)
        assert cut == processor.decode(ids[: ids.index(end)]) != processor.decode(ids)


def test_a_familys_stop_tokens_end_an_answer_whatever_the_settings_name(
    monkeypatch: pytest.MonkeyPatch, qwen_tokenizer: Any
) -> None:
    configs: list[GenerationConfig] = []
    monkeypatch.setattr(predict, "stream_text", lambda model, batch, config, **more: configs.append(config) or iter(()))
    processor = QwenVLProcessor(qwen_tokenizer, QwenVLImageProcessor(28))
    question = Conversation((Turn("user", (Text("q"),)),), RecordId("x.json", 0))
    published = GenerationConfig(eos_token_ids=[qwen_tokenizer.eod_id], stop_token_ids=[7])
    assert predict.answer(None, processor, [question], published) == [""]
    ends = configs[0].end_token_ids([])
    assert ends == {7, qwen_tokenizer.eod_id, qwen_tokenizer.im_end_id, qwen_tokenizer.im_start_id}
