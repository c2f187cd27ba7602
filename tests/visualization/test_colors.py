import colorsys
from itertools import combinations, pairwise

import pytest

from paddlemix.visualization.colors import BLACK, WHITE, label_colors, text_color


def test_one_label_has_one_colour_and_different_labels_different_ones():
    colors = label_colors(["circle", "圆", "circle", "square"])
    assert list(colors) == ["circle", "圆", "square"]
    assert len(set(colors.values())) == 3


@pytest.mark.parametrize("count", [2, 5, 7, 12, 30])
def test_hues_are_as_far_apart_as_the_circle_allows(count):
    colors = label_colors(map(str, range(count))).values()
    hues = [colorsys.rgb_to_hsv(*(level / 255 for level in color))[0] for color in colors]
    gaps = [min(abs(one - other), 1 - abs(one - other)) for one, other in combinations(hues, 2)]
    assert min(gaps) == pytest.approx(1 / count, abs=0.01)


def test_neighbours_among_many_hues_differ_in_brightness():
    colors = list(label_colors(map(str, range(12))).values())
    assert all(abs(max(one) - max(other)) > 60 for one, other in pairwise(colors))


def test_no_labels_have_no_colours():
    assert label_colors([]) == {}


@pytest.mark.parametrize(
    ("background", "text"),
    [(WHITE, BLACK), (BLACK, WHITE), ((255, 255, 0), BLACK), ((0, 0, 200), WHITE), ((120, 0, 120), WHITE)],
)
def test_text_is_black_on_light_and_white_on_dark(background, text):
    assert text_color(background) == text
