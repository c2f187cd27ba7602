import itertools
import random

import pytest

from paddlemix.conversation import Box
from paddlemix.evaluation.grounding import grounding_scores, iou, iou_matrix, match_boxes

UNIT = (0, 0, 10, 10)
FAR = (50, 50, 60, 60)
FARTHER = (80, 80, 90, 90)


def accuracy(gold, predicted):
    return grounding_scores([match_boxes(gold, predicted)])["grounding_accuracy@0.5"]


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (UNIT, 1.0),
        ((0, 0, 5, 10), 0.5),
        ((5, 5, 15, 15), 25 / 175),
        ((10, 0, 20, 10), 0.0),
        (FAR, 0.0),
        ((10, 10, 0, 0), 0.0),
        ((5, 5, 5, 5), 0.0),
    ],
)
def test_iou_is_the_shared_area_over_the_area_of_both(other, expected):
    assert iou(UNIT, other) == pytest.approx(expected)
    assert iou(other, UNIT) == pytest.approx(expected)


def test_boxes_of_the_conversation_and_tuples_are_worth_the_same():
    assert iou(Box(0, 0, 10, 10), (0, 0, 5, 10)) == 0.5


def test_boxes_on_different_images_do_not_overlap():
    assert iou(Box(*UNIT, image=1), Box(*UNIT, image=1)) == 1.0
    assert iou(Box(*UNIT, image=0), Box(*UNIT, image=1)) == 0.0


@pytest.mark.parametrize(("gold", "predicted", "shape"), [(0, 0, (0, 0)), (2, 0, (2, 0)), (0, 3, (0, 3))])
def test_a_side_without_boxes_gives_a_matrix_without_rows_or_columns(gold, predicted, shape):
    assert iou_matrix([UNIT] * gold, [UNIT] * predicted).shape == shape


@pytest.mark.parametrize(
    ("predicted", "right"), [((0, 0, 10, 10), 1.0), ((0, 0, 5, 10), 1.0), ((0, 0, 4.99, 10), 0.0), (FAR, 0.0)]
)
def test_one_gold_and_one_predicted_box_is_right_from_iou_one_half(predicted, right):
    assert accuracy([UNIT], [predicted]) == right


@pytest.mark.parametrize(
    ("gold", "predicted", "right"),
    [
        ([UNIT], [], 0.0),
        ([UNIT], [UNIT, FAR], 0.0),
        ([UNIT], [UNIT, UNIT], 0.0),
        ([UNIT, FAR], [UNIT], 0.0),
        ([UNIT, FAR], [FAR, UNIT], 1.0),
        ([UNIT, FAR], [FARTHER, UNIT], 0.0),
        ([], [], 1.0),
        ([], [UNIT], 0.0),
        ([], [(5, 5, 5, 5)], 0.0),
    ],
)
def test_a_missing_or_surplus_or_misplaced_box_makes_a_question_wrong(gold, predicted, right):
    assert accuracy(gold, predicted) == right


def test_pairs_have_the_greatest_total_iou_of_all_pairings():
    lots = random.Random(7)

    def draw():
        x, y = lots.uniform(0, 20), lots.uniform(0, 20)
        return x, y, x + lots.uniform(5, 30), y + lots.uniform(5, 30)

    greedy_would_differ = 0
    for _ in range(60):
        gold, predicted = [draw() for _ in range(3)], [draw() for _ in range(3)]
        totals = [sum(map(iou, gold, order)) for order in itertools.permutations(predicted)]
        found = sum(match_boxes(gold, predicted).ious)
        assert found == pytest.approx(max(totals))
        greedy_would_differ += greedy_total(gold, predicted) < found - 1e-9
    assert greedy_would_differ


def greedy_total(gold, predicted):
    left, total = list(predicted), 0.0
    for box in gold:
        best = max(left, key=lambda candidate: iou(box, candidate))
        total += iou(box, best)
        left.remove(best)
    return total


def test_mean_iou_counts_missing_and_surplus_boxes_as_zero():
    half = (0, 0, 5, 10)
    matches = [match_boxes([UNIT, FAR], [half]), match_boxes([UNIT], [UNIT, FAR, FARTHER]), match_boxes([], [])]
    scores = grounding_scores(matches)
    assert scores["mean_iou"] == pytest.approx((0.5 + 0 + 1.0 + 0 + 0) / 5)
    assert (scores["questions"], scores["gold_boxes"], scores["predicted_boxes"]) == (3, 3, 4)


def test_accuracy_is_told_apart_by_the_number_of_gold_boxes():
    matches = [
        match_boxes([UNIT], [UNIT]),
        match_boxes([UNIT], [FAR]),
        match_boxes([UNIT, FAR], [UNIT, FAR]),
        match_boxes([], []),
        match_boxes([], []),
        match_boxes([], [FAR]),
    ]
    scores = grounding_scores(matches)
    assert scores["grounding_accuracy@0.5"] == pytest.approx(4 / 6)
    assert scores["by_gold_boxes"] == {
        "none": {"questions": 3, "accuracy": pytest.approx(2 / 3)},
        "one": {"questions": 2, "accuracy": 0.5},
        "several": {"questions": 1, "accuracy": 1.0},
    }


def test_groups_without_a_question_are_left_out_and_without_a_box_there_is_no_mean_iou():
    scores = grounding_scores([match_boxes([], [])])
    assert set(scores["by_gold_boxes"]) == {"none"}
    assert scores["mean_iou"] is None


def test_another_threshold_is_obeyed_and_named():
    scores = grounding_scores([match_boxes([UNIT], [(0, 0, 6, 10)])], threshold=0.75)
    assert scores["grounding_accuracy@0.75"] == 0.0


@pytest.mark.parametrize(
    ("gold", "predicted", "problem"),
    [
        ([(5, 5, 5, 9)], [], "no area"),
        ([Box(0, 0, 500, 500, "thousandth")], [], "unit 'thousandth'"),
        ([UNIT], [Box(0, 0, 0.5, 0.5, "fraction")], "unit 'fraction'"),
        ([UNIT], [(0, 0, 10)], "four finite numbers"),
        ([UNIT], [(0, 0, float("nan"), 10)], "four finite numbers"),
    ],
)
def test_boxes_that_are_none_are_refused(gold, predicted, problem):
    with pytest.raises(ValueError, match=problem):
        match_boxes(gold, predicted)


def test_accuracy_of_no_questions_is_an_error():
    with pytest.raises(ValueError, match="0 questions"):
        grounding_scores([])
