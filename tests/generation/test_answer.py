"""Raw answers to conversations: at once, streamed, and where they end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import paddle
import PIL.Image
import pytest

from paddlemix.auto import AutoModelMIX, AutoProcessorMIX
from paddlemix.conversation import Conversation, Image, RecordId, Text, Turn
from paddlemix.datasets.collate import PadCollator
from paddlemix.examples.demo.make_model import scale_to_width
from paddlemix.generation import GenerationConfig, generate
from paddlemix.generation import answer as answers
from paddlemix.generation.answer import answer, stream_answer
from paddlemix.models.qwen_vl.images import QwenVLImageProcessor
from paddlemix.models.qwen_vl.processing import QwenVLProcessor

CONFIG = GenerationConfig(max_new_tokens=4)


@pytest.fixture
def image(tmp_path: Path) -> Image:
    PIL.Image.new("RGB", (200, 100)).save(tmp_path / "a.png")
    return Image(str(tmp_path / "a.png"))


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
    together = answer(model, processor, questions, CONFIG)
    apart = [answer(model, processor, [question], CONFIG)[0] for question in questions]
    assert together == apart and len(set(together)) == 2


@pytest.mark.parametrize("settings", [{}, {"temperature": 3.0}, {"temperature": 3.0, "repetition_penalty": 1.3}])
def test_a_streamed_answer_is_the_answer_in_pieces(
    tiny_checkpoint: Path, image: Image, settings: dict[str, float]
) -> None:
    model, processor = distinct_model(tiny_checkpoint)
    question = Conversation((Turn("user", (image, Text("what is it?"))),), RecordId("x", 0))
    config = GenerationConfig(max_new_tokens=24, **settings)
    pieces = list(stream_answer(model, processor, question, config))
    assert len(pieces) > 1 and all(pieces)
    assert ["".join(pieces)] == answer(model, processor, [question], config)
    stop = pieces[1]
    stopped = GenerationConfig(max_new_tokens=24, stop_strings=[stop], **settings)
    before = "".join(pieces).split(stop)[0]
    assert answer(model, processor, [question], stopped) == [before]
    assert "".join(stream_answer(model, processor, question, stopped)) == before


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
            [cut] = answer(model, processor, [question], config)
        assert cut == processor.decode(ids[: ids.index(end)]) != processor.decode(ids)


def test_a_familys_stop_tokens_end_an_answer_whatever_the_settings_name(
    monkeypatch: pytest.MonkeyPatch, qwen_tokenizer: Any
) -> None:
    configs: list[GenerationConfig] = []
    monkeypatch.setattr(answers, "stream_text", lambda model, batch, config, **more: configs.append(config) or iter(()))
    processor = QwenVLProcessor(qwen_tokenizer, QwenVLImageProcessor(28))
    question = Conversation((Turn("user", (Text("q"),)),), RecordId("x.json", 0))
    published = GenerationConfig(eos_token_ids=[qwen_tokenizer.eod_id], stop_token_ids=[7])
    assert answer(None, processor, [question], published) == [""]
    ends = configs[0].end_token_ids([])
    assert ends == {7, qwen_tokenizer.eod_id, qwen_tokenizer.im_end_id, qwen_tokenizer.im_start_id}
