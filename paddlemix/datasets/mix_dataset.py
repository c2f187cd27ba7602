"""Several sets of records, of any formats, as the one data set that a trainer draws from."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal, get_args

import numpy as np
from paddle.io import Dataset

from paddlemix.contract import ConversationProcessor, Sample
from paddlemix.conversation import Conversation, OverlongError, RecordError
from paddlemix.datasets.loading.checking import Start
from paddlemix.datasets.loading.drawn import DrawnRecords
from paddlemix.datasets.loading.load import LoadedSet, load_set
from paddlemix.datasets.loading.sequences import Chained
from paddlemix.datasets.loading.sizes import SizeTable
from paddlemix.datasets.mixing.mixture import MixedSet, MixStrategy, Mixture
from paddlemix.datasets.records.content import SetContent
from paddlemix.datasets.spec import DatasetSpec

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
        drawn: how many records an epoch draws.
        is_recognised: whether the format was found out from the records.
    """

    name: str
    files: tuple[str, ...]
    sizes: SizeTable
    skipped: int
    drawn: int
    is_recognised: bool = False

    @property
    def count(self) -> int:
        """How many records are usable."""
        return len(self.sizes)


class MixDataset(Dataset):
    """The records of several sets, numbered through; each is read when it is drawn, in the order of the mixture.

    Args:
        sets: the sets, loaded; records in their `errors` are no part of the data set.
        processor: what encodes a record when it is drawn.
        strategy: how the sets are mixed; see `Mixture`.
        seed: of the mixture's order.
        shuffle: draw in another order than that of the files; see `Mixture`.
        on_bad_record: what becomes of records that turn out to be bad once they are drawn: "raise" ends the run, "skip"
            puts others in their place.

    Attributes:
        conversations: all usable records, the first set's first; `dataset[i]` encodes `conversations[i]`.
        sizes: what each of them will cost.
        mixture: in which order an epoch draws them.
        skipped: why each of the other records was left out.
        on_bad_record: as given.
    """

    conversations: Sequence[Conversation]
    sizes: SizeTable
    mixture: Mixture
    skipped: list[RecordError]
    on_bad_record: BadRecordPolicy

    def __init__(
        self,
        sets: Sequence[LoadedSet],
        processor: ConversationProcessor,
        strategy: MixStrategy = "concat",
        seed: int = 0,
        *,
        shuffle: bool = True,
        on_bad_record: BadRecordPolicy = "raise",
    ) -> None:
        super().__init__()
        self._sets = tuple(sets)
        self._processor = processor
        self.conversations = Chained([one.conversations for one in sets])
        self.sizes = SizeTable(np.concatenate([one.sizes.table for one in sets]))
        self.mixture = Mixture(
            tuple(MixedSet(len(one.sizes), one.spec.weight or 1.0, one.spec.repeat) for one in sets),
            strategy,
            seed,
            shuffle,
        )
        self.on_bad_record = on_bad_record
        self.skipped = list(chain.from_iterable(one.errors for one in sets))

    @classmethod
    def load(
        cls,
        specs: Sequence[DatasetSpec],
        processor: ConversationProcessor,
        on_bad_record: BadRecordPolicy = "raise",
        *,
        skip_overlong: bool = False,
        strategy: MixStrategy = "concat",
        seed: int = 0,
        shuffle: bool = True,
        start: Start | None = None,
    ) -> MixDataset:
        """Read, parse and measure all records, so that bad ones are known before training.

        Args:
            specs: the sets, in the order in which they follow one another.
            processor: what measures, in several processes at once, and encodes.
            on_bad_record: "raise" refuses all sets if one record is bad, "skip" leaves bad records out, and replaces
                those that turn out to be bad later.
            skip_overlong: leave records with too many tokens out, whatever becomes of other bad records.
            strategy: how the sets are mixed; see `Mixture`.
            seed: of the mixture's order.
            shuffle: draw in another order than that of the files; see `Mixture`.
            start: what is looked at, and what a run that goes on draws; see `load_set`.

        Returns:
            The data set of all usable records.

        Raises:
            FileNotFoundError: a record file does not exist.
            ValueError: there is no set, a record file as a whole cannot be read, `on_bad_record` is "raise" and
                records are bad (one error names up to 20 of them), a set has no usable record, or records have keys
                that nothing reads (one error names all keys).
        """
        if on_bad_record not in get_args(BadRecordPolicy):
            raise ValueError(f'`on_bad_record` is {on_bad_record!r}; expected "raise" or "skip"')
        if not specs:
            raise ValueError("the data set list is empty; expected at least one set with `name` and `data_files`")
        sets = [load_set(spec, processor, start) for spec in specs]
        _refuse_unknown_keys(sets)
        dataset = cls(sets, processor, strategy, seed, shuffle=shuffle, on_bad_record=on_bad_record)
        dataset._report_became_bad()
        dataset._report_skipped(on_bad_record, skip_overlong)
        dataset._report_cut()
        dataset._report_clamped()
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
            RecordError: the record cannot be encoded, though it could be measured: its image's pixels are broken.
        """
        return self._processor.encode(self.conversations[index])

    def set_summaries(self) -> list[SetSummary]:
        """Summarise what each set contributes, in the order of the sets."""
        return [
            SetSummary(one.spec.name, one.spec.files, one.sizes, len(one.errors), drawn, one.is_recognised)
            for one, drawn in zip(self._sets, self.mixture.draws, strict=True)
        ]

    def set_name(self, index: int) -> str:
        """Return the format's name of the set that a record belongs to."""
        return self._sets[int(self.mixture.set_of([index])[0])].spec.name

    def conversations_by_set(self) -> list[tuple[str, Sequence[Conversation]]]:
        """Return each set's format name and usable records, in the order of the sets."""
        return [(one.spec.name, one.conversations) for one in self._sets]

    def drawn_records(self) -> DrawnRecords:
        """Return what a run that goes on needs to draw the same."""
        return DrawnRecords({one.key: one.table for one in self._sets if one.table is not None})

    def contents(self) -> list[SetContent]:
        """Return what the sets' files hold, in a few numbers each; reads half a gigabyte of each set at most."""
        return [SetContent.of(one.spec.name, one.files, one.media) for one in self._sets]

    def _report_became_bad(self) -> None:
        errors = list(chain.from_iterable(one.became_bad for one in self._sets))
        if errors:
            logger.warning(
                "%d of the %d records that the run began with cannot be used any more; others take their places:\n%s",
                len(errors), len(self), _list_problems(errors),
            )  # fmt: skip

    def _report_skipped(self, on_bad_record: BadRecordPolicy, skip_overlong: bool) -> None:
        if not self.skipped:
            return
        total = len(self) + len(self.skipped)
        refused = [error for error in self.skipped if not (skip_overlong and isinstance(error, OverlongError))]
        if refused and on_bad_record == "raise":
            raise ValueError(
                f"{len(refused)} of {total} records cannot be used:\n{_list_problems(refused)}\n"
                'Correct them, or set `on_bad_record` to "skip" to leave them out.'
            )
        problems = _list_problems(self.skipped)
        logger.warning("%d of %d records are left out:\n%s", len(self.skipped), total, problems)
        for summary in self.set_summaries():
            if not summary.count:
                raise ValueError(
                    f"{summary.name} ({', '.join(summary.files)}): all {summary.skipped} records are bad:\n{problems}"
                )

    def _report_cut(self) -> None:
        column = self.sizes.column("cut_tokens")
        rows = np.flatnonzero(column)
        cut = [
            RecordError(self.conversations[row].source, f"{column[row]} tokens of text are cut off its end.")
            for row in rows[:_LISTED].tolist()
        ]
        if cut:
            logger.warning(
                "%d of %d records are cut to `max_length`:\n%s", len(rows), len(self), _list_problems(cut, len(rows))
            )

    def _report_clamped(self) -> None:
        for one in self._sets:
            column = one.sizes.column("clamped")
            rows = np.flatnonzero(column)
            found = [
                RecordError(one.conversations[row].source, f"{column[row]} of its boxes, points and quads.")
                for row in rows[:_LISTED].tolist()
            ]
            if found:
                logger.warning(
                    "%s: %d boxes, points and quads of %d of %d records stick out of their images, and are clamped to "
                    "them:\n%s",
                    one.spec.name,
                    column.sum(),
                    len(rows),
                    len(one.sizes),
                    _list_problems(found, len(rows)),
                )


def _refuse_unknown_keys(sets: Sequence[LoadedSet]) -> None:
    """Raise a ValueError that lists the keys that nothing reads, of all sets, with how many records have each."""
    lines = []
    for one in sets:
        if one.unknown_keys:
            keys = (f"`{key.text}` ({key.records}, first: {key.first})" for key in one.unknown_keys)
            names = dict.fromkeys(key.text.rpartition(".")[2] for key in one.unknown_keys)
            lines.append(
                f"{', '.join(one.spec.files)} ({one.spec.name}): keys that nothing reads: {', '.join(keys)}. Correct "
                "their spelling, rename them with `columns`, or name them in `ignore_keys` of the set: "
                f"{json.dumps(list(names))}"
            )
    if lines:
        raise ValueError("\n".join(lines))


def _list_problems(errors: Sequence[RecordError], count: int | None = None) -> str:
    """List the first of `count` problems; None counts as many as there are errors."""
    lines = [f"  {error}" for error in errors[:_LISTED]]
    rest = (len(errors) if count is None else count) - len(lines)
    if rest:
        lines.append(f"  and {rest} more")
    return "\n".join(lines)
