import numpy as np
import pytest
from PIL import Image

from paddlemix.media.images import ImageError
from paddlemix.models.qwen_vl.chat import drawing
from paddlemix.models.qwen_vl.chat.drawing import draw_on_latest_image, labelled, latest_image


@pytest.fixture
def images(tmp_path, monkeypatch):
    """Two images in the working folder, as the original's cases have them."""
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (333, 211), "grey").save("draw1.png")
    Image.new("RGB", (640, 480), "grey").save("draw2.png")


@pytest.fixture
def drawn(monkeypatch):
    """What is drawn on which image."""
    calls = []

    def draw(image, boxes):
        calls.append((image.size, boxes))
        return image

    monkeypatch.setattr(drawing, "draw_boxes", draw)
    return calls


BOX = "<ref>dog</ref><box>(100,100),(900,900)</box>"


def test_boxes_are_drawn_on_the_image_that_was_shown_last(images):
    history = [("<img>draw2.png</img>", "ok"), ("Picture 1: <img>draw1.png</img>\nfind", BOX), ("and?", None)]
    image = draw_on_latest_image(BOX, history)
    assert image.size == (333, 211)
    grey = (128, 128, 128)
    on_edges = [image.getpixel(place) for place in [(34, 100), (298, 100), (166, 22), (166, 188)]]
    assert grey not in on_edges and len(set(on_edges)) == 1
    assert image.getpixel((166, 100)) == image.getpixel((10, 100)) == grey


@pytest.mark.parametrize("history", [None, [], [("no image", "ok")]])
def test_without_an_image_there_is_nothing_to_draw_on(images, history):
    assert draw_on_latest_image(BOX, history) is None


@pytest.mark.parametrize("response", ["no box", "<box>(1,2),(3,4),(5,6)</box>", "<box>(a,b),(c,d)</box>", "<ref>x"])
def test_without_a_box_there_is_nothing_to_draw(images, response):
    assert draw_on_latest_image(response, [("<img>draw1.png</img>", "ok")]) is None


def test_an_answer_names_no_image_though_the_original_would_open_it(images):
    named = "Picture 1: <img>draw2.png</img>" + BOX
    assert draw_on_latest_image(named, None) is None
    assert latest_image([("<img>draw1.png</img>", named)]) == "draw1.png"


def test_all_boxes_behind_a_name_have_it(images, drawn):
    response = "<ref>a</ref><box>(0,0),(500,500)</box><box>(500,0),(1000,500)</box>"
    draw_on_latest_image(response, [("<img>draw2.png</img>", "ok")])
    ((_, boxes),) = drawn
    assert [box.label for box in boxes] == ["a", "a"]


def test_swapped_corners_are_put_in_order():
    assert labelled("x", (501, 499, 250, 750), (640, 480)).box == pytest.approx((160, 239.52, 320.64, 360))


def test_an_image_that_is_gone_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ImageError, match=r"image gone\.png does not exist"):
        draw_on_latest_image(BOX, [("<img>gone.png</img>", "ok")])


def test_the_tokenizer_draws_too(images, drawn, published_qwen_tokenizer):
    assert published_qwen_tokenizer.draw_bbox_on_latest_image(BOX, [("<img>draw1.png</img>", "ok")]) is not None
    assert [size for size, _ in drawn] == [(333, 211)]


def test_every_case_of_the_original_is_drawn_in_the_same_places(images, drawn, published_qwen_cases):
    cases = published_qwen_cases["draw"]
    assert len(cases) == 6 and sum(case["returned_none"] for case in cases) == 3
    for case in cases:
        drawn.clear()
        is_drawn = draw_on_latest_image(case["response"], case["history"]) is not None
        if case["history"] is None:  # the image of one such case is named by the answer; see above
            assert not is_drawn
            continue
        assert is_drawn != case["returned_none"]
        assert latest_image(case["history"]) == case["latest_picture"]
        wanted = [call for call in case["calls_with_random_seed_0"] if call[0] == "box"]
        found = [box for _, boxes in drawn for box in boxes]
        assert len(found) == len(wanted)
        for box, (_, corners, *_) in zip(found, wanted, strict=True):
            # The original cuts off what is behind the point, and takes swapped corners as they are.
            in_order = [*map(min, corners[:2], corners[2:]), *map(max, corners[:2], corners[2:])]
            np.testing.assert_array_equal(np.floor(box.box), in_order)
        names = [call[1] for call in case["calls_with_random_seed_0"] if call[0] == "text"]
        assert list(dict.fromkeys(box.label for box in found)) == names
