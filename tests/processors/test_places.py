"""Boxes, points and quads against the images that they lie on, for each family."""

from __future__ import annotations

import pytest
from PIL import Image as PillowImage

from paddlemix.contract import PlaceSizes, Processor
from paddlemix.conversation import Box, Conversation, Image, Point, Quad, RecordError, RecordId, Text, Turn
from paddlemix.media.image_headers import EXIF_ORIENTATION
from paddlemix.models.qwen_vl.images import QwenVLImageProcessor
from paddlemix.models.qwen_vl.processing import QwenVLProcessor
from paddlemix.processors.places import check_places, clamped, count_clamped

SIZE = (640, 480)
SIZES = PlaceSizes.of_images([SIZE])
TURNED_BY_A_QUARTER, UPSIDE_DOWN = 6, 3


@pytest.fixture(params=["qwen2_vl", "qwen_vl"])
def processor(request, make_processor, qwen_tokenizer) -> Processor:
    if request.param == "qwen2_vl":
        return make_processor()
    return QwenVLProcessor(qwen_tokenizer, QwenVLImageProcessor(28))


@pytest.fixture
def save_turned(tmp_path):
    """Save an image of 640 x 480 stored pixels and an orientation."""

    def save(orientation: int) -> str:
        exif = PillowImage.Exif()
        exif[EXIF_ORIENTATION] = orientation
        PillowImage.new("RGB", SIZE).save(tmp_path / "turned.jpg", exif=exif)
        return str(tmp_path / "turned.jpg")

    return save


def about(*placed, path="small.jpg") -> Conversation:
    turns = (Turn("user", (Image(path), Text("Find it."))), Turn("assistant", placed))
    return Conversation(turns, RecordId("a.json", 3))


OUTSIDE = {
    "larger": (
        Box(1400, 900, 1700, 1020),
        "box [1400, 900, 1700, 1020] in pixels lies outside its image small.jpg of 640 x 480 pixels: labelled on the "
        "image before it was resized?",
    ),
    "below": (Box(100, 900.5, 300, 1000), "box [100, 900.5, 300, 1000] in pixels lies outside its image"),
    "left": (Box(-30, 10, -1, 20), "expected pixels from the upper left corner"),
    "at the edge": (Box(640, 10, 640.4, 20), "box [640, 10, 640.4, 20] in pixels lies outside"),
    "thousandths": (Box(-30, 10, -1, 20, unit="thousandth"), "in thousandths lies outside"),
    "a point": (Point(647, 10), "point [647, 10] in pixels lies outside its image"),
    "a quad": (Quad((700, 10, 800, 20, 790, 60, 690, 50)), "quad [700, 10, 800, 20, 790, 60, 690, 50] in pixels"),
}


@pytest.mark.parametrize(("placed", "problem"), OUTSIDE.values(), ids=OUTSIDE)
def test_what_lies_outside_is_refused_with_its_numbers_the_size_and_the_cause(placed, problem, monkeypatch):
    monkeypatch.setattr("paddlemix.processors.places.lies_on_its_side", lambda *_: False)
    with pytest.raises(RecordError) as caught:
        check_places(about(placed), SIZES)
    assert str(caught.value).startswith("a.json, record 3: ")
    assert problem in str(caught.value)


INSIDE = {
    "whole": (Box(0, 0, 640, 480), 0, (0, 0, 640, 480)),
    "rounding of a labelling tool": (Box(-0.4, 10, 640.3, 60), 0, (0, 10, 640, 60)),
    "a pixel": (Box(-1, 10, 50, 60), 0, (0, 10, 50, 60)),
    "a pixel of a few": (Box(639.2, 20, 640.3, 100), 1, (639.2, 20, 640, 100)),
    "more than a pixel": (Box(600, 100, 642, 200), 1, (600, 100, 640, 200)),
    "far": (Box(-100, -100, 700, 700), 1, (0, 0, 640, 480)),
    "thousandths": (Box(-2, 0, 500, 1000, unit="thousandth"), 1, (0, 0, 320, 480)),
    "rounding of sums": (Box(0.5, 0.5, 1.0000000000000002, 1, unit="fraction"), 0, (320, 240, 640, 480)),
    "a point": (Point(640.5, 480), 0, (640, 480)),
    "a point within a hundredth": (Point(646, 10), 1, (640, 10)),
    "a quad": (Quad((600, 10, 700, 20, 690, 60, 590, 50)), 1, (600, 10, 640, 20, 640, 60, 590, 50)),
}


@pytest.mark.parametrize(("placed", "count", "pixels"), INSIDE.values(), ids=INSIDE)
def test_what_sticks_out_is_clamped_and_counted_unless_it_is_rounding(placed, count, pixels):
    conversation = about(placed)
    check_places(conversation, SIZES)
    assert count_clamped(conversation, SIZES) == count
    assert clamped(placed, SIZE) == pytest.approx(pixels)


def test_a_thousandth_of_a_large_image_is_rounding():
    box = Box(-3, 10, 4003, 2000)
    assert count_clamped(about(box), PlaceSizes.of_images([(4000, 3000)])) == 0
    assert count_clamped(about(box), PlaceSizes.of_images([(2000, 3000)])) == 1


def test_a_box_on_the_unrotated_image_is_told_apart(save_turned, processor):
    # Upright, the image is 480 x 640.
    conversation = about(Box(500, 10, 630, 60), path=save_turned(TURNED_BY_A_QUARTER))
    with pytest.raises(
        RecordError, match="of 480 x 640 pixels, which its EXIF orientation turns: labelled on the unro"
    ):
        processor.measure(conversation)
    larger = about(Box(900, 10, 1000, 60), path=save_turned(TURNED_BY_A_QUARTER))
    with pytest.raises(RecordError, match="labelled on the image before it was resized"):
        processor.measure(larger)
    upside_down = about(Box(10, 500, 60, 630), path=save_turned(UPSIDE_DOWN))
    with pytest.raises(RecordError, match="labelled on the image before it was resized"):
        processor.measure(upside_down)


def test_measuring_and_encoding_refuse_and_clamp_alike(processor, save_image):
    path = save_image(*SIZE)
    outside, out = about(Box(700, 10, 800, 60), path=path), about(Box(600, 10, 700, 60), path=path)
    for work in (processor.measure, processor.encode):
        with pytest.raises(RecordError, match="lies outside its image"):
            work(outside)
    assert processor.measure(out).clamped == 1
    assert processor.decode(processor.encode(out).input_ids, skip_control_tokens=True).count("(938,21),(999,125)") == 1
    assert processor.measure(about(Box(600, 10, 640.4, 60), path=path)).clamped == 0


@pytest.mark.parametrize("video", [None, 0])
def test_a_box_on_what_is_not_shown_names_the_record(video):
    with pytest.raises(RecordError, match=r"^a\.json, record 3: a box lies on (image 1|video 0), but there are"):
        check_places(about(Box(1, 2, 3, 4, image=1, video=video)), SIZES)
