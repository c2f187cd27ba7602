"""Boxes count pixels of each image in the size in which the model sees it, also where an image has its own."""

import pickle

import pytest

from paddlemix.contract import ShownSize
from paddlemix.conversation import Box, Conversation, Image, ImageSettings, Point, RecordId, Text, Turn
from paddlemix.evaluation.predict import _prediction, question_of
from paddlemix.models.qwen2_5_vl.processing import Qwen25VLProcessor
from paddlemix.models.qwen2_vl.chat_template import Qwen2VLChatTemplate
from paddlemix.models.qwen2_vl.images import Qwen2VLImageProcessor
from paddlemix.visualization.preview import view_record

BOXES = (Box(0.25, 0.5, 0.5, 0.75, unit="fraction"), Box(0.25, 0.5, 0.5, 0.75, unit="fraction", image=1))


@pytest.fixture(params=["json", "tagged"])
def processor(request, tokenizer):
    made = Qwen25VLProcessor(tokenizer, Qwen2VLImageProcessor(), Qwen2VLChatTemplate())
    made.choose_grounding(request.param)
    return pickle.loads(pickle.dumps(made))


@pytest.fixture
def record(save_image):
    """Two images of one size, of which the second asks for another."""
    path = save_image(560, 280)
    asked = Turn("user", (Image(path), Image(path, ImageSettings(resized_height=560, resized_width=112)), Text("?")))
    return Conversation((asked, Turn("assistant", BOXES)), RecordId("records.json", 7))


def numbers(text):
    return [int(number) for number in "".join(one if one.isdigit() else " " for one in text).split() if number != "2"]


def test_a_box_is_written_in_pixels_of_its_own_image_as_it_is_seen(processor, record):
    said = processor.decode(processor.encode(record).input_ids).rpartition("assistant\n")[2]
    assert numbers(said) == [140, 140, 280, 210, 28, 280, 56, 420]
    assert processor.measure(record).tokens == len(processor.encode(record).input_ids)


def test_an_answer_is_read_in_the_same_pixels(processor, record):
    convention, sizes = processor.grounding, processor.place_sizes(record)
    assert sizes.images == [ShownSize((560, 280), (560, 280)), ShownSize((560, 280), (112, 560))]
    written = convention.write(Turn("assistant", (Text("image 1"), BOXES[0], Text("image 2"), BOXES[1])), sizes)
    answer = "".join(piece.text for piece in written)
    found = convention.parse(answer, sizes.images)
    assert [[one.box for one in boxes] for boxes in found] == [[(140, 140, 280, 210)]] * 2
    (_, (point,)) = convention.parse_points(
        "".join(piece.text for piece in convention.write(Turn("assistant", (Point(56, 70, image=1),)), sizes)),
        sizes.images,
    )
    assert point.point == pytest.approx((55, 70))


def test_an_evaluated_answer_lies_where_the_model_said(processor, save_image):
    asked = Turn("user", (Image(save_image(560, 280), ImageSettings(resized_height=560, resized_width=112)), Text("?")))
    record = Conversation((asked, Turn("assistant", (BOXES[0],))), RecordId("records.json", 7))
    sizes = processor.place_sizes(question_of(record))
    raw = "".join(piece.text for piece in processor.grounding.write(record.turns[-1], sizes))
    assert numbers(raw) == [28, 280, 56, 420]
    found = _prediction(processor, record, raw, grounding=True)
    assert found.boxes == found.gold_boxes == ((140, 140, 280, 210),)


def test_a_preview_shows_what_a_model_is_trained_to_say(processor, record):
    view = view_record(record, processor)
    assert numbers(view.gold) == [140, 140, 280, 210, 28, 280, 56, 420]
