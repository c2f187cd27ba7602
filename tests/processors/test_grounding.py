import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddlemix.contract import GroundedBox, GroundedPoint, GroundedQuad, Piece, PlaceSizes, ShownSize
from paddlemix.conversation import Box, Image, Point, Quad, RawAnswer, Reference, Text, Turn, Video
from paddlemix.models.qwen2_vl.processing import GROUNDING
from paddlemix.models.qwen_vl.tags import GROUNDING as QWEN_VL_GROUNDING

sides = st.integers(10, 5000)
# Left edges, and widths of at least two thousandths: a narrower box may be nothing at all in thousandths.
starts = st.floats(0, 0.99)
extents = st.floats(0.002, 1)


def shown_sizes(sizes):
    return [ShownSize(size) for size in sizes]


SMALL = shown_sizes([(100, 50)])


def tagged(corners):
    return f"<|box_start|>{corners}<|box_end|>"


def written(*boxes, size):
    """The text of boxes on one image."""
    return "".join(piece.text for piece in GROUNDING.write(Turn("assistant", boxes), PlaceSizes.of_images([size])))


def boxes_in(text, *size):
    """The boxes of an answer about one image."""
    (boxes,) = GROUNDING.parse(text, shown_sizes([size]))
    return boxes


@settings(derandomize=True, deadline=None)
@given(
    width=sides, height=sides, x=starts, y=starts, dx=extents, dy=extents, unit=st.sampled_from(["pixel", "fraction"])
)
def test_a_box_comes_back_from_its_text_within_half_a_thousandth(width, height, x, y, dx, dy, unit):
    x2, y2 = min(x + dx, 1), min(y + dy, 1)
    scale_x, scale_y = (width, height) if unit == "pixel" else (1, 1)
    box = Box(x * scale_x, y * scale_y, x2 * scale_x, y2 * scale_y, unit=unit)
    (found,) = boxes_in(written(box, size=(width, height)), width, height)
    # 999 is the last number there is, so that an edge at 1 comes back as 0.999.
    wanted = [(min(value, 0.999), side) for value, side in ((x, width), (y, height), (x2, width), (y2, height))]
    for value, (fraction, side) in zip(found.box, wanted, strict=True):
        assert abs(value / side - fraction) <= 0.0005 + 1e-9


@given(*[st.lists(st.integers(0, 999), min_size=2, max_size=2, unique=True).map(sorted)] * 2)
@settings(derandomize=True, deadline=None)
def test_thousandths_are_written_as_they_are_whatever_the_images_size(across, down):
    (x1, x2), (y1, y2) = across, down
    corners = (x1, y1, x2, y2)
    assert written(Box(*corners, unit="thousandth"), size=(1237, 77)) == tagged(f"({x1},{y1}),({x2},{y2})")


def test_the_three_units_mean_the_same_box():
    boxes = [
        Box(128, 120, 320, 360, unit="pixel"),
        Box(200, 250, 500, 750, unit="thousandth"),
        Box(0.2, 0.25, 0.5, 0.75, unit="fraction"),
    ]
    assert {written(box, size=(640, 480)) for box in boxes} == {tagged("(200,250),(500,750)")}
    for box in boxes:
        assert box.in_pixels(640, 480) == pytest.approx((128, 120, 320, 360))
        assert box.in_fractions(640, 480) == pytest.approx((0.2, 0.25, 0.5, 0.75))


def test_edges_outside_the_image_are_clipped_to_what_the_model_can_say():
    assert written(Box(-5, -0.1, 640, 700), size=(640, 480)) == tagged("(0,0),(999,999)")


def test_a_turn_is_written_with_everything_in_its_place():
    image, video = Image("a.png"), Video("a.mp4")
    box = Box(0.1, 0.2, 0.3, 0.4, unit="fraction", image=1)
    turn = Turn("user", (image, Text("<|box_start|>"), video, image, Reference("猫"), box, Text("?")))
    assert GROUNDING.write(turn, PlaceSizes.of_images([(9, 9), (10, 10)])) == [
        image,
        Piece("<|box_start|>"),
        video,
        image,
        Piece("<|object_ref_start|>", control=True),
        Piece("猫"),
        Piece("<|object_ref_end|>", control=True),
        Piece("<|box_start|>", control=True),
        Piece("(100,200),(300,400)"),
        Piece("<|box_end|>", control=True),
        Piece("?"),
    ]


@pytest.mark.parametrize("image", [2, -1])
def test_a_box_on_no_image_is_refused_with_both_numbers(image):
    with pytest.raises(ValueError, match=rf"^a box lies on image {image}, but there are 2 images\.$"):
        GROUNDING.write(Turn("user", (Box(1, 2, 3, 4, image=image),)), PlaceSizes.of_images([(10, 10), (10, 10)]))


def test_each_box_takes_the_reference_before_it():
    text = (
        f"{tagged('(1,2),(3,4)')} <|object_ref_start|> 红色的圆 <|object_ref_end|>{tagged('(100,200),(300,400)')}"
        f"{tagged('( 1,2),(3,4)')}{tagged('(0, 0), (1000,1000)')} and <|object_ref_start|>a cat<|object_ref_end|>"
        f"{tagged(' (10,20),(30,40) ')}"
    )
    assert boxes_in(text, 1000, 500) == [
        GroundedBox("", (1, 1, 3, 2)),
        GroundedBox("红色的圆", (100, 100, 300, 200)),
        GroundedBox("红色的圆", (0, 0, 1000, 500)),
        GroundedBox("a cat", (10, 10, 30, 20)),
    ]


@pytest.mark.parametrize(
    "corners",
    [
        "",
        "(1,2)",
        "(1,2),(3",
        "(1,2),(3,4),(5,6)",
        "(a,2),(3,4)",
        "(-1,2),(3,4)",
        "(1.5,2),(3,4)",
        "(30,2),(3,4)",
        "(3,4),(3,9)",
        "(1,2),(3,1001)",
        "(1,2),(3,99999)",
        "(1,2),(3," + "9" * 5000 + ")",
        "1,2,3,4",
    ],
)
def test_a_malformed_box_is_left_as_text_and_the_next_one_is_read(corners):
    text = tagged(corners) + tagged("(1,2),(3,4)")
    assert [found.box for found in boxes_in(text, 1000, 1000)] == [(1, 2, 3, 4)]
    assert GROUNDING.strip(text) == f"{corners}(1,2),(3,4)"


@pytest.mark.parametrize("text", ["", "(1,2),(3,4)", "<|box_start|>(1,2),(3,4)", "(1,2),(3,4)<|box_end|>"])
def test_corners_without_both_tags_are_no_box(text):
    assert boxes_in(text, 1000, 1000) == []


def test_a_reference_that_was_not_closed_does_not_lend_its_tag_to_a_name():
    text = "<|object_ref_start|>a <|object_ref_start|>dog<|object_ref_end|>" + tagged("(1,2),(3,4)")
    (found,) = boxes_in(text, 1000, 1000)
    assert found.label == "a dog"


def test_an_answer_without_its_tags_keeps_names_and_words():
    text = f" The <|object_ref_start|>狗<|object_ref_end|> is at {tagged('(1,2),(3,4)')}. <|quad_start|>(1,1)"
    assert GROUNDING.strip(text) == "The 狗 is at (1,2),(3,4). (1,1)"


def test_boxes_about_several_images_are_measured_on_the_one_mentioned_before_them():
    box = tagged("(100,200),(500,600)")
    text = f"{box} Picture 1: <|object_ref_start|>cat<|object_ref_end|>{box}{box}, Image 2 {box}, 图3{box}"
    sizes = [(1000, 1000), (100, 100), (10, 20)]
    assert GROUNDING.parse(text, shown_sizes(sizes)) == [
        [GroundedBox("cat", (100, 200, 500, 600))] * 2,
        [GroundedBox("cat", (10, 20, 50, 60))],
        [GroundedBox("", (1, 4, 5, 12)), GroundedBox("cat", (1, 4, 5, 12))],
    ]


def test_boxes_about_one_image_all_lie_on_it():
    text = f"Picture 2 {tagged('(100,200),(500,600)')}{tagged('(1,1),(1,1)')}"
    assert GROUNDING.parse(text, shown_sizes([(1000, 1000)])) == [[GroundedBox("", (100, 200, 500, 600))]]


def test_an_answer_about_no_image_has_no_boxes():
    assert GROUNDING.parse(tagged("(100,200),(500,600)"), []) == []


def test_qwen_vls_tags_are_read_as_qwen2_vls_are():
    named = [("<|object_ref_start|>", "<ref>"), ("<|object_ref_end|>", "</ref>")]
    boxes = [("<|box_start|>", "<box>"), ("<|box_end|>", "</box>")]
    answer = (
        "In Picture 1 <|object_ref_start|>a bus<|object_ref_end|><|box_start|>(10,20),(30,40)<|box_end|>"
        "<|box_start|>(50,50),(999,999)<|box_end|> and nothing at <|box_start|>(3,4)<|box_end|>"
    )
    shorter = answer
    for long, short in named + boxes:
        shorter = shorter.replace(long, short)
    found = QWEN_VL_GROUNDING.parse(shorter, shown_sizes([(100, 100), (10, 10)]))
    assert found == GROUNDING.parse(answer, shown_sizes([(100, 100), (10, 10)]))
    assert [len(one) for one in found] == [2, 0]
    assert QWEN_VL_GROUNDING.strip(shorter) == GROUNDING.strip(answer)
    assert QWEN_VL_GROUNDING.parse(answer, shown_sizes([(100, 100)])) == [[]]


@pytest.mark.parametrize(
    "point",
    [Point(615, 226), Point(615, 452, unit="thousandth"), Point(0.615, 0.452, unit="fraction")],
)
def test_a_point_stands_alone_between_the_tags_of_boxes(point):
    turn = Turn("assistant", (Text("click("), Reference("猫"), point, Text(")")))
    sizes = PlaceSizes.of_images([(1000, 500)])
    text = "click(<|object_ref_start|>猫<|object_ref_end|><|box_start|>(615,452)<|box_end|>)"
    assert "".join(piece.text for piece in GROUNDING.write(turn, sizes)) == text
    assert [piece.text for piece in GROUNDING.write(turn, sizes) if piece.control] == [
        *("<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>", "<|box_end|>")
    ]
    assert GROUNDING.parse_points(text, shown_sizes([(1000, 500)])) == [[GroundedPoint("猫", (615, 226))]]
    assert GROUNDING.parse(text, shown_sizes([(1000, 500)])) == [[]]


def test_boxes_and_points_of_an_answer_are_told_apart_and_lie_on_the_image_that_was_mentioned():
    text = f"Picture 1: {tagged('(1,2)')}{tagged('(1,2),(3,4)')} 图2 {tagged('( 5,6)')}{tagged('(5, 6)')}"
    assert GROUNDING.parse_points(text, shown_sizes([(1000, 1000)] * 2)) == [
        [GroundedPoint("", (1, 2))],
        [GroundedPoint("", (5, 6))],
    ]
    assert GROUNDING.parse(text, shown_sizes([(1000, 1000)] * 2)) == [[GroundedBox("", (1, 2, 3, 4))], []]
    assert GROUNDING.parse_points(text, shown_sizes([])) == []


@pytest.mark.parametrize("numbers", ["(1001,2)", "(1)", "(1,2,3)", "(1,2),", "1,2", "(-1,2)", "(1.5,2)", ""])
def test_malformed_points_are_ignored(numbers):
    assert GROUNDING.parse_points(tagged(numbers), shown_sizes([(1000, 1000)])) == [[]]


def test_a_point_outside_the_image_is_moved_to_its_edge():
    assert written(Point(-5, 700), size=(640, 480)) == tagged("(0,999)")


def test_a_point_on_no_image_is_refused():
    with pytest.raises(ValueError, match=r"^a point lies on image 1, but there are 1 images\.$"):
        GROUNDING.write(Turn("user", (Point(1, 2, image=1),)), PlaceSizes.of_images([(10, 10)]))


@pytest.mark.parametrize(
    ("box", "corners"),
    [
        (Box(100, 50, 100.9, 51, unit="pixel"), "(25,25),(26,26)"),
        (Box(3999.2, 10, 4000.3, 30, unit="pixel"), "(998,5),(999,15)"),
        (Box(999.6, 0, 1000, 999.2, unit="thousandth"), "(998,0),(999,999)"),
        (Box(0, 0, 0.0002, 0.0003, unit="fraction"), "(0,0),(1,1)"),
        (Box(0, 0, 4000, 2000), "(0,0),(999,999)"),
    ],
)
def test_a_tiny_box_and_one_at_the_edge_keep_an_area(box, corners):
    text = written(box, size=(4000, 2000))
    assert text == tagged(corners)
    assert len(boxes_in(text, 4000, 2000)) == 1


def quad(corners):
    return f"<|quad_start|>{corners}<|quad_end|>"


QUAD = "(100,200),(500,300),(450,600),(50,400)"


def test_a_quad_stands_between_tags_of_its_own_and_comes_back():
    turn = Turn("assistant", (Reference("sign"), Quad((10, 10, 50, 15, 45, 30, 5, 20))))
    pieces = GROUNDING.write(turn, PlaceSizes.of_images([(100, 50)]))
    text = "".join(piece.text for piece in pieces)
    assert text == f"<|object_ref_start|>sign<|object_ref_end|>{quad(QUAD)}"
    assert [piece.text for piece in pieces if piece.control][2:] == ["<|quad_start|>", "<|quad_end|>"]
    assert GROUNDING.parse_quads(text, SMALL) == [[GroundedQuad("sign", (10, 10, 50, 15, 45, 30, 5, 20))]]
    assert GROUNDING.parse(text, SMALL) == GROUNDING.parse_points(text, SMALL) == [[]]
    assert GROUNDING.strip(text) == f"sign{QUAD}"
    shorter = "".join(piece.text for piece in QWEN_VL_GROUNDING.write(turn, PlaceSizes.of_images([(100, 50)])))
    assert shorter == f"<ref>sign</ref><quad>{QUAD}</quad>"
    assert QWEN_VL_GROUNDING.parse_quads(shorter, SMALL) == GROUNDING.parse_quads(text, SMALL)


@pytest.mark.parametrize(
    "corners",
    [
        "(1,1),(2,1),(2,2)",
        "(1,1),(2,1),(2,2),(1,2),(1,1)",
        "(1,1),(2,2),(3,3),(4,4)",
        "(1,1),(9,1),(1,9),(9,9)",
        "(1,1),(2,1),(2,2),(1,1002)",
        "(1,1),(2,1)",
        "",
    ],
)
def test_malformed_quads_are_ignored(corners):
    assert GROUNDING.parse_quads(quad(corners) + quad(QUAD), shown_sizes([(1000, 1000)])) == [
        [GroundedQuad("", (100, 200, 500, 300, 450, 600, 50, 400))]
    ]


@pytest.mark.parametrize(
    "corners",
    [
        (10.1, 20.1, 10.3, 20.1, 10.3, 20.3, 10.1, 20.3),
        (0, 0, 100, 100, 100, 100.3, 0, 0.3),
        (999.7, 10.2, 1000, 10.2, 1000, 10.4, 999.7, 10.4),
        (10, 20.2, 10.2, 20.4, 10, 20.6, 9.8, 20.4),
    ],
)
def test_a_tiny_quad_keeps_an_area(corners):
    text = written(Quad(corners, unit="thousandth"), size=(100, 100))
    ((found,),) = GROUNDING.parse_quads(text, shown_sizes([(1000, 1000)]))
    assert max(abs(new - old) for new, old in zip(found.corners, corners, strict=True)) <= 2


def test_a_quad_of_an_earlier_answer_is_written_with_its_tags_as_tokens():
    pieces = GROUNDING.write(Turn("assistant", (RawAnswer(quad(QUAD)),)), PlaceSizes(()))
    assert [piece.text for piece in pieces if piece.control] == ["<|quad_start|>", "<|quad_end|>"]


def test_a_box_on_a_video_is_counted_in_thousandths_of_its_frames():
    sizes = PlaceSizes.of_images([(100, 100)])
    turn = Turn("assistant", (Box(128, 72, 640, 360, video=0), Point(640, 360, video=0)))
    with pytest.raises(ValueError, match=r"^a box lies on video 0, but there are 0 videos\.$"):
        GROUNDING.write(turn, sizes)
    sizes = PlaceSizes(sizes.images, videos=[ShownSize((1280, 720))])
    assert "".join(piece.text for piece in GROUNDING.write(turn, sizes)) == tagged("(100,100),(500,500)") + tagged(
        "(500,500)"
    )


OPEN, END = "<|object_ref_start|>", "<|object_ref_end|>"


@pytest.mark.parametrize("answer", [OPEN * 20_000, OPEN * 20_000 + END + OPEN * 20_000, "<|box_start|>(1" * 20_000])
def test_tags_that_are_opened_again_and_again_take_no_time(answer):
    start = time.process_time()
    found = boxes_in(answer + tagged("(100,100),(500,500)"), 100, 50)
    assert [box.box for box in found] == [(10, 5, 50, 25)] and time.process_time() - start < 0.5


def test_names_are_read_up_to_the_last_end_of_one():
    text = f"{OPEN}a{OPEN}b{END}{tagged('(0,0),(500,500)')}{OPEN}c{tagged('(0,0),(500,100)')}"
    assert [box.label for box in boxes_in(text, 100, 50)] == ["ab", "ab"]
