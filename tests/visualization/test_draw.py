import warnings

import numpy as np
import pytest
from PIL import Image

from paddlemix.visualization.colors import label_colors
from paddlemix.visualization.draw import LabelledBox, LabelledPoint, LabelledQuad, draw_boxes

GROUND = (90, 100, 110)


def ground(width=200, height=200, mode="RGB"):
    return Image.new("RGB", (width, height), GROUND).convert(mode)


def touched(image):
    """bool[H, W]: where the image differs from the ground."""
    return (np.asarray(image) != GROUND).any(axis=-1)


def color_of(label, *others):
    return label_colors([label, *others])[label]


def test_the_border_lies_on_the_edge_of_the_box_and_all_else_is_untouched():
    image = draw_boxes(ground(), [LabelledBox("", (40, 50, 120, 150))])
    expected = np.zeros((200, 200), dtype=bool)
    expected[50:150, 40:120] = True
    expected[52:148, 42:118] = False
    assert np.array_equal(touched(image), expected)
    assert image.getpixel((40, 50)) == image.getpixel((119, 149)) == color_of("")


def test_the_inside_of_a_labelled_box_is_untouched():
    image = draw_boxes(ground(), [LabelledBox("红色的圆", (40, 50, 120, 150))])
    assert not touched(image)[52:148, 42:118].any()
    assert touched(image)[:50].any()


def test_the_image_given_is_not_changed():
    image = ground()
    before = image.tobytes()
    drawn = draw_boxes(image, [LabelledBox("cat", (10, 10, 60, 60))])
    assert image.tobytes() == before != drawn.tobytes()
    assert draw_boxes(image, []) is not image


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_images_of_every_mode_are_drawn_on_in_colour(mode):
    image = draw_boxes(ground(mode=mode), [LabelledBox("cat", (40, 50, 120, 150))])
    assert image.mode == "RGB"
    assert image.size == (200, 200)
    assert image.getpixel((40, 140)) == color_of("cat")


def test_boxes_of_one_label_share_a_colour_that_no_other_label_has():
    boxes = [(10, 50, 40, 80), (60, 50, 90, 80), (110, 50, 140, 80)]
    labels = ["猫", "dog", "猫"]
    image = draw_boxes(ground(), [LabelledBox(label, box) for label, box in zip(labels, boxes, strict=True)])
    first, second, third = (image.getpixel((box[0], 79)) for box in boxes)
    assert first == third != second


def plate(label):
    """uint8[H, W, 3]: what stands above a box with this label in an image of 400x400."""
    image = draw_boxes(ground(400, 400), [LabelledBox(label, (50, 200, 350, 390))])
    return np.asarray(image)[:200]


def test_two_chinese_labels_look_different():
    red, blue = plate("红"), plate("蓝")
    assert (red != GROUND).any()
    assert (red != blue).any()


def test_labels_are_written_in_black_on_light_colours():
    light = plate("cat")
    assert color_of("cat") == (255, 25, 25)
    assert (light.max(axis=-1) < 60).any()
    assert not (light.min(axis=-1) > 150).any()


def border_width(side):
    image = draw_boxes(ground(side, side), [LabelledBox("", (side // 4, side // 4, side // 2, side // 2))])
    row = touched(image)[side * 3 // 8]
    return int(row.sum()) // 2


def plate_height(side):
    image = draw_boxes(ground(side, side), [LabelledBox("猫", (side // 4, side // 2, side * 3 // 4, side - 1))])
    return int(touched(image)[: side // 2].any(axis=1).sum())


def test_lines_and_letters_grow_with_the_image():
    assert border_width(112) == 2
    assert border_width(2000) == 8
    assert 8 <= plate_height(112) <= 20
    assert plate_height(2000) > 3 * plate_height(112)


def test_boxes_partly_outside_are_clipped_to_the_image():
    image = draw_boxes(ground(), [LabelledBox("", (150, -40, 260, 90))])
    clipped = draw_boxes(ground(), [LabelledBox("", (150, 0, 200, 90))])
    assert image.tobytes() == clipped.tobytes()
    assert touched(image)[40, 199]


@pytest.mark.parametrize(
    "box",
    [(50, 50, 50, 90), (90, 50, 50, 90), (300, 300, 400, 400), (-50, 0, -1, 40), (float("nan"), 0, 10, 10)],
)
def test_a_box_without_area_in_the_image_is_left_out_with_a_warning_that_names_it(box):
    good = LabelledBox("cat", (40, 50, 120, 150))
    with pytest.warns(UserWarning, match="'狗' is not drawn.*200x200") as caught:
        image = draw_boxes(ground(), [LabelledBox("狗", box), good])
    assert len(caught) == 1
    assert image.tobytes() == draw_boxes(ground(), [good]).tobytes()


def test_a_box_thinner_than_a_pixel_still_shows():
    image = draw_boxes(ground(), [LabelledBox("", (50.1, 20, 50.3, 80)), LabelledBox("", (199.8, 199.8, 200, 200))])
    assert touched(image)[20:80, 50].all()
    assert touched(image).sum() == 60 + 1


@pytest.mark.parametrize("size", [(112, 112), (300, 40), (40, 300), (9, 7)])
@pytest.mark.parametrize("label", ["一个非常非常长的标签" * 12, "a label\nof several   lines " * 9, "W" * 300])
def test_a_label_too_long_for_the_image_is_shortened_to_fit(label, size):
    image = draw_boxes(ground(*size), [LabelledBox(label, (1, 1, 6, 6))])
    assert image.size == size
    assert touched(image).any()


def test_a_shortened_label_keeps_its_beginning():
    long, other = (
        draw_boxes(ground(112, 112), [LabelledBox(first + "长" * 60, (10, 60, 90, 100))]) for first in "红蓝"
    )
    plates = [np.asarray(image)[:60] for image in (long, other)]
    differing = (plates[0] != plates[1]).any(axis=(0, 2)).nonzero()[0]
    assert differing.size
    assert differing.max() < 20


def test_no_boxes_leave_the_image_as_it_is_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert draw_boxes(ground(), []).tobytes() == ground().tobytes()


def test_a_point_is_a_dot_in_a_ring_and_all_else_is_untouched():
    image = draw_boxes(ground(), [LabelledPoint("", (100, 60))])
    marked = touched(image)
    rows, columns = np.nonzero(marked)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (52, 68, 92, 108)
    assert image.getpixel((100, 60)) == image.getpixel((92, 60)) == image.getpixel((100, 68)) == color_of("")
    # Between dot and ring the image shows.
    assert not marked[60, 104] and not marked[64, 100]


def test_a_point_shares_the_colour_of_its_label_and_is_named():
    image = draw_boxes(ground(), [LabelledBox("cat", (10, 100, 60, 190)), LabelledPoint("cat", (120, 60))])
    assert image.getpixel((120, 60)) == image.getpixel((10, 189)) == color_of("cat")
    unnamed = draw_boxes(ground(), [LabelledBox("cat", (10, 100, 60, 190)), LabelledPoint("", (120, 60))])
    assert touched(image)[:90, 70:].sum() > touched(unnamed)[:90, 70:].sum()


@pytest.mark.parametrize("point", [(0, 0), (200, 200), (0, 200)])
def test_a_point_at_the_edge_of_the_image_is_drawn(point):
    image = draw_boxes(ground(), [LabelledPoint("猫", point)])
    assert touched(image)[min(point[1], 199), min(point[0], 199)]


@pytest.mark.parametrize("point", [(-1, 5), (5, 201), (float("nan"), 5)])
def test_a_point_outside_the_image_is_left_out_with_a_warning(point):
    with pytest.warns(UserWarning, match=r"point .* of 'cat' is not drawn: it lies outside the image of 200x200"):
        image = draw_boxes(ground(), [LabelledPoint("cat", point)])
    assert not touched(image).any()


def test_a_quad_is_drawn_along_its_sides_and_the_inside_is_untouched():
    diamond = (100, 40, 160, 100, 100, 160, 40, 100)
    before, image = ground(), draw_boxes(ground(), [LabelledQuad("", diamond)])
    for x, y in ((130, 70), (130, 130), (70, 130), (70, 70), (101, 41), (159, 100)):
        assert image.getpixel((x, y)) != before.getpixel((x, y))
    for x, y in ((100, 100), (45, 45), (155, 155)):
        assert image.getpixel((x, y)) == before.getpixel((x, y))


def test_a_quad_shares_the_colour_of_its_label():
    image = draw_boxes(
        ground(), [LabelledBox("cat", (10, 100, 60, 190)), LabelledQuad("cat", (100, 40, 160, 100, 100, 160, 70, 100))]
    )
    assert image.getpixel((10, 150)) == image.getpixel((130, 70))


def test_a_quad_outside_the_image_is_left_out_with_a_warning():
    with pytest.warns(UserWarning, match="of 'cat' is not drawn"):
        image = draw_boxes(ground(), [LabelledQuad("cat", (-9, 1, -1, 1, -1, 9, -9, 9))])
    assert image.tobytes() == ground().tobytes()
