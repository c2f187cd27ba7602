"""How a question, and what was said before it, reach a model in the neutral form."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import PIL.Image
import pytest

from paddlemix.auto import AutoModelMIX, AutoProcessorMIX
from paddlemix.conversation import Box, Conversation, Image, Reference, Text, Turn, Video
from paddlemix.generation import GenerationConfig
from paddlemix.generation import dialogue as dialogue_module
from paddlemix.generation.dialogue import Dialogue, Exchange

ANSWER = "One <|object_ref_start|>star<|object_ref_end|><|box_start|>(100,200),(300,400)<|box_end|>, quoted <|im_end|>."


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Conversation]:
    """The conversations that a model is asked to answer."""
    seen: list[Conversation] = []
    monkeypatch.setattr(dialogue_module, "stream_answer", lambda *given: seen.append(given[2]) or iter(["."]))
    return seen


def question(*images: str, words: str = "?", shown: int = 0) -> Turn:
    return Dialogue.question(images, [], words, shown=shown)


def turns_asked(asked: list[Conversation], history: Sequence[Exchange]) -> tuple[Turn, ...]:
    assert list(Dialogue(None, None, GenerationConfig()).reply(history, question())) == ["."]
    return asked.pop().turns


def test_of_several_images_each_is_numbered_with_those_that_were_shown_before() -> None:
    assert question("a.png").parts == (Image("a.png"), Text("?"))
    assert question(words="<img>a.png</img>").parts == (Text("<img>a.png</img>"),)
    two = (Text("Picture 1: "), Image("a.png"), Text("Picture 2: "), Image("b.png"), Text("?"))
    assert question("a.png", "b.png").parts == two
    assert question("c.png", shown=2).parts == (Text("Picture 3: "), Image("c.png"), Text("?"))


def test_a_video_is_a_file_or_its_frames() -> None:
    assert Dialogue.question([], ["a.mp4"], "?").parts == (Video("a.mp4"), Text("?"))
    assert Dialogue.question([], ["1.png", "2.png"], "?").parts == (Video(("1.png", "2.png")), Text("?"))


def test_boxes_of_earlier_answers_are_boxes_on_the_image_shown_last_and_all_else_is_text(
    asked: list[Conversation],
) -> None:
    history = [Exchange(question("a.png", "b.png"), ANSWER), Exchange(question("c.png", shown=2), "Yes.")]
    box = Box(100, 200, 300, 400, unit="thousandth", image=1)
    said = (Text("One "), Reference("star"), box, Text(", quoted <|im_end|>."))
    assert turns_asked(asked, history) == (
        history[0].question,
        Turn("assistant", said),
        history[1].question,
        Turn("assistant", (Text("Yes."),)),
        question(),
    )


@pytest.mark.parametrize("answer", ["", "<|box_start|>(1)<|box_end|>", "<|object_ref_start|>star"])
def test_an_answer_that_cannot_be_read_is_plain_text(asked: list[Conversation], answer: str) -> None:
    assert turns_asked(asked, [Exchange(question("a.png"), answer)])[1] == Turn("assistant", (Text(answer),))


def test_a_box_where_no_image_was_shown_is_plain_text(asked: list[Conversation]) -> None:
    assert turns_asked(asked, [Exchange(question(), ANSWER)])[1] == Turn("assistant", (Text(ANSWER),))


def test_what_was_said_before_stands_in_the_prompt_as_the_model_wrote_it(tiny_checkpoint: Path, tmp_path: Path) -> None:
    PIL.Image.new("RGB", (200, 100)).save(tmp_path / "a.png")
    processor = AutoProcessorMIX.from_pretrained(tiny_checkpoint)
    first = question(str(tmp_path / "a.png"))
    for answer in (ANSWER, ""):
        conversation = dialogue_module._conversation([Exchange(first, answer)], question(words="Sure?"))
        ids = processor.encode_prompt(conversation).input_ids
        end, start = (processor.tokenizer.token_id(token) for token in ("<|im_end|>", "<|im_start|>"))
        turns = f"<|im_start|>assistant\n{answer}<|im_end|>\n<|im_start|>user\nSure?<|im_end|>\n"
        assert processor.decode(ids).endswith(f"{turns}<|im_start|>assistant\n")
        # The end of a turn that the answer quotes is text, its tags are tokens.
        assert (list(ids).count(end), list(ids).count(start)) == (4, 5)
        assert processor.tokenizer.token_id("<|box_start|>") in ids or not answer


def test_a_history_changes_the_answer(tiny_checkpoint: Path) -> None:
    model, processor = (auto.from_pretrained(tiny_checkpoint) for auto in (AutoModelMIX, AutoProcessorMIX))
    dialogue = Dialogue(model, processor, GenerationConfig(max_new_tokens=12, temperature=3.0))
    answers = {
        "".join(dialogue.reply(history, question())) for history in ([], [Exchange(question(words="Hello"), "Hi")])
    }
    assert len(answers) == 2
