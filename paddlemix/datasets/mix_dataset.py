"""Several sets of records, of any formats, as the one data set that a trainer draws from."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal, get_args

from paddle.io import Dataset

from paddlemix.conversation import Conversation, RecordError
from paddlemix.datasets.loading import LoadedSet, load_set
from paddlemix.datasets.spec import DatasetSpec
from paddlemix.processors.interface import ConversationProcessor, Sample, SampleSize

__all__ = ["BadRecordPolicy", "DatasetSpec", "MixDataset", "SetSummary"]

logger = logging.getLogger(__name__)

BadRecordPolicy = Literal["raise", "skip"]

# How many bad records one message names.
_LISTED = 20


@dataclass(frozen=True)
class SetSummary:
    """What one set contributes.

    Attributes:
        name: the record format's name.
        files: the record files.
        sizes: what each usable record will cost.
        skipped: how many records were left out.
        is_recognised: whether the format was found out from the records.
    """

    name: str
    files: tuple[str, ...]
    sizes: tuple[SampleSize, ...]
    skipped: int
    is_recognised: bool = False

    @property
    def count(self) -> int:
        """How many records are usable."""
        return len(self.sizes)


class MixDataset(Dataset):
    """The records of several sets, one set behind the other; whoever draws from it shuffles.

    Args:
        sets: the sets, loaded; records in their `errors` are no part of the data set.
        processor: what encodes a record when it is drawn.

    Attributes:
        conversations: all usable records, in order; `dataset[i]` encodes `conversations[i]`.
        sizes: what each of them will cost.
        skipped: why each of the other records was left out.
    """

    conversations: tuple[Conversation, ...]
    sizes: tuple[SampleSize, ...]
    skipped: list[RecordError]

    def __init__(self, sets: Sequence[LoadedSet], processor: ConversationProcessor) -> None:
        super().__init__()
        self._sets = tuple(sets)
        self._processor = processor
        self.conversations = tuple(chain.from_iterable(one.conversations for one in sets))
        self.sizes = tuple(chain.from_iterable(one.sizes for one in sets))
        self.skipped = list(chain.from_iterable(one.errors for one in sets))

    @classmethod
    def load(
        cls, specs: Sequence[DatasetSpec], processor: ConversationProcessor, on_bad_record: BadRecordPolicy = "raise"
    ) -> MixDataset:
        """Read, parse and measure all records, so that bad ones are known before training.

        Args:
            specs: the sets, in the order in which they follow one another.
            processor: what measures and encodes; `measure` is called from several threads at once.
            on_bad_record: "raise" refuses all sets if one record is bad, "skip" leaves bad records out.

        Returns:
            The data set of all usable records.

        Raises:
            FileNotFoundError: a record file does not exist.
            ValueError: there is no set, a record file as a whole cannot be read, `on_bad_record` is "raise" and
                records are bad (one error names up to 20 of them), or a set has no usable record.
        """
        if on_bad_record not in get_args(BadRecordPolicy):
            raise ValueError(f'`on_bad_record` is {on_bad_record!r}; expected "raise" or "skip"')
        if not specs:
            raise ValueError("the data set list is empty; expected at least one set with `name` and `data_files`")
        dataset = cls([load_set(spec, processor) for spec in specs], processor)
        dataset._report_skipped(on_bad_record)
        return dataset

    def __len__(self) -> int:
        return len(self.conversations)

    def __getitem__(self, index: int) -> Sample:
        """Encode a record.

        Args:
            index: into `conversations`.

        Returns:
            The record as tokens and pixels.

        Raises:
            RecordError: the record cannot be encoded, though it could be measured: its picture's pixels are broken.
        """
        return self._processor.encode(self.conversations[index])

    def set_summaries(self) -> list[SetSummary]:
        """What each set contributes, in the order of the sets."""
        return [
            SetSummary(one.spec.name, one.spec.files, one.sizes, len(one.errors), one.is_recognised)
            for one in self._sets
        ]

    def conversations_by_set(self) -> list[tuple[str, tuple[Conversation, ...]]]:
        """Each set's format name and usable records, in the order of the sets."""
        return [(one.spec.name, one.conversations) for one in self._sets]

    def _report_skipped(self, on_bad_record: BadRecordPolicy) -> None:
        if not self.skipped:
            return
        total = len(self) + len(self.skipped)
        problems = _list_problems(self.skipped)
        if on_bad_record == "raise":
            raise ValueError(
                f"{len(self.skipped)} of {total} records cannot be used:\n{problems}\n"
                'Correct them, or set `on_bad_record` to "skip" to leave them out.'
            )
        logger.warning("%d of %d records are left out:\n%s", len(self.skipped), total, problems)
        for summary in self.set_summaries():
            if not summary.count:
                raise ValueError(
                    f"{summary.name} ({', '.join(summary.files)}): all {summary.skipped} records are bad:\n{problems}"
                )


def _list_problems(errors: Sequence[RecordError]) -> str:
    lines = [f"  {error}" for error in errors[:_LISTED]]
    if len(errors) > _LISTED:
        lines.append(f"  and {len(errors) - _LISTED} more")
    return "\n".join(lines)
