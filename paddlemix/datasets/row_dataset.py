"""The data set that training reads from: asked for weighted rows, not for indices."""

from __future__ import annotations

from paddle.io import Dataset

from paddlemix.cache import cache_folder
from paddlemix.contract import Sample
from paddlemix.conversation import RecordError, RecordId
from paddlemix.datasets.mix_dataset import MixDataset
from paddlemix.datasets.mixing.loss_weights import WeightedRow, WeightedSample, count_targets


class RowDataset(Dataset):
    """A data set that is asked for weighted rows, not for indices.

    Args:
        dataset: encodes the samples.
    """

    def __init__(self, dataset: MixDataset) -> None:
        super().__init__()
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, row: WeightedRow) -> list[WeightedSample]:
        """Encode the samples of a row.

        Args:
            row: names and weighs them.

        Returns:
            The samples with their weights.

        Raises:
            RecordError: a record cannot be encoded, or is not as large as it was measured before training.
        """
        return [
            WeightedSample(self._encode(index), weight) for index, weight in zip(row.indices, row.weights, strict=True)
        ]

    def sources(self, row: WeightedRow) -> list[RecordId]:
        """Name the records of a row."""
        return [self._dataset.conversations[index].source for index in row.indices]

    def _encode(self, index: int) -> Sample:
        sample, size = self._dataset[index], self._dataset.sizes[index]
        found = (len(sample.input_ids), count_targets(sample.labels))
        if found != (size.tokens, size.target_tokens):
            raise RecordError(
                self._dataset.conversations[index].source,
                f"the record has {found[0]} tokens, {found[1]} of them targets, but {size.tokens} and "
                f"{size.target_tokens} were measured before training: an image or video of it has changed since. "
                f"Remove {cache_folder('sizes')}, where sizes are kept from run to run, and start again.",
            )
        return sample
