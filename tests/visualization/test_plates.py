import random
from itertools import combinations

from paddlemix.visualization.plates import place_plates


def overlap(one, other):
    across = min(one[2], other[2]) - max(one[0], other[0])
    down = min(one[3], other[3]) - max(one[1], other[1])
    return max(0, across) * max(0, down)


def test_a_plate_stands_on_the_top_left_corner_where_there_is_room():
    assert place_plates([(30, 10)], [(40, 50, 90, 90)], (100, 100)) == [(40, 40, 70, 50)]


def test_a_plate_goes_below_a_box_at_the_top_edge():
    assert place_plates([(30, 10)], [(40, 0, 90, 60)], (100, 100)) == [(40, 60, 70, 70)]


def test_a_plate_goes_inside_a_box_that_fills_the_image():
    assert place_plates([(30, 10)], [(0, 0, 100, 100)], (100, 100)) == [(0, 0, 30, 10)]


def test_plates_lie_inside_the_image_and_apart_where_there_is_room():
    lots = random.Random(3)
    crowded = 0
    for _ in range(40):
        corners = [(lots.randrange(0, 260), lots.randrange(0, 260)) for _ in range(8)]
        boxes = [(x, y, x + lots.randrange(1, 40), y + lots.randrange(1, 40)) for x, y in corners]
        sizes = [(lots.randrange(20, 70), 14) for _ in boxes]
        plates = place_plates(sizes, boxes, (300, 300))
        homes = [(x, y - height, x + width, y) for (width, height), (x, y, _, _) in zip(sizes, boxes, strict=True)]
        crowded += any(overlap(*pair) for pair in combinations(homes, 2))
        assert [(right - left, bottom - top) for left, top, right, bottom in plates] == sizes
        assert all(left >= 0 and top >= 0 and right <= 300 and bottom <= 300 for left, top, right, bottom in plates)
        assert not any(overlap(*pair) for pair in combinations(plates, 2))
    assert crowded > 10


def test_ten_plates_of_one_box_find_ten_places():
    plates = place_plates([(40, 12)] * 10, [(50, 50, 80, 80)] * 10, (200, 200))
    assert not any(overlap(*pair) for pair in combinations(plates, 2))


def test_a_plate_larger_than_the_image_starts_at_its_edge():
    assert place_plates([(30, 10)], [(2, 2, 4, 4)], (20, 20))[0][0] == 0
