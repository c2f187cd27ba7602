import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddlemix.contract import GroundedBox, GroundedPoint, Piece, PlaceSizes, ShownSize
from paddlemix.conversation import Box, Image, Point, Quad, Reference, Text, Turn, Video
from paddlemix.models.qwen2_vl.images import Qwen2VLImageProcessor
from paddlemix.processors.coordinates import SeenPixels
from paddlemix.processors.json_grounding import JsonPlaces

RESIZED = Qwen2VLImageProcessor().resized
GROUNDING = JsonPlaces(SeenPixels(lambda size: RESIZED(*size)))
# 640 x 480 is seen as 644 x 476.
SIZE = (640, 480)
ONE = PlaceSizes.of_images([SIZE])
PLAIN = JsonPlaces(SeenPixels(lambda size: size))
BUS = {"bbox_2d": [64, 48, 320, 240], "label": "bus"}
BUS_BOX = GroundedBox("bus", (64, 48, 320, 240))

sides = st.integers(10, 5000)
starts, extents = st.floats(0, 1), st.floats(0, 1)


def shown_sizes(sizes):
    return [ShownSize(size) for size in sizes]


def written(*parts, role="assistant", sizes=(SIZE,), grounding=PLAIN):
    return "".join(piece.text for piece in grounding.write(Turn(role, parts), PlaceSizes.of_images(sizes)))


def boxes_in(text, *size):
    (boxes,) = PLAIN.parse(text, shown_sizes([size or SIZE]))
    return boxes


def listed(*entries):
    return json.dumps(entries, ensure_ascii=False)


def test_corners_are_whole_pixels_of_the_resized_image():
    assert RESIZED(*SIZE) == (644, 476)
    text = written(Reference("bus"), Box(64, 48, 320, 240), grounding=GROUNDING)
    # 64 * 644 / 640 is 64.4, 48 * 476 / 480 is 47.6.
    assert text == '[{"bbox_2d": [64, 48, 322, 238], "label": "bus"}]'
    ((found,),) = GROUNDING.parse(text, shown_sizes([SIZE]))
    assert found.label == "bus"
    assert found.box == pytest.approx((63.602, 48.403, 320, 240), abs=1e-3)


@pytest.mark.parametrize(
    "box",
    [Box(64, 48, 320, 240), Box(100, 100, 500, 500, unit="thousandth"), Box(0.1, 0.1, 0.5, 0.5, unit="fraction")],
)
def test_the_three_units_mean_the_same_box(box):
    assert written(box) == '[{"bbox_2d": [64, 48, 320, 240]}]'


@pytest.mark.parametrize(
    ("box", "corners"),
    [
        (Box(-5, -9, 700, 500), [0, 0, 640, 480]),
        (Box(700, 10, 900, 20), [639, 10, 640, 20]),
        (Box(-30, 500, -10, 600), [0, 479, 1, 480]),
        (Box(10.6, 20, 10.9, 20.2), [10, 20, 11, 21]),
    ],
)
def test_edges_outside_the_image_are_clipped_and_every_box_keeps_a_pixel(box, corners):
    assert json.loads(written(box)) == [{"bbox_2d": corners}]


@settings(derandomize=True, deadline=None)
@given(width=sides, height=sides, x=starts, y=starts, dx=extents, dy=extents)
def test_a_box_comes_back_within_a_pixel_of_the_resized_image(width, height, x, y, dx, dy):
    x1, x2, y1, y2 = x * (1 - dx / 2), min(x + dx, 1), y * (1 - dy / 2), min(y + dy, 1)
    text = written(Box(x1, y1, x2, y2, unit="fraction"), sizes=[(width, height)], grounding=GROUNDING)
    ((found,),) = GROUNDING.parse(text, shown_sizes([(width, height)]))
    seen = RESIZED(width, height)
    for edge, wanted, side, pixels in zip(found.box, (x1, y1, x2, y2), (width, height) * 2, seen * 2, strict=True):
        assert 0 <= edge <= side
        assert abs(edge / side - wanted) * pixels <= 1 + 1e-6


def test_words_stay_and_the_boxes_follow_in_one_list():
    parts = (Reference("一辆车"), Box(1, 2, 3, 4), Text(" and "), Reference("a bus"), Box(5, 6, 7, 8), Box(5, 6, 9, 9))
    first, second, third = ({"bbox_2d": corners} for corners in ([1, 2, 3, 4], [5, 6, 7, 8], [5, 6, 9, 9]))
    entries = [{**first, "label": "一辆车"}, {**second, "label": "a bus"}, {**third, "label": "a bus"}]
    assert written(*parts) == f"一辆车 and a bus\n{listed(*entries)}"
    assert [found.label for found in boxes_in(written(*parts))] == ["一辆车", "a bus", "a bus"]


@pytest.mark.parametrize("separator", [", ", "；", "\n", "、"])
def test_an_answer_of_nothing_but_boxes_is_a_bare_list(separator):
    parts = (Reference("a"), Box(1, 2, 3, 4), Text(separator), Reference("b"), Box(5, 6, 7, 8))
    entries = [{"bbox_2d": [1, 2, 3, 4], "label": "a"}, {"bbox_2d": [5, 6, 7, 8], "label": "b"}]
    assert written(*parts) == listed(*entries)


def test_a_name_without_a_box_is_not_lost_from_a_list():
    parts = (Reference("a"), Text(", "), Reference("b"), Box(5, 6, 7, 8))
    assert written(*parts) == f"a, b\n{listed({'bbox_2d': [5, 6, 7, 8], 'label': 'b'})}"


def test_a_box_takes_the_reference_before_it_whatever_words_stand_between():
    parts = (Text("The "), Reference("sheep"), Text(" stands at "), Box(1, 2, 3, 4), Text("."))
    assert written(*parts) == f"The sheep stands at .\n{listed({'bbox_2d': [1, 2, 3, 4], 'label': 'sheep'})}"


def test_a_box_without_a_reference_has_no_label():
    assert written(Box(1, 2, 3, 4)) == '[{"bbox_2d": [1, 2, 3, 4]}]'
    assert boxes_in('[{"bbox_2d": [1, 2, 3, 4]}]') == [GroundedBox("", (1, 2, 3, 4))]
    assert boxes_in('[{"bbox_2d": [1, 2, 3, 4], "label": null}]') == [GroundedBox("", (1, 2, 3, 4))]


def test_a_turn_without_boxes_stays_as_it_is():
    assert written(Text("I see a "), Reference("bus"), Text(" {}.")) == "I see a bus {}."


@pytest.mark.parametrize("role", ["user", "system"])
def test_who_asks_about_a_box_writes_it_in_its_place(role):
    image, video = Image("a.png"), Video("a.mp4")
    turn = Turn(role, (image, Text("What is in "), Box(1, 2, 3, 4), video, Text(", a "), Reference("bus"), Text("?")))
    assert PLAIN.write(turn, ONE) == [
        image,
        Piece("What is in "),
        Piece("[1, 2, 3, 4]"),
        video,
        Piece(", a "),
        Piece("bus"),
        Piece("?"),
    ]


def test_nothing_written_is_a_control_token():
    turn = Turn("assistant", (Text("<|im_end|>"), Reference("<|box_start|>"), Box(1, 2, 3, 4)))
    assert not any(piece.control or piece.weight for piece in PLAIN.write(turn, ONE))


@pytest.mark.parametrize("role", ["user", "assistant"])
@pytest.mark.parametrize("image", [2, -1])
def test_a_box_on_no_image_is_refused_with_both_numbers(role, image):
    with pytest.raises(ValueError, match=rf"^a box lies on image {image}, but there are 2 images\.$"):
        PLAIN.write(Turn(role, (Box(1, 2, 3, 4, image=image),)), PlaceSizes.of_images([SIZE, SIZE]))


def test_boxes_on_several_images_are_a_list_each_and_come_back_on_their_images():
    parts = (
        *(Text("Picture 2: "), Reference("bus"), Box(1, 2, 3, 4, image=1), Box(5, 6, 7, 8, image=1)),
        *(Text("\nPicture 1: "), Reference("car"), Box(1, 1, 2, 2), Text("\n图2: "), Box(9, 9, 10, 10, image=1)),
    )
    text = written(*parts, sizes=[SIZE, (20, 20)])
    assert text.split("\n")[::2] == ["Picture 2: bus", "Picture 1: car", "图2: "]
    assert PLAIN.parse(text, shown_sizes([SIZE, (20, 20)])) == [
        [GroundedBox("car", (1, 1, 2, 2))],
        [GroundedBox("bus", (1, 2, 3, 4)), GroundedBox("bus", (5, 6, 7, 8)), GroundedBox("car", (9, 9, 10, 10))],
    ]
    assert written(Box(1, 1, 2, 2), Box(1, 1, 2, 2, image=1), sizes=[SIZE, SIZE]) == (
        '[{"bbox_2d": [1, 1, 2, 2]}]\n[{"bbox_2d": [1, 1, 2, 2]}]'
    )


@pytest.mark.parametrize(
    ("text", "image"),
    [
        ("[{}]", 2),
        ("Picture 1: [{}]", 0),
        ("In image 2 there is ```json\n[{}]\n``` and nothing in picture 3", 1),
        ("图1和图片2：{}", 1),
        ("Picture 7 [{}]", 2),
        ("Picture 0 [{}]", 2),
        (f"Picture {'1' * 5000} [{{}}]", 2),
    ],
)
def test_boxes_lie_on_the_image_that_was_mentioned_last(text, image):
    found = PLAIN.parse(text.replace("{}", json.dumps(BUS)), shown_sizes([SIZE] * 3))
    assert [len(boxes) for boxes in found] == [int(index == image) for index in range(3)]


def test_a_label_may_say_on_which_image_its_own_box_lies():
    entries = [{**BUS, "label": "the bus in Picture 1"}, {**BUS, "label": "图2的车"}, BUS]
    assert [[found.label for found in boxes] for boxes in PLAIN.parse(listed(*entries), shown_sizes([SIZE] * 3))] == [
        ["the bus in Picture 1"],
        ["图2的车"],
        ["bus"],
    ]


def test_an_answer_about_no_image_has_no_boxes():
    assert PLAIN.parse(listed(BUS), shown_sizes([])) == []


@pytest.mark.parametrize(
    "text",
    [
        listed(BUS),
        json.dumps(BUS),
        json.dumps([BUS], indent="\t"),
        f"```json\n{listed(BUS)}\n```",
        f"```\n{listed(BUS)}\n```",
        f"```json\n{listed(BUS)}",
        f'The "bus" is here: {listed(BUS)} Is that {{all}}?',
        f'He said "bus {{ {listed(BUS)}',
        f"\\{listed(BUS)}",
        '[{"bbox_2d": [64.0, 4.8e1, 320, 240.0], "label": "bus"}]',
        '[{"label": "bus", "score": 0.5, "bbox_2d": [64, 48, 320, 240]}]',
        '{"objects": [{"bbox_2d": [64, 48, 320, 240], "label": "bus"}], "count": 1}',
        '{"bbox_2d": [64, 48, 320, 240], "label": "bus", "attributes": {"color": "red"}}',
        '{"a": {"b": [{"bbox_2d": [64, 48, 320, 240], "label": "bus", "attributes": {"color": "red"}}]}}',
        '{"a": none, "objects": [{"bbox_2d": [64, 48, 320, 240], "label": "bus"}]}',
        f'{listed(BUS)[:-1]}, {{"bbox_2d": [1, 2, 3, 4], "label": "ca',
        f'{listed(BUS)[:-1]}, {{"bbox_2d": [1, 2',
        f'{{"objects": [{json.dumps(BUS)}, {{',
    ],
)
def test_a_box_is_found_wherever_it_stands_and_what_breaks_off_is_ignored(text):
    assert boxes_in(text) == [BUS_BOX]


@pytest.mark.parametrize(
    "label", ['a "big" bus', "a {bus} [1]", "}{", "一辆公交车", "back\\slash", "two\nlines", "", "😀"]
)
def test_labels_may_hold_anything(label):
    parts = (Reference(label), Box(1, 2, 3, 4)) if label else (Box(1, 2, 3, 4),)
    assert boxes_in(written(*parts, Text(","), Box(5, 6, 7, 8))) == [
        GroundedBox(label, (1, 2, 3, 4)),
        GroundedBox(label, (5, 6, 7, 8)),
    ]


def test_a_label_may_hold_a_raw_newline():
    assert boxes_in('[{"bbox_2d": [1, 2, 3, 4], "label": "two\nlines"}]')[0].label == "two\nlines"


@pytest.mark.parametrize(
    "corners",
    [
        "[1, 2, 3]",
        "[1, 2, 3, 4, 5]",
        "[]",
        "7",
        "null",
        '"1, 2, 3, 4"',
        '["1", "2", "3", "4"]',
        "[1, 2, true, 4]",
        "[1, 2, null, 4]",
        "[NaN, 2, 3, 4]",
        "[1, 2, Infinity, 4]",
        f"[1, 2, 1{'0' * 400}, 4]",
        f"[1, 2, 1{'0' * 9000}, 4]",
        "[3, 2, 1, 4]",
        "[1, 4, 3, 2]",
        "[1, 2, 1, 4]",
        "[1, 2, 3, 2]",
        "[700, 10, 800, 20]",
        "[[1, 2], [3, 4]]",
        "[" * 100_000,
    ],
)
def test_malformed_and_empty_boxes_are_ignored(corners):
    text = f'[{{"bbox_2d": {corners}, "label": "car"}}, {json.dumps(BUS)}]'
    assert boxes_in(text) == [BUS_BOX]


def test_edges_outside_the_image_are_clipped():
    assert boxes_in('{"bbox_2d": [-5, -9, 1e9, 500]}') == [GroundedBox("", (0, 0, 640, 480))]


def work_of(text):
    """Measure the least CPU time of three readings: how much there is to do, however busy the machine is."""
    spent = []
    for _ in range(3):
        start = time.process_time()
        PLAIN.parse(text, shown_sizes([SIZE]))
        PLAIN.strip(text)
        spent.append(time.process_time() - start)
    return min(spent)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        '{"',
        '{"a":',
        '{"a":[',
        '{"a":{"b":',
        r"{\"",
        r'{"\"',
        "{}{",
        "{{}",
        '{"a": "',
        "{'a': {}}",
        "```[",
        "```json\n[ \n \n x",
        "picture ",
        "{" + " " * 50,
    ],
)
def test_work_grows_with_the_text_alone(text):
    # Twenty times the text: a linear reader has 20 times as much to do, a quadratic one 400 times.
    short = work_of(text * (20_000 // len(text)))
    assert work_of(text * (400_000 // len(text))) < 100 * max(short, 0.001)


@pytest.mark.parametrize(
    ("text", "read"),
    [
        (' ```json\n[{"bbox_2d": [1, 2, 3, 4]}]\n``` ', '[{"bbox_2d": [1, 2, 3, 4]}]'),
        ('Here:\n```json\n[1]\n```\nand\n```\n{"a": 1}\n```', 'Here:\n[1]\nand\n{"a": 1}'),
        ('```json\n[{"bbox_2d": [1, 2', '[{"bbox_2d": [1, 2'),
        ("a bus\n[]", "a bus\n[]"),
        ("```python\nprint()\n```", "```python\nprint()\n```"),
    ],
)
def test_a_person_reads_the_json_without_fences(text, read):
    assert PLAIN.strip(text) == read


def points_in(text, *size):
    (points,) = PLAIN.parse_points(text, shown_sizes([size or SIZE]))
    return points


def test_points_stand_in_the_list_of_the_boxes_in_their_order():
    parts = (Reference("bus"), Box(1, 2, 3, 4), Text("\n"), Reference("its door"), Point(5, 6), Box(1, 1, 2, 2))
    text = written(*parts)
    assert text == listed(
        {"bbox_2d": [1, 2, 3, 4], "label": "bus"},
        {"point_2d": [5, 6], "label": "its door"},
        {"bbox_2d": [1, 1, 2, 2], "label": "its door"},
    )
    assert boxes_in(text) == [GroundedBox("bus", (1, 2, 3, 4)), GroundedBox("its door", (1, 1, 2, 2))]
    assert points_in(text) == [GroundedPoint("its door", (5, 6))]


def test_a_point_is_counted_in_pixels_of_the_resized_image_and_clipped():
    assert written(Point(64, 48), Point(-3, 999), grounding=GROUNDING) == (
        '[{"point_2d": [64, 48]}, {"point_2d": [0, 476]}]'
    )
    ((first, second),) = GROUNDING.parse_points(
        '[{"point_2d": [322, 238]}, {"point_2d": [-1, 999]}]', shown_sizes([SIZE])
    )
    assert (first.point, second.point) == ((320, 240), (0, 480))


@settings(derandomize=True, deadline=None)
@given(width=sides, height=sides, x=starts, y=starts)
def test_a_point_comes_back_within_half_a_pixel_of_the_resized_image(width, height, x, y):
    text = written(Point(x, y, unit="fraction"), sizes=[(width, height)], grounding=GROUNDING)
    ((found,),) = GROUNDING.parse_points(text, shown_sizes([(width, height)]))
    for value, wanted, side, pixels in zip(found.point, (x, y), (width, height), RESIZED(width, height), strict=True):
        assert abs(value / side - wanted) * pixels <= 0.5 + 1e-6


def test_points_of_several_images_come_back_on_their_images():
    parts = (Text("图1 "), Point(1, 2), Text(" Picture 2: "), Box(1, 2, 3, 4, image=1), Point(5, 6, image=1))
    text = written(*parts, sizes=[SIZE, SIZE])
    assert PLAIN.parse_points(text, shown_sizes([SIZE] * 2)) == [
        [GroundedPoint("", (1, 2))],
        [GroundedPoint("", (5, 6))],
    ]
    assert PLAIN.parse(text, shown_sizes([SIZE] * 2)) == [[], [GroundedBox("", (1, 2, 3, 4))]]


def test_who_asks_about_a_point_writes_it_in_its_place():
    assert written(Text("What is at "), Point(1, 2), Text("?"), role="user") == "What is at [1, 2]?"


@pytest.mark.parametrize("numbers", ["[1]", "[1, 2, 3]", "[1, null]", "[NaN, 2]", '"1, 2"', "7", f"[1, 1{'0' * 400}]"])
def test_malformed_points_are_ignored(numbers):
    text = f'[{{"point_2d": {numbers}, "label": "car"}}, {{"point_2d": [1.5, 2], "label": "a"}}]'
    assert points_in(text) == [GroundedPoint("a", (1.5, 2))]


def test_a_point_on_no_image_is_refused():
    with pytest.raises(ValueError, match=r"^a point lies on image 1, but there are 1 images\.$"):
        PLAIN.write(Turn("assistant", (Point(1, 2, image=1),)), ONE)


@pytest.mark.parametrize("role", ["user", "assistant"])
def test_a_quad_is_refused_with_what_to_do(role):
    quad = Quad((1, 1, 9, 1, 9, 9, 1, 9))
    with pytest.raises(ValueError, match=r'give the box around it, or set `grounding` to "tagged"'):
        written(quad, role=role)
    assert PLAIN.parse_quads('[{"quad_2d": [1, 1, 9, 1, 9, 9, 1, 9]}]', [SIZE, SIZE]) == [[], []]


def test_an_image_that_is_seen_in_a_size_of_its_own_is_counted_in_that():
    sizes = PlaceSizes([ShownSize(SIZE, seen=(320, 240)), ShownSize(SIZE)])
    turn = Turn("assistant", (Box(64, 48, 320, 240), Box(64, 48, 320, 240, image=1)))
    assert "".join(piece.text for piece in PLAIN.write(turn, sizes)).split("\n") == [
        '[{"bbox_2d": [32, 24, 160, 120]}]',
        '[{"bbox_2d": [64, 48, 320, 240]}]',
    ]


def test_a_box_on_a_video_is_counted_on_its_frames():
    sizes = PlaceSizes([ShownSize(SIZE)], videos=[ShownSize((1280, 720), seen=(320, 180))])
    turn = Turn("assistant", (Box(128, 72, 1280, 720, video=0), Box(128, 72, 320, 240)))
    assert "".join(piece.text for piece in PLAIN.write(turn, sizes)).split("\n") == [
        '[{"bbox_2d": [32, 18, 320, 180]}]',
        '[{"bbox_2d": [128, 72, 320, 240]}]',
    ]
    with pytest.raises(ValueError, match=r"^a box lies on video 0, but there are 0 videos\.$"):
        PLAIN.write(turn, ONE)
