from dataclasses import replace

import pytest

from paddlemix.conversation import RecordId
from paddlemix.evaluation.report import Prediction, score
from paddlemix.evaluation.score_names import ALL_SCORES, SCORES, section_of
from paddlemix.training.answer_evaluation import flat_metrics

BOX = (10.0, 10.0, 30.0, 40.0)
FOUND = Prediction("chat", "", (BOX,), (), (BOX,), True, RecordId("eval.json", 7))
SAID = replace(FOUND, grounding=False, boxes=(), gold_boxes=(), gold_answers=("two red circles lie here",))
VQA, CAPTION = replace(SAID, task="vqa"), replace(SAID, task="caption")
EVERYTHING = [
    *(replace(FOUND, gold_boxes=boxes) for boxes in ((), (BOX,), (BOX, BOX))),
    replace(SAID, gold_points=((0.5, 0.5),)),
    *(VQA, replace(VQA, gold_answers=("two",) * 10)),
    *(CAPTION, replace(CAPTION, gold_answers=("a blue square",))),
    SAID,
]


def test_the_names_are_those_of_all_numbers_that_are_scored_but_counts() -> None:
    counts = ("predictions", "questions", "captions", "gold_boxes", "predicted_boxes")
    given = [name for name in flat_metrics(score(EVERYTHING)) if not name.endswith(counts)]
    assert sorted(given) == sorted(ALL_SCORES) and len(given) == 15


@pytest.mark.parametrize("section", SCORES)
def test_a_score_tells_its_section(section: str) -> None:
    members = [one for one in EVERYTHING if one.section == section]
    names = [name for name in flat_metrics(score(members)) if name in ALL_SCORES]
    assert names and {section_of(name) for name in names} == {section}
    assert section_of(f"{section}_questions") is None
