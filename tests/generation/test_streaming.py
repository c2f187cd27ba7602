"""`model.generate` told to stream and to end at texts; 298 such calls were compared with transformers 4.57.6."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest

from paddlemix.auto import AutoModelMIX, AutoProcessorMIX
from paddlemix.examples.demo.make_model import scale_to_width
from paddlemix.generation import TextStreamer
from paddlemix.generation.sampling import TokenChooser
from paddlemix.generation.text import StopStrings

WORDS = "Where is the red circle?"
NEW = 8


class Recorder:
    """A streamer that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def put(self, value: Any) -> None:
        self.told.append(value.tolist())

    def end(self) -> None:
        self.told.append("end")


@pytest.fixture(scope="module")
def case(tiny_checkpoint: Path) -> tuple[Any, Any, list[int], list[int]]:
    """A model that says different things, its processor, a prompt and the answer to it."""
    model, processor = (auto.from_pretrained(tiny_checkpoint) for auto in (AutoModelMIX, AutoProcessorMIX))
    paddle.seed(1)
    scale_to_width(model)
    # Or it would say the same token again and again.
    model.carried_files["generation_config.json"] = b'{"repetition_penalty": 9.0}'
    prompt = processor.tokenizer.encode(WORDS)
    answer = model.generate(paddle.to_tensor([prompt]), max_new_tokens=NEW)[0].tolist()[len(prompt) :]
    assert len(answer) == NEW and len(set(answer)) > 2
    return model, processor, prompt, answer


def test_a_streamer_is_told_the_prompts_each_steps_tokens_and_the_end(case):
    model, _, prompt, answer = case
    end = answer[2]
    streamer = Recorder()
    ids = model.generate(paddle.to_tensor([prompt]), max_new_tokens=NEW, streamer=streamer, eos_token_id=end)
    said = answer[: answer.index(end) + 1]
    assert ids[0].tolist() == prompt + said
    assert streamer.told == [[prompt], *([token] for token in said), "end"]


def test_rows_that_have_ended_are_streamed_as_padding(case):
    model, _, prompt, answer = case
    other = [*prompt[:-1], prompt[0]]
    rows = paddle.to_tensor([prompt, other])
    ends = [answer[1]]
    streamer = Recorder()
    ids = model.generate(rows, max_new_tokens=NEW, streamer=streamer, eos_token_id=ends, pad_token_id=7).numpy()
    np.testing.assert_array_equal(np.array(streamer.told[1:-1]).T, ids[:, len(prompt) :])
    assert any(7 in step for step in streamer.told[1:-1]) or ids.shape[1] <= len(prompt) + 2


def test_a_text_streamer_prints_whole_characters_with_the_prompt_or_without(case, capsys):
    model, processor, prompt, answer = case
    text = processor.decode(answer)
    for skip_prompt, wanted in ((True, f"{text}\n"), (False, f"{WORDS}{text}\n")):
        streamer = TextStreamer(processor, skip_prompt=skip_prompt)
        for _ in range(2):  # once more with the same
            model.generate(paddle.to_tensor([prompt]), max_new_tokens=NEW, streamer=streamer)
            assert capsys.readouterr().out == wanted


def test_a_text_streamer_shows_one_answer(case):
    model, processor, prompt, _ = case
    with pytest.raises(ValueError, match="the tokens of 2 answers; it shows one"):
        model.generate(paddle.to_tensor([prompt, prompt]), streamer=TextStreamer(processor), max_new_tokens=1)


def test_a_streamer_and_beams_are_refused_together(case):
    model, _, prompt, _ = case
    with pytest.raises(ValueError, match="`num_beams` is 2, but a `streamer` is given"):
        model.generate(paddle.to_tensor([prompt]), streamer=Recorder(), num_beams=2)


@pytest.mark.parametrize("who", ["processor", "tokenizer"])
def test_a_stop_string_ends_an_answer_behind_the_token_that_completes_it(case, who, monkeypatch):
    model, processor, prompt, _ = case
    says = processor.tokenizer.encode("It is on the left, is it not?")
    monkeypatch.setattr(
        TokenChooser, "scores", lambda self, logits: np.arange(len(logits)) == says[self._chosen % len(says)]
    )
    decoder = processor if who == "processor" else processor.tokenizer
    settings = {"max_new_tokens": len(says), "tokenizer": decoder}
    for stop in ("left", [", i", "nowhere"], ["t is", "left"]):
        ids = model.generate(paddle.to_tensor([prompt]), stop_strings=stop, **settings)[0].tolist()[len(prompt) :]
        text, before = processor.decode(ids), processor.decode(ids[:-1])
        stops = [stop] if isinstance(stop, str) else stop
        assert ids == says[: len(ids)] and len(ids) < len(says)
        assert any(one in text for one in stops) and not any(one in before for one in stops)


def test_a_stop_string_may_begin_in_the_prompt_as_in_transformers(case):
    model, processor, prompt, answer = case
    stop = WORDS[-1] + processor.decode(answer[:1])
    ids = model.generate(paddle.to_tensor([prompt]), max_new_tokens=NEW, stop_strings=[stop], tokenizer=processor)
    assert ids[0].tolist() == prompt + answer[:1]


def test_stop_strings_without_a_tokenizer_are_refused(case):
    model, _, prompt, _ = case
    with pytest.raises(ValueError, match=r"`stop_strings` are \['a'\].*tokenizer=processor\.tokenizer"):
        model.generate(paddle.to_tensor([prompt]), stop_strings=["a"])


def test_a_character_that_is_cut_into_tokens_is_found_in_a_stop_string():
    def decode(ids):
        return bytes(ids).decode("utf-8", "replace")

    stops = StopStrings(decode, ["猫。"])
    ids = list("是猫。x".encode())
    assert [stops.end(ids[: place + 1]) for place in range(len(ids))] == [False] * 8 + [True, False]
