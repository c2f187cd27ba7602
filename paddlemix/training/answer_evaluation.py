"""Evaluation while training by what the model writes, with the scores of `paddlemix/tools/evaluate.py`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from paddlemix.contract import Model, Processor
from paddlemix.conversation import Conversation, RecordError
from paddlemix.datasets.bad_records import BadRecords
from paddlemix.datasets.mix_dataset import MixDataset
from paddlemix.distributed.ranks import gather_texts
from paddlemix.evaluation.predict import asks_for_boxes, predict_set, unanswered
from paddlemix.evaluation.report import Prediction, report_of, score
from paddlemix.evaluation.score_names import ALL_SCORES
from paddlemix.generation import GenerationConfig, greedy_config

# Of each set what was said to each question; None where the record could not be used.
Answers = list[list[Prediction | None]]
_ANSWERS: TypeAdapter[Answers] = TypeAdapter(Answers)


@dataclass(frozen=True)
class EvaluationSet:
    """One set of questions.

    Attributes:
        name: of its record format.
        conversations: end with the right answers; read when they are asked for.
        grounding: whether its chats ask for boxes.
    """

    name: str
    conversations: Sequence[Conversation]
    grounding: bool


class AnswerEvaluation:
    """Lets a model answer all evaluation sets; of an answer its text and boxes are kept, nothing that grows with V.

    Args:
        mix: the sets.
        processor: of the model's family.
        max_new_tokens: longest answer.
        batch_size: questions that a rank answers at once.
        limit: ask no more than so many questions, the first ones; None asks all.
        bad_records: names records that cannot be used, which are left out of the scores; None lets the first of them
            end the run.
    """

    def __init__(
        self,
        mix: MixDataset,
        processor: Processor,
        *,
        max_new_tokens: int,
        batch_size: int,
        limit: int | None = None,
        bad_records: BadRecords | None = None,
    ) -> None:
        self._bad_records = bad_records
        self._processor, self._batch_size = processor, batch_size
        self._max_new_tokens = max_new_tokens
        self._sets = []
        for name, conversations in mix.conversations_by_set():
            asked = conversations if limit is None else conversations[:limit]
            limit = None if limit is None else limit - len(asked)
            # By the whole set, as evaluate.py does.
            self._sets.append(EvaluationSet(name, asked, asks_for_boxes(conversations)))

    def metrics(self, model: Model, *, rank: int = 0, ranks: int = 1) -> dict[str, float]:
        """Answer this rank's share of each set, and score the answers of all ranks.

        Args:
            model: in evaluation mode.
            rank: which share of the data this process has.
            ranks: how many shares there are; processes of the same share give the same answers.

        Returns:
            The numbers of `score`'s report, the same in all ranks: by `<section>_<score>`, such as `vqa_exact_match`;
            and `answers_left_out`, how many questions could not be asked, where that is counted.

        Raises:
            ValueError: a record cannot be used or scored, or none is left.
        """
        config = greedy_config(model, max_new_tokens=self._max_new_tokens)
        mine = [list(self._predict(model, one, config, rank, ranks)) for one in self._sets]
        texts = gather_texts(f"{rank}\n{_ANSWERS.dump_json(mine).decode()}")
        shares = {int(text.partition("\n")[0]): text.partition("\n")[2] for text in texts}
        parts = [_ANSWERS.validate_json(shares[one]) for one in range(ranks)]
        said = [one for sets in zip(*parts, strict=True) for one in _interleave(sets)]
        answered = [one for one in said if one is not None]
        if self._bad_records is None:
            return flat_metrics(score(answered))
        report = report_of(answered, len(said) - len(answered))
        return flat_metrics({"answers": {"left_out": report.pop("left_out")}, **report})

    def score_names(self) -> list[str]:
        """List the scores that `metrics` gives, whatever the model answers; no model is asked.

        Returns:
            Their names; counts are no scores.

        Raises:
            RecordError: a right answer cannot be scored.
        """
        silent = [found for one in self._sets for found in self._unanswered(one) if isinstance(found, Prediction)]
        return [name for name in flat_metrics(score(silent)) if name in ALL_SCORES]

    def _unanswered(self, asked: EvaluationSet) -> Iterator[Prediction | RecordError]:
        for place in range(len(asked.conversations)):
            try:
                yield unanswered(self._processor, asked.conversations[place], grounding=asked.grounding)
            except RecordError as error:
                if self._bad_records is None:
                    raise
                yield error

    def _predict(
        self, model: Model, asked: EvaluationSet, config: GenerationConfig, rank: int, ranks: int
    ) -> Iterator[Prediction | None]:
        """Answer a rank's share of a set; None stands for a question that cannot be asked."""
        predictions = predict_set(
            model,
            self._processor,
            asked.conversations[rank::ranks],
            config,
            batch_size=self._batch_size,
            title=asked.name,
            grounding=asked.grounding,
            skip=self._bad_records is not None,
        )
        for found in predictions:
            if isinstance(found, RecordError):
                assert self._bad_records is not None
                self._bad_records.add(found, asked.name, None)
            yield found if isinstance(found, Prediction) else None


def flat_metrics(report: Mapping[str, Any]) -> dict[str, float]:
    """Give the numbers of a report's sections one name each; `exact_match` of `vqa` is `vqa_exact_match`."""
    found: dict[str, float] = {}
    for section, value in report.items():
        if isinstance(value, Mapping):
            found |= {
                f"{section}_{name.removeprefix(f'{section}_')}": number for name, number in flat_metrics(value).items()
            }
        elif isinstance(value, (int, float)):
            found[section] = float(value)
    return found


def _interleave(parts: Sequence[Sequence[Prediction | None]]) -> list[Prediction | None]:
    """Restore the order that the records had before every rank took each `ranks`-th."""
    places = [(place, rank) for rank, part in enumerate(parts) for place in range(len(part))]
    return [parts[rank][place] for place, rank in sorted(places)]
