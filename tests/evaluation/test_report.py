import json
from dataclasses import FrozenInstanceError, replace

import pytest

from paddlemix.conversation import Box, RecordError, RecordId
from paddlemix.evaluation.report import Prediction, score

BOX = (10.0, 10.0, 30.0, 40.0)
SOURCE = RecordId("eval.json", 7)
FOUND = Prediction("chat", "red circle", (BOX,), (), (BOX,), True, SOURCE)
ANSWERED = Prediction("vqa", "Two.", (), ("2",), (), False, SOURCE)
DESCRIBED = Prediction("caption", "a red circle", (), ("a red circle",), (), False, SOURCE)
SAID = Prediction("chat", "yes", (), ("no",), (), False, SOURCE)


def test_every_prediction_counts_in_exactly_one_section_and_json_can_hold_the_report():
    other = replace(DESCRIBED, text="blue squares lie here", gold_answers=("two blue squares lie here",))
    report = score([FOUND, ANSWERED, DESCRIBED, other, SAID, replace(FOUND, boxes=())])
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert set(report) == {"predictions", "grounding", "vqa", "caption", "chat"}
    assert report["predictions"] == 6
    assert report["grounding"]["questions"] == 2
    assert report["grounding"]["grounding_accuracy@0.5"] == 0.5
    assert report["vqa"] == {"exact_match": 1.0, "questions": 1}
    assert report["chat"] == {"exact_match": 0.0, "questions": 1}
    assert report["caption"]["captions"] == 2
    assert report["caption"]["cider"] > 0


@pytest.mark.parametrize("prediction", [FOUND, ANSWERED, DESCRIBED, SAID])
def test_sections_without_a_prediction_are_left_out(prediction):
    assert set(score([prediction])) == {"predictions", prediction.section}


def test_a_question_for_boxes_counts_as_grounding_whatever_its_task():
    assert set(score([replace(ANSWERED, grounding=True)])) == {"predictions", "grounding"}


def test_a_question_for_points_counts_as_pointing():
    asked = replace(SAID, gold_points=((0.5, 0.5),))
    report = score([replace(asked, points=points) for points in (((0.6, 0.5),), ((0.7, 0.5),), ())])
    assert set(report) == {"predictions", "pointing"}
    assert report["pointing"] == {"accuracy": pytest.approx(1 / 3), "questions": 3}
    assert set(score([replace(DESCRIBED, gold_points=((0.5, 0.5),))])) == {"predictions", "caption"}
    assert set(score([replace(FOUND, gold_points=((0.5, 0.5),))])) == {"predictions", "grounding"}


def test_boxes_of_the_conversation_are_scored_like_tuples():
    report = score([replace(FOUND, gold_boxes=(Box(*BOX),))])
    assert report["grounding"]["mean_iou"] == 1.0


def test_no_predictions_are_an_error():
    with pytest.raises(ValueError, match="0 predictions"):
        score([])


@pytest.mark.parametrize(
    ("changes", "problem"),
    [({"task": "ocr"}, "task is 'ocr', expected one of chat, caption, vqa"), ({"gold_answers": ()}, "without a gold")],
)
def test_a_prediction_that_cannot_be_scored_is_refused_with_its_record(changes, problem):
    with pytest.raises(RecordError, match=f"eval.json, record 7: .*{problem}"):
        replace(ANSWERED, **changes)


@pytest.mark.parametrize(
    ("prediction", "problem"),
    [
        (replace(FOUND, gold_boxes=((5, 5, 5, 5),)), "no area"),
        (replace(FOUND, boxes=(Box(0, 0, 500, 500, "thousandth"),)), "unit 'thousandth'"),
        (replace(DESCRIBED, gold_answers=("...",)), "each with a word"),
    ],
)
def test_what_is_wrong_in_a_record_is_told_with_the_record(prediction, problem):
    with pytest.raises(RecordError, match=f"eval.json, record 7: .*{problem}"):
        score([FOUND, DESCRIBED, prediction])


def test_predictions_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        FOUND.text = "other"
