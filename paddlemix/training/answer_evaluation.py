"""Evaluation while training by what the model writes, with the scores of `paddlemix/tools/evaluate.py`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from paddlemix.contract import Model, Processor
from paddlemix.conversation import Conversation
from paddlemix.datasets.mix_dataset import MixDataset
from paddlemix.distributed.ranks import gather_texts
from paddlemix.evaluation.predict import asks_for_boxes, predict_set, unanswered
from paddlemix.evaluation.report import Prediction, score
from paddlemix.evaluation.score_names import ALL_SCORES
from paddlemix.generation import GenerationConfig

_PREDICTIONS: TypeAdapter[list[list[Prediction]]] = TypeAdapter(list[list[Prediction]])


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
    """

    def __init__(
        self, mix: MixDataset, processor: Processor, *, max_new_tokens: int, batch_size: int, limit: int | None = None
    ) -> None:
        self._processor, self._batch_size = processor, batch_size
        self._config = GenerationConfig(max_new_tokens=max_new_tokens)
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
            The numbers of `score`'s report, the same in all ranks: by `<section>_<score>`, such as `vqa_exact_match`.
        """
        mine = [list(self._predict(model, one, rank, ranks)) for one in self._sets]
        texts = gather_texts(f"{rank}\n{_PREDICTIONS.dump_json(mine).decode()}")
        shares = {int(text.partition("\n")[0]): text.partition("\n")[2] for text in texts}
        parts = [_PREDICTIONS.validate_json(shares[one]) for one in range(ranks)]
        return flat_metrics(score([one for sets in zip(*parts, strict=True) for one in _interleave(sets)]))

    def score_names(self) -> list[str]:
        """List the scores that `metrics` gives, whatever the model answers; no model is asked.

        Returns:
            Their names; counts are no scores.

        Raises:
            RecordError: a right answer cannot be scored.
        """
        silent = [
            unanswered(self._processor, conversation, grounding=one.grounding)
            for one in self._sets
            for conversation in one.conversations
        ]
        return [name for name in flat_metrics(score(silent)) if name in ALL_SCORES]

    def _predict(self, model: Model, asked: EvaluationSet, rank: int, ranks: int) -> Iterator[Prediction]:
        return predict_set(
            model,
            self._processor,
            asked.conversations[rank::ranks],
            self._config,
            batch_size=self._batch_size,
            title=asked.name,
            grounding=asked.grounding,
        )


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


def _interleave(parts: Sequence[Sequence[Prediction]]) -> list[Prediction]:
    """Restore the order that the records had before every rank took each `ranks`-th."""
    places = [(place, rank) for rank, part in enumerate(parts) for place in range(len(part))]
    return [parts[rank][place] for place, rank in sorted(places)]
