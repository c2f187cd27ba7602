"""All scores of one evaluation run, as one dict for a JSON file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, get_args

from paddlemix.conversation import RecordError, RecordId
from paddlemix.evaluation.caption import caption_scores, check_references
from paddlemix.evaluation.grounding import BoxLike, grounding_scores, match_boxes
from paddlemix.evaluation.pointing import PointLike, pointing_scores, points_meet
from paddlemix.evaluation.vqa import vqa_scores

Task = Literal["chat", "caption", "vqa"]


@dataclass(frozen=True)
class Prediction:
    """What a model said to one question, and what it should have said.

    Attributes:
        task: what kind of record asked.
        text: the answer, stripped of tags.
        boxes: the answer's boxes, in pixels of the original image.
        gold_answers: the right answers or reference captions; may be empty where `grounding`.
        gold_boxes: the right boxes, in pixels; empty where nothing is to be found.
        grounding: whether the question asks for boxes.
        source: the record.
        points: the answer's points, in fractions of the image's width and height.
        gold_points: the right points, likewise.
    """

    task: Task
    text: str
    boxes: tuple[BoxLike, ...]
    gold_answers: tuple[str, ...]
    gold_boxes: tuple[BoxLike, ...]
    grounding: bool
    source: RecordId
    points: tuple[PointLike, ...] = ()
    gold_points: tuple[PointLike, ...] = ()

    def __post_init__(self) -> None:
        if self.task not in get_args(Task):
            raise RecordError(self.source, f"task is {self.task!r}, expected one of {', '.join(get_args(Task))}")
        if not self.grounding and not self.gold_answers:
            raise RecordError(self.source, f"a {self.task} question without a gold answer cannot be scored")

    @property
    def section(self) -> str:
        """The part of the report that this counts in."""
        if self.grounding:
            return "grounding"
        return "pointing" if self.gold_points and self.task == "chat" else self.task


def score(predictions: Sequence[Prediction]) -> dict[str, Any]:
    """Score predictions, each in exactly one section.

    Args:
        predictions: what the model said.

    Returns:
        A dict that JSON can hold: `predictions`, their number, and the sections that have any: `grounding` (all
        questions that ask for boxes, of whatever task; see `grounding_scores`), `pointing` (other chats whose
        right answer holds points; see `pointing_scores`), `vqa` and `chat` (`vqa_scores`),
        `caption` (`caption_scores`).

    Raises:
        ValueError: there are no predictions.
        RecordError: a record's boxes are wrong, or a reference caption holds no word.
    """
    if not predictions:
        raise ValueError("0 predictions, expected at least one: is the evaluation set empty?")
    report: dict[str, Any] = {"predictions": len(predictions)}
    for name, compute in _SECTIONS.items():
        members = [prediction for prediction in predictions if prediction.section == name]
        if members:
            report[name] = compute(members)
    return report


def report_of(predictions: Sequence[Prediction], left_out: int | None) -> dict[str, Any]:
    """Score predictions, and say how many records could not be asked about.

    Args:
        predictions: what the model said.
        left_out: records that could not be used; None where the first of them would have ended all.

    Returns:
        What `score` gives, and `left_out`.

    Raises:
        ValueError: there are no predictions.
        RecordError: as `score`.
    """
    if left_out and not predictions:
        raise ValueError(f"none of {left_out} records can be used, so nothing can be scored; the log names them.")
    report = score(predictions)
    return report if left_out is None else {"predictions": report.pop("predictions"), "left_out": left_out, **report}


@contextmanager
def _naming(source: RecordId) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise RecordError(source, str(error)) from error


def _score_boxes(predictions: Sequence[Prediction]) -> dict[str, Any]:
    matches = []
    for prediction in predictions:
        with _naming(prediction.source):
            matches.append(match_boxes(prediction.gold_boxes, prediction.boxes))
    return grounding_scores(matches)


def _score_points(predictions: Sequence[Prediction]) -> dict[str, Any]:
    return pointing_scores([points_meet(prediction.gold_points, prediction.points) for prediction in predictions])


def _score_captions(predictions: Sequence[Prediction]) -> dict[str, Any]:
    for prediction in predictions:
        with _naming(prediction.source):
            check_references(prediction.gold_answers)
    return caption_scores(*_texts(predictions))


def _score_answers(predictions: Sequence[Prediction]) -> dict[str, Any]:
    return vqa_scores(*_texts(predictions))


def _texts(predictions: Sequence[Prediction]) -> tuple[list[str], list[tuple[str, ...]]]:
    return [prediction.text for prediction in predictions], [prediction.gold_answers for prediction in predictions]


_SECTIONS: dict[str, Callable[[Sequence[Prediction]], dict[str, Any]]] = {
    "grounding": _score_boxes,
    "pointing": _score_points,
    "vqa": _score_answers,
    "caption": _score_captions,
    "chat": _score_answers,
}
