"""The terminal chat, with a model that says what the test wants."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from paddlemix.chat.session import ChatSession
from paddlemix.chat.terminal import run_terminal
from paddlemix.conversation import Conversation, RawAnswer, RecordError, RecordId, Turn
from paddlemix.generation import GenerationConfig
from paddlemix.generation import dialogue as dialogue_module
from paddlemix.generation.dialogue import Dialogue, Exchange
from paddlemix.media.images import open_image
from paddlemix.media.video import open_video
from paddlemix.models.qwen_vl.chat.dialogue import QwenVLDialogue, query_text
from paddlemix.models.qwen_vl.tags import GROUNDING

BOX = "<ref>star</ref><box>(100,100),(500,500)</box>"


def spoken(history: Sequence[Exchange]) -> list[tuple[str, str]]:
    """Queries and answers as Qwen-VL's own chat takes them."""
    return [(query_text(one.question), one.answer) for one in history]


class Stub:
    """What a chat asks of a processor."""

    grounding = GROUNDING
    open_image, open_video = staticmethod(open_image), staticmethod(open_video)


class Talk(QwenVLDialogue):
    """A chat whose lines and answers are given; what the model was asked is in `asked`."""

    def __init__(self, output_dir: Path) -> None:
        super().__init__(None, Stub(), GenerationConfig())
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
        (f"/image {__file__}", "is a text, which begins with"),
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
    assert "(stopped; this question, and what was shown with it, is forgotten)" in capsys.readouterr().out
    assert spoken(talk.session.history) == [("Two.", "Fine.")]


@pytest.mark.parametrize("end", [["exit"], ["/exit"], [EOFError()], [KeyboardInterrupt(), KeyboardInterrupt()]])
def test_exit_and_ctrl_d_and_ctrl_c_twice_end_politely(talk, capsys, end):
    talk(*end, "Never asked.", answers=[])
    assert capsys.readouterr().out.endswith("Goodbye.\n") and talk.asked == []


def test_a_ctrl_c_behind_an_answer_loses_nothing(talk, capsys):
    talk("One.", KeyboardInterrupt(), "Two.", KeyboardInterrupt(), "Three.", answers=[["1"], ["2"], ["3"]])
    assert [answer for _, answer in talk.asked[2][1]] == ["1", "2"]
    assert capsys.readouterr().out.count("(Ctrl-C once more ends the chat)") == 2


def test_a_family_without_videos_refuses_one_with_a_sentence_before_it_is_opened(talk, capsys):
    talk("/video nowhere.mp4", "Still there?", answers=[["Yes."]])
    assert "error: the video nowhere.mp4 cannot be shown: Qwen-VL reads images only." in capsys.readouterr().out
    assert talk.asked == [("Still there?", [])]


@pytest.fixture
def neutral(tmp_path, monkeypatch):
    """A chat with a family that is asked in the neutral form: a function of lines and answers that gives the turns."""
    asked: list[Conversation] = []
    answers: list[list[str | BaseException]] = []

    def say(model, processor, question, config):
        asked.append(question)
        for piece in answers.pop(0):
            if isinstance(piece, BaseException):
                raise piece
            yield piece

    def hold(*lines: str, says: Sequence[list[str | BaseException]]) -> list[Conversation]:
        answers.extend(says)
        typed = iter(lines)
        with closing(ChatSession(Dialogue(None, Stub(), None), tmp_path)) as session:
            run_terminal(session, lambda prompt: next(typed, "exit"))
        assert not answers, "every answer was asked for"
        return asked

    monkeypatch.setattr(dialogue_module, "stream_answer", say)
    return hold


@pytest.fixture
def clip(tmp_path: Path) -> str:
    av = pytest.importorskip("av", reason="PyAV writes this video")
    path = tmp_path / "a clip.mp4"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mpeg4", rate=5)
        stream.width, stream.height = 64, 48
        for number in range(9):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((48, 64, 3), 20 * number, np.uint8))))
        file.mux(stream.encode())
    return str(path)


def shown_in(turn: Turn) -> list[str]:
    """What a turn consists of, in order; frames of a video joined."""
    named = [getattr(part, "path", None) or part.text for part in turn.parts]
    return [one if isinstance(one, str) else "+".join(one) for one in named]


def test_images_and_videos_are_shown_at_any_turn_in_their_order(neutral, images, clip, capsys):
    first, second = images
    lines = [f"/video {clip}", f"/image {first}", "One.", f"/image {second}", "Two.", f'/video "{first}" {second}']
    asked = neutral(*lines[:-1], f"/video '{clip}'", "Three.", says=[["1"], ["2"], ["3"]])
    assert [shown_in(turn) for turn in asked[2].turns if turn.role == "user"] == [
        [clip, first, "One."],
        ["Picture 2: ", second, "Two."],
        ["Video 2: ", clip, "Three."],
    ]
    told = capsys.readouterr().out
    for sentence in ("Video 1 is", "Picture 1 is", "Picture 2 is", "Video 2 is"):
        assert f"{sentence} shown with your next question.\n" in told


def test_several_paths_of_a_video_are_its_frames(neutral, tmp_path):
    paths = [tmp_path / name for name in ("1.png", "2 b.png", "3.png")]
    for path in paths:
        Image.new("RGB", (64, 48)).save(path)
    typed = f"/video {paths[0]} '{paths[1]}' {paths[2]}"
    (asked,) = neutral(typed, "?", says=[["."]])
    assert shown_in(asked.turns[0]) == ["+".join(map(str, paths)), "?"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("/video", "error: /video names no video; expected /video and a file, an address or files of frames."),
        ("/video nowhere.mp4", "error: video nowhere.mp4 does not exist."),
        ("/video nowhere.png gone.png", "error: image nowhere.png does not exist."),
        (f"/video {__file__}", "is broken or in no format that is read"),
        ("/video it's.mp4", "error: video it's.mp4 does not exist."),
    ],
)
def test_a_broken_video_is_a_sentence_and_the_chat_goes_on(neutral, images, capsys, line, said):
    (asked,) = neutral(f"/image {images[0]}", line, "Still there?", says=[["Yes."]])
    assert said in capsys.readouterr().out
    assert shown_in(asked.turns[0]) == [images[0], "Still there?"]


def test_a_stopped_answer_is_forgotten_with_the_video_that_was_shown(neutral, clip, capsys):
    asked = neutral(f"/video {clip}", "One.", f"/video {clip}", "Two.", says=[["Well", KeyboardInterrupt()], ["2"]])
    assert "Well\n(stopped; this question, and what was shown with it, is forgotten)" in capsys.readouterr().out
    assert [shown_in(turn) for turn in asked[1].turns] == [[clip, "Two."]]


def test_clear_forgets_videos_too(neutral, clip):
    asked = neutral(f"/video {clip}", "One.", f"/video {clip}", "/clear", "Two.", says=[["1"], ["2"]])
    assert [shown_in(turn) for turn in asked[1].turns] == [["Two."]]


def test_an_answer_sends_a_terminal_nothing_but_text(neutral, capsys):
    asked = neutral("One.", "Two.", says=[["a\x1b[2J\tb\r\n", "\x9bc", "图"], ["."]])
    assert "a\\u001b[2J\tb\\r\n\\u009bc图\n" in capsys.readouterr().out
    assert asked[1].turns[1].parts == (RawAnswer("a\x1b[2J\tb\r\n\x9bc图"),)


def test_what_a_record_would_be_named_by_is_left_out_of_errors(neutral, capsys):
    neutral("One.", says=[[RecordError(RecordId("the prompt", 0), "image a.png does not exist.")]])
    assert "error: image a.png does not exist.\n" in capsys.readouterr().out


def test_an_image_of_an_address_is_fetched_once(talk, images, tmp_path, monkeypatch):
    asked: list[str] = []

    def opened(path: str) -> Image.Image:
        asked.append(path)
        return Image.effect_noise((40, 30), 50).convert("RGB")

    monkeypatch.setattr(Stub, "open_image", staticmethod(opened))
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
