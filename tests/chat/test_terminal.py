"""The terminal chat, with a model that says what the test wants."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from paddlemix.chat import session as session_module
from paddlemix.chat.session import ChatSession
from paddlemix.chat.terminal import run_terminal
from paddlemix.conversation import Turn
from paddlemix.generation import GenerationConfig
from paddlemix.generation.dialogue import Exchange
from paddlemix.media.images import open_image
from paddlemix.models.qwen_vl.chat.dialogue import QwenVLDialogue, query_text
from paddlemix.models.qwen_vl.tags import GROUNDING

BOX = "<ref>star</ref><box>(100,100),(500,500)</box>"


def spoken(history: Sequence[Exchange]) -> list[tuple[str, str]]:
    """Queries and answers as Qwen-VL's own chat takes them."""
    return [(query_text(one.question), one.answer) for one in history]


class Talk(QwenVLDialogue):
    """A chat whose lines and answers are given; what the model was asked is in `asked`."""

    def __init__(self, output_dir: Path) -> None:
        super().__init__(None, SimpleNamespace(grounding=GROUNDING), GenerationConfig())
        self.asked: list[tuple[str, list[tuple[str, str]]]] = []
        self.answers: list[list[str | BaseException]] = []
        self.session = ChatSession(self, output_dir)

    def __call__(self, *lines: str | BaseException, answers: list[list[str | BaseException]]) -> None:
        typed, self.answers = iter(lines), answers

        def read(prompt: str) -> str:
            line = next(typed, EOFError())
            if isinstance(line, BaseException):
                raise line
            return line

        run_terminal(self.session, read)

    def reply(self, history: Sequence[Exchange], question: Turn) -> Iterator[str]:
        self.asked.append((query_text(question), spoken(history)))
        for piece in self.answers.pop(0):
            if isinstance(piece, BaseException):
                raise piece
            yield piece


@pytest.fixture
def talk(tmp_path: Path) -> Iterator[Talk]:
    talk = Talk(tmp_path / "out")
    yield talk
    talk.session.close()


@pytest.fixture
def images(tmp_path: Path) -> list[str]:
    paths = [tmp_path / "a b.png", tmp_path / "图.png"]
    for path, size in zip(paths, [(400, 200), (100, 100)], strict=True):
        Image.new("RGB", size, "grey").save(path)
    return [str(path) for path in paths]


def test_each_question_carries_what_was_said_before_it(talk, capsys):
    talk("你好", "", "And now?", answers=[["你", "好！"], ["Yes."]])
    assert talk.asked == [("你好", []), ("And now?", [("你好", "你好！")])]
    shown = capsys.readouterr().out
    assert "你好！\n" in shown and "Yes.\n" in shown and shown.endswith("Goodbye.\n")


def test_images_are_shown_at_any_turn_and_numbered_over_the_conversation(talk, images, capsys):
    first, second = images
    talk(
        f"/image '{first}'", "What is it?", "/image " + second, f"<img>{first}</img>Compare.", answers=[["A."], ["B."]]
    )
    assert [query for query, _ in talk.asked] == [
        f"Picture 1: <img>{first}</img>\nWhat is it?",
        f"Picture 2: <img>{second}</img>\n<img>{first}</img>Compare.",
    ]
    assert [image.size for image in talk.session.images] == [(400, 200), (100, 100), (400, 200)]
    assert "Picture 2 is shown with your next question." in capsys.readouterr().out


def test_boxes_are_drawn_into_new_files_that_are_named(talk, images, capsys, tmp_path):
    first, second = images
    answers = [[BOX[:9], BOX[9:]], ["Nothing."], [f"In Picture 1 {BOX}, in Picture 2 {BOX}"]]
    talk(f"/image {first}", "Where?", "Sure?", f"/image {second}", "And here?", answers=answers)
    files = [tmp_path / "out" / f"chat_{number}.jpg" for number in (1, 2, 3)]
    assert sorted((tmp_path / "out").iterdir()) == files
    assert [Image.open(path).size for path in files] == [(400, 200), (400, 200), (100, 100)]
    assert all(np.ptp(np.asarray(Image.open(path))) > 60 for path in files)
    shown = capsys.readouterr().out
    assert f"{BOX}\n{files[0]}: the image with the boxes of this answer\n" in shown
    assert all(str(path) in shown for path in files)


def test_points_are_drawn_too(talk, images, tmp_path):
    talk(f"/image {images[0]}", "Where?", answers=[["click(<box>(500,500)</box>)"]])
    assert np.ptp(np.asarray(Image.open(tmp_path / "out" / "chat_1.jpg"))) > 60


def test_clear_forgets_what_was_said_and_shown(talk, images):
    lines = [f"/image {images[0]}", "One.", f"/image {images[0]}", "clear", f"/image {images[1]}", "Two."]
    talk(*lines, answers=[["1"], [BOX]])
    assert talk.asked[1] == (f"Picture 1: <img>{images[1]}</img>\nTwo.", [])
    assert [image.size for image in talk.session.images] == [(100, 100)]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("/image nowhere.jpg", "error: image nowhere.jpg does not exist."),
        ("/image", "error: /image names no image; expected /image and a file or an address."),
        ("<img>nowhere.jpg</img>What?", "error: image nowhere.jpg does not exist."),
        ("<img>a.jpg What?", "is not closed; expected `<img>path</img>`."),
        (f"/image {__file__}", "is empty or in no format that Pillow reads"),
    ],
)
def test_a_broken_image_is_a_sentence_and_the_chat_goes_on(talk, images, capsys, line, said):
    talk(f"/image {images[0]}", line, "Still there?", answers=[["Yes."]])
    assert said in capsys.readouterr().out
    assert talk.asked == [(f"Picture 1: <img>{images[0]}</img>\nStill there?", [])]


def test_an_answer_that_fails_is_a_sentence_and_its_question_is_forgotten(talk, images, capsys):
    talk(f"/image {images[0]}", "One.", "Two.", answers=[["Well", ValueError("too long.")], ["Fine."]])
    assert "Wellerror: too long." in capsys.readouterr().out.replace("\n", "")
    assert talk.asked[1] == ("Two.", []) and spoken(talk.session.history) == [("Two.", "Fine.")]
    assert talk.session.images == []


def test_ctrl_c_stops_an_answer_and_the_chat_goes_on(talk, capsys):
    talk("One.", "Two.", answers=[["Well", KeyboardInterrupt()], ["Fine."]])
    assert "(stopped; this line is forgotten)" in capsys.readouterr().out
    assert spoken(talk.session.history) == [("Two.", "Fine.")]


@pytest.mark.parametrize("end", ["exit", EOFError(), KeyboardInterrupt()])
def test_exit_and_ctrl_d_and_ctrl_c_end_politely(talk, capsys, end):
    talk(end, "Never asked.", answers=[])
    assert capsys.readouterr().out.endswith("Goodbye.\n") and talk.asked == []


def test_an_image_of_an_address_is_fetched_once(talk, images, tmp_path, monkeypatch):
    asked: list[str] = []

    def opened(path: str) -> Image.Image:
        asked.append(path)
        return Image.effect_noise((40, 30), 50).convert("RGB")

    monkeypatch.setattr(session_module, "open_image", opened)
    talk("/image https://example.org/a.jpg", "One.", "Two.", answers=[["1"], ["2"]])
    assert asked == ["https://example.org/a.jpg"]
    copy = talk.asked[0][0].removeprefix("Picture 1: <img>").removesuffix("</img>\nOne.")
    assert np.array_equal(np.asarray(open_image(copy)), np.asarray(talk.session.images[0]))
    talk.session.close()
    assert not Path(copy).exists()


def test_a_path_that_holds_a_tag_shows_its_image_and_no_other(talk, images, tmp_path):
    path = tmp_path / "x<" / "img>b.png"
    path.parent.mkdir()
    Image.new("RGB", (30, 20)).save(path)
    talk(f"/image {path}", "What?", answers=[["."]])
    assert talk.asked[0][0].count("</img>") == 1 and str(path) not in talk.asked[0][0]
    assert talk.session.images[0].size == (30, 20)
