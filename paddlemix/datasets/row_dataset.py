"""The data set that training reads from: asked for weighted rows, not for indices."""

from __future__ import annotations

import mmap
from functools import cached_property

import numpy as np
from paddle.io import Dataset

from paddlemix.contract import Sample
from paddlemix.conversation import RecordError, RecordId
from paddlemix.datasets.bad_records import BadRecords
from paddlemix.datasets.mix_dataset import MixDataset
from paddlemix.datasets.mixing.loss_weights import WeightedRow, WeightedSample, count_targets, taken_over
from paddlemix.datasets.replacement import Replacements


class RowDataset(Dataset):
    """A data set that is asked for weighted rows, not for indices.

    Args:
        dataset: encodes the samples.
        bad_records: names records that turn out to be bad; None lets the first of them end the run.
        pack_tokens: that a row may have; None where a row is one sample, which may be as long as the longest.
        trains: another record takes over the weight of a bad one; else, in evaluation, it has none.

    Attributes:
        bad_records: as given.
    """

    bad_records: BadRecords | None

    def __init__(
        self,
        dataset: MixDataset,
        bad_records: BadRecords | None = None,
        *,
        pack_tokens: int | None = None,
        trains: bool = True,
    ) -> None:
        super().__init__()
        self._dataset = dataset
        self.bad_records = bad_records
        self._pack_tokens = pack_tokens
        self._trains = trains
        # 1 + the index of what stands in for each record; in memory that worker processes share.
        shared = mmap.mmap(-1, 4 * max(len(dataset), 1))
        self._stand_ins = np.frombuffer(shared, dtype=np.int32)

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, row: WeightedRow) -> list[WeightedSample]:
        """Encode the samples of a row.

        Args:
            row: names and weighs them.

        Returns:
            The samples with their weights.

        Raises:
            RecordError: a record cannot be encoded, or is not as large as it was measured before training, and none
                takes its place.
        """
        samples: list[WeightedSample] = []
        for place, (index, weight) in enumerate(zip(row.indices, row.weights, strict=True)):
            try:
                samples.append(WeightedSample(self._encode(index), weight))
            except RecordError as error:
                if self.bad_records is None:
                    raise
                others = sum(len(one.sample.input_ids) for one in samples)
                others += sum(self._dataset.sizes[after].tokens for after in row.indices[place + 1 :])
                samples.append(self._stand_in(index, weight, error, others))
        return samples

    def sources(self, row: WeightedRow) -> list[RecordId]:
        """Name the records of a row, those that stand in for others in their places."""
        return [
            self._source(int(self._stand_ins[index]) - 1 if self._stand_ins[index] else index) for index in row.indices
        ]

    @property
    def left_out(self) -> np.ndarray:
        """int64[n], the records whose weight nothing has taken over since `forget_left_out`."""
        return np.flatnonzero(self._stand_ins) if not self._trains else np.empty(0, np.int64)

    def forget_left_out(self) -> None:
        """Begin another evaluation."""
        if not self._trains:
            self._stand_ins[:] = 0

    @cached_property
    def _replacements(self) -> Replacements:
        return Replacements(self._dataset.sizes, self._dataset.mixture.offsets)

    def _stand_in(self, index: int, weight: float, error: RecordError, other_tokens: int) -> WeightedSample:
        """Encode what stands in for a bad record.

        Args:
            index: of the record.
            weight: of each of its target tokens.
            error: why it is bad.
            other_tokens: of the others in its row.

        Returns:
            Another record with the share of the loss that the bad one had, in evaluation with none.

        Raises:
            RecordError: none of the records to try can be used either.
        """
        assert self.bad_records is not None
        most = self._pack_tokens - other_tokens if self._pack_tokens else self._replacements.most_tokens
        candidates = self._replacements.candidates(index, most)
        for other in candidates:
            try:
                sample = self._encode(other)
            except RecordError:
                continue
            self._note(index, other, weight, error)
            targets = (self._dataset.sizes[one].target_tokens for one in (index, other))
            return WeightedSample(sample, taken_over(weight, *targets) if self._trains else 0.0)
        raise RecordError(
            error.source,
            f"{error.problem.rstrip('.')}; and none of {len(candidates)} records of its set that could take its place "
            'can be used either. Look for what has become of the files; `check_media` "full" finds all bad records '
            "before training.",
        ) from error

    def _note(self, index: int, other: int, weight: float, error: RecordError) -> None:
        """Name a bad record once. Rows that only fill up a batch have no weight, and count for nothing."""
        if weight and self.bad_records is not None:
            self._stand_ins[index] = other + 1
            name = self._dataset.set_name(index)
            self.bad_records.add(error, name, self._source(other) if self._trains else None)

    def _encode(self, index: int) -> Sample:
        sample, size = self._dataset[index], self._dataset.sizes[index]
        found = (len(sample.input_ids), count_targets(sample.labels))
        if found != (size.tokens, size.target_tokens):
            raise RecordError(
                self._source(index),
                f"the record has {found[0]} tokens, {found[1]} of them targets, but {size.tokens} and "
                f"{size.target_tokens} were measured before training: an image or video of it has changed since. "
                "Start again, which measures it again.",
            )
        return sample

    def _source(self, index: int) -> RecordId:
        try:
            return self._dataset.conversations[index].source
        except RecordError as error:  # the record file has changed
            return error.source
