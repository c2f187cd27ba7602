from __future__ import annotations

import base64
import io
from html.parser import HTMLParser
from pathlib import Path

import PIL.Image
import pytest

from paddlemix.auto import AutoProcessorMIX
from paddlemix.conversation import (
    Box,
    Conversation,
    Image,
    Point,
    Quad,
    RecordError,
    RecordId,
    Reference,
    Text,
    ToolCall,
    Turn,
    Video,
    VideoSettings,
)
from paddlemix.visualization.preview import RecordView, Stretch, Thumbnail, view_record
from paddlemix.visualization.preview_page import SetView, preview_page

SOURCE = RecordId("a.jsonl", 3)
BLUE, RED = (0, 0, 255), (255, 0, 0)


@pytest.fixture(scope="module")
def processor(tiny_checkpoint: Path):
    return AutoProcessorMIX.from_pretrained(tiny_checkpoint)


@pytest.fixture
def image(tmp_path: Path) -> str:
    path = tmp_path / "图.png"
    PIL.Image.new("RGB", (100, 50), BLUE).save(path)
    return str(path)


def conversation(*question: object, answer: tuple[object, ...] = (Text("好 answer"),)) -> Conversation:
    return Conversation((Turn("user", question), Turn("assistant", answer)), SOURCE)  # type: ignore[arg-type]


def opened(thumbnail: Thumbnail) -> PIL.Image.Image:
    head, _, body = thumbnail.source.partition(",")
    assert head == "data:image/jpeg;base64"
    return PIL.Image.open(io.BytesIO(base64.b64decode(body)))


def is_near(color: tuple[int, ...], other: tuple[int, ...]) -> bool:
    return all(abs(one - two) < 60 for one, two in zip(color, other, strict=True))  # JPEG smears thin lines


def test_stretches_are_the_samples_tokens_with_the_trained_ones_marked(processor, image):
    record = conversation(Image(image), Text("问题"))
    view, sample = view_record(record, processor), processor.encode(record)
    assert sum(one.repeat for one in view.stretches) == view.tokens == len(sample.input_ids)
    assert sum(one.repeat for one in view.stretches if one.weight) == view.trained_tokens == (sample.labels >= 0).sum()
    assert "".join(one.text for one in view.stretches if one.weight) == "好 answer<|im_end|>"
    pads = [one for one in view.stretches if one.text == "<|image_pad|>"]
    assert pads == [Stretch("<|image_pad|>", weight=0, control=True, repeat=view.image_tokens)]


def test_an_answer_that_is_context_only_is_not_marked_and_another_tells_its_weight(processor):
    asked, said = Turn("user", (Text("?"),)), Turn("assistant", (Text("no"),), weight=0.0)
    answer = Turn("assistant", (Text("yes"),), weight=2.5, calls=(ToolCall("zoom", "{}"),))
    view = view_record(Conversation((asked, said, asked, answer), SOURCE), processor)
    assert {(one.weight, one.control) for one in view.stretches if "no" in one.text} == {(0, False)}
    call = '<tool_call>\n{"name": "zoom", "arguments": {}}\n</tool_call>'
    assert [(one.weight, one.text) for one in view.stretches if one.weight] == [
        (2.5, f"yes\n{call}"),
        (2.5, "<|im_end|>"),
    ]
    assert view.gold == f"yes\n{call}"
    page = preview_page("t", [SetView("s", (view,))])
    assert page.count('title="loss &times; 2.5"') == 2


def test_a_text_that_spells_a_control_token_is_not_shown_as_one(processor):
    view = view_record(conversation(Text("<|im_end|>?")), processor)
    assert any(not one.control and "<|im_end|>?" in one.text for one in view.stretches)
    assert sum(one.control and one.text == "<|im_end|>" for one in view.stretches) == 3  # system, user, assistant


def test_boxes_of_every_unit_are_drawn_on_their_own_image(processor, image):
    units = (Box(20, 10, 60, 30), Box(200, 200, 600, 600, "thousandth"), Box(0.2, 0.2, 0.6, 0.6, "fraction"))
    for box in units:
        second = Box(box.x1, box.y1, box.x2, box.y2, box.unit, image=1)
        record = conversation(Image(image), Image(image), answer=(Reference(""), second))
        empty, drawn = view_record(record, processor).thumbnails
        assert empty.caption.startswith(f"Picture 1: {image}, 100 x 50 pixels, seen as ")
        assert drawn.caption.endswith("; boxes: 1")
        assert opened(empty).size == opened(drawn).size == (256, 128)
        place = round(0.2 * 256) + 1, round(0.4 * 128)  # on the left edge of the box
        assert is_near(opened(drawn).convert("RGB").getpixel(place), RED)
        assert is_near(opened(empty).convert("RGB").getpixel(place), BLUE)


def test_points_of_every_unit_are_drawn_on_their_own_image(processor, image):
    for point in (Point(20, 10, image=1), Point(200, 200, "thousandth", 1), Point(0.2, 0.2, "fraction", 1)):
        box = Box(50, 20, 60, 30)
        record = conversation(Image(image), Image(image), answer=(box, Reference(""), point))
        first, second = view_record(record, processor).thumbnails
        assert first.caption.endswith("patches; boxes: 1") and second.caption.endswith("patches; points: 1")
        place = round(0.2 * 256), round(0.2 * 128)
        assert is_near(opened(second).convert("RGB").getpixel(place), RED)
        assert is_near(opened(first).convert("RGB").getpixel(place), BLUE)


@pytest.mark.parametrize(
    ("size", "shown"), [((1024, 100), (512, 50)), ((300, 400), (300, 400)), ((10, 20), (128, 256))]
)
def test_images_take_a_size_that_suits_the_page(processor, tmp_path, size, shown):
    path = tmp_path / "a.png"
    PIL.Image.new("RGB", size, BLUE).save(path)
    (thumbnail,) = view_record(conversation(Image(str(path))), processor).thumbnails
    assert opened(thumbnail).size == shown


def test_frames_of_a_video_are_shown_in_order(processor, tmp_path):
    paths = tuple(str(tmp_path / f"{number}.png") for number in range(8))
    for number, path in enumerate(paths):
        PIL.Image.new("RGB", (64, 64), (number * 30, 0, 0)).save(path)
    view = view_record(conversation(Video(paths), Text("q")), processor)
    assert [one.caption.rpartition(", ")[2] for one in view.thumbnails] == [
        f"frame {number} of 8" for number in (1, 3, 6, 8)
    ]
    reds = [opened(one).convert("RGB").getpixel((128, 128))[0] for one in view.thumbnails]
    assert reds == sorted(reds) and reds[-1] - reds[0] > 150


def test_of_a_stretch_of_a_video_its_frames_are_shown(processor, tmp_path):
    images = [PIL.Image.new("RGB", (64, 64), (number * 12, 0, 0)) for number in range(20)]
    images[0].save(tmp_path / "a.gif", save_all=True, append_images=images[1:], duration=100)
    video = Video(str(tmp_path / "a.gif"), VideoSettings(start=0.5, end=0.8))
    view = view_record(conversation(video, Text("q")), processor)
    assert [one.caption.rpartition(", ")[2] for one in view.thumbnails] == [
        f"frame {number} of 20" for number in (6, 7, 8, 9)
    ]


def test_a_models_answer_is_shown_beside_the_right_one_with_its_boxes_drawn(processor, image):
    asked = []
    box = "<|box_start|>({0},{0}),({1},{1})<|box_end|>"
    tag, tag_end = "<|object_ref_start|>", "<|object_ref_end|>"

    def answer(conversation: Conversation) -> str:
        asked.append(conversation)
        return f"{tag}a <b>{tag_end}{box.format(200, 600)}"

    record = conversation(Image(image), answer=(Reference("star"), Box(50, 25, 100, 50)))
    view = view_record(record, processor, answer)
    assert asked == [record]
    assert view.gold == f"{tag}star{tag_end}<|box_start|>(500,500),(999,999)<|box_end|>"
    assert view.answer == f"{tag}a <b>{tag_end}{box.format(200, 600)}"
    right, answered = view.thumbnails
    assert answered.caption == "Picture 1 as the model answers; boxes: 1" and right.caption.endswith("; boxes: 1")
    place = round(0.2 * 256) + 1, round(0.4 * 128)
    assert is_near(opened(answered).convert("RGB").getpixel(place), RED)
    assert is_near(opened(right).convert("RGB").getpixel(place), BLUE)
    page = preview_page("t", [SetView("s", (view, view_record(record, processor)))])
    assert page.count("Right answer") == 1 and "a &lt;b&gt;" in page and "<b>" not in page
    assert "The model's answer</h4>" in page
    same = view_record(record, processor, lambda _: view.gold)
    assert "The model's answer, the same</h4>" in preview_page("t", [SetView("s", (same,))])


def test_a_model_that_cannot_be_asked_is_a_problem_of_the_record(processor):
    def answer(conversation: Conversation) -> str:
        raise RecordError(SOURCE, "no prompt.")

    assert view_record(conversation(Text("?")), processor, answer).problem == "no prompt."


def test_a_record_that_cannot_be_encoded_is_shown_by_its_problem(processor):
    view = view_record(conversation(Image("nowhere.png")), processor)
    assert (view.title, view.stretches) == ("a.jsonl, record 3", ())
    assert view.problem.startswith("image nowhere.png does not exist. ") and "`image_root`" in view.problem


class Elements(HTMLParser):
    """Counts elements, and collects the text of `pre`."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.text = ""
        self._inside = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.found.append(tag)
        self._inside = self._inside or tag == "pre"

    def handle_endtag(self, tag: str) -> None:
        self._inside = self._inside and tag != "pre"

    def handle_data(self, data: str) -> None:
        self.text += data * self._inside


HOSTILE = """<script>alert("1")</script>' onerror='x' {{ 7 * 7 }} </pre><img src=x>&amp; 图\n\n  两"""


def test_words_of_records_are_escaped_wherever_they_stand():
    stretches = (Stretch(HOSTILE, weight=1, control=False, repeat=1),)
    record = RecordView(HOSTILE, 1, 0, 1, stretches, (Thumbnail("data:image/jpeg;base64,AAAA", HOSTILE),))
    page = preview_page(HOSTILE, [SetView(HOSTILE, (record, RecordView(HOSTILE, problem=HOSTILE)))])
    elements = Elements(page)
    assert "script" not in elements.found
    assert elements.found.count("img") == 1 and elements.found.count("pre") == 1
    assert elements.text.rstrip("\n") == HOSTILE


def test_the_page_needs_nothing_beside_it():
    thumbnail = Thumbnail("data:image/jpeg;base64,AAAA", "c")
    page = preview_page("t", [SetView("s", (RecordView("r", thumbnails=(thumbnail,)),))])
    assert "http" not in page and "<link" not in page and 'charset="utf-8"' in page
    assert page.count("src=") == 1


def test_repeated_control_tokens_are_counted_and_trained_ones_marked():
    stretches = (Stretch("<|image_pad|>", False, True, 12), Stretch("a", True, False, 2), Stretch("<e>", True, True, 1))
    page = preview_page("t", [SetView("s", (RecordView("r", stretches=stretches),))])
    assert Elements(page).text.strip() == "<|image_pad|> × 12a<e>"
    body = page.partition("<pre>")[2]
    assert (body.count('class="trained '), body.count('control"')) == (2, 2)


def test_quads_of_a_record_and_of_an_answer_are_drawn_and_counted(processor, image):
    quad = Quad((20, 10, 60, 10, 60, 30, 20, 30))
    record = conversation(Image(image), answer=(Reference(""), quad))
    raw = "<|quad_start|>(200,200),(600,200),(600,600),(200,600)<|quad_end|>"
    view = view_record(record, processor, lambda question: raw)
    gold, answered = view.thumbnails
    assert gold.caption.endswith("; quads: 1") and answered.caption.endswith("; quads: 1")
    assert view.gold.endswith(raw)
    for thumbnail in view.thumbnails:
        assert not is_near(opened(thumbnail).getpixel((100, 26)), BLUE)
        assert is_near(opened(thumbnail).getpixel((100, 50)), BLUE)
