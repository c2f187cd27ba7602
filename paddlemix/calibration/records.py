"""The records of a fine-tuning config that a model is quantised with, and those that tell what it costs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from paddlemix.configuration.arguments import DatasetItem, FinetuneConfig
from paddlemix.contract import Processor
from paddlemix.datasets.batching import Batching
from paddlemix.datasets.collate import TrainingCollator
from paddlemix.datasets.loading.checking import Start
from paddlemix.datasets.loading.workers import BatchLoader
from paddlemix.datasets.mix_dataset import DatasetSpec, MixDataset
from paddlemix.datasets.mixing.loss_weights import WeightedRow
from paddlemix.datasets.mixing.sampler import BatchShape
from paddlemix.datasets.row_dataset import RowDataset
from paddlemix.media.kept import begin_refetch

# Of records to train on that are too few, one in so many is held out.
_HELD_OUT_SHARE = 10


@dataclass(frozen=True)
class Batch:
    """What a model is called with.

    Attributes:
        inputs: by name.
        places: int64[n], those of tokens among all places counted over rows; None where nothing is padded.
    """

    inputs: dict[str, Any]
    places: np.ndarray | None


@dataclass(frozen=True)
class ChosenRecords:
    """Some records of a set, as batches.

    Attributes:
        dataset: the set.
        chosen: int64[n], which of its records.
        batching: what a row is.
        rows: of a batch.
        processor: the model's.
        pixel_dtype: in which the model computes with pixels.
        name: what the config calls the set.
    """

    dataset: MixDataset
    chosen: np.ndarray
    batching: Batching
    rows: int
    processor: Processor
    pixel_dtype: str
    name: str

    @property
    def tokens(self) -> int:
        """Count their tokens."""
        return int(self._lengths[self.chosen].sum())

    @property
    def said(self) -> str:
        """Say which they are."""
        return f"{len(self.chosen)} of {len(self.dataset)} records of `{self.name}` ({self.tokens} tokens)"

    def __len__(self) -> int:
        """Count the batches."""
        return len(self._sampler())

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches; the losses of all add up to the mean over the records' target tokens."""
        sampler = self._sampler()
        packs = self.batching.pack_tokens
        dataset = RowDataset(self.dataset, pack_tokens=packs, trains=False)
        collator = TrainingCollator(
            self.processor.tokenizer.pad_token_id, packs=self.batching.packs, pixel_dtype=self.pixel_dtype
        )
        for rows, inputs in zip(sampler, BatchLoader(dataset, sampler, collator), strict=True):
            assert inputs is not None
            yield Batch(inputs, None if self.batching.packs else self._places(rows))

    def _places(self, rows: list[WeightedRow]) -> np.ndarray | None:
        lengths = [int(self._lengths[list(row.indices)].sum()) for row in rows]
        if len(set(lengths)) == 1:
            return None
        longest = max(lengths)
        return np.concatenate([np.arange(length) + longest * row for row, length in enumerate(lengths)])

    @property
    def _lengths(self) -> np.ndarray:
        return self.dataset.sizes.column("tokens")

    def _sampler(self) -> Any:
        return self.batching.evaluation(self.dataset, BatchShape(self.rows), chosen=self.chosen)


@dataclass(frozen=True)
class Calibration:
    """What a model is quantised with.

    Attributes:
        records: that show what layers get.
        held_out: others, of which the loss is computed.
    """

    records: ChosenRecords
    held_out: ChosenRecords


def choose_records(
    config: FinetuneConfig, processor: Processor, *, count: int, held_out: int, pixel_dtype: str
) -> Calibration:
    """Choose records of a config: the first that an epoch draws of `dataset.train`, and of `dataset.eval`.

    They depend on the sets and on the config's `seed` alone. Where the config names no `dataset.eval`, those that the
    epoch draws next are held out, a tenth where there are too few.

    Args:
        config: names the sets.
        processor: of the model, with the config's settings.
        count: records to quantise with, at most.
        held_out: records to hold out, at most.
        pixel_dtype: in which the model computes with pixels.

    Returns:
        The records.

    Raises:
        FileNotFoundError: a record file is missing.
        ValueError: there are no records, or bad ones that are not to be skipped.
    """
    data, training = config.data, config.training
    if data.refetch:
        begin_refetch(time.time())
    if not data.dataset.train:
        raise ValueError("`dataset.train` of the calibration's config names no records; expected sets to take some of.")
    batching = Batching(data.max_length if data.mixtoken else None, data.mixtoken_window)
    trained = ChosenRecords(
        _load(config, data.dataset.train, processor, mix_strategy=data.mix_strategy),
        np.empty(0, np.int64),
        batching,
        training["per_device_train_batch_size"],
        processor,
        pixel_dtype,
        "dataset.train",
    )
    order = _drawn(trained.dataset)
    if data.dataset.eval:
        evaluated = replace(
            trained,
            dataset=_load(config, data.dataset.eval, processor),
            rows=training["per_device_eval_batch_size"],
            name="dataset.eval",
        )
        others = _drawn(evaluated.dataset)
    else:
        if len(order) < 2:
            raise ValueError(
                "the calibration's config names one record and no `dataset.eval`; expected a second one, of which the "
                "loss can be computed."
            )
        count = min(count, len(order) - min(held_out, max(len(order) // _HELD_OUT_SHARE, 1)))
        evaluated, others = trained, order[count:]
    return Calibration(replace(trained, chosen=order[:count]), replace(evaluated, chosen=others[:held_out]))


def _load(
    config: FinetuneConfig, items: list[DatasetItem], processor: Processor, *, mix_strategy: Any = "concat"
) -> MixDataset:
    data = config.data
    return MixDataset.load(
        [DatasetSpec(**asdict(item)) for item in items],
        processor,
        data.on_bad_record,
        skip_overlong=data.on_overlong == "skip",
        strategy=mix_strategy,
        seed=config.training["seed"],
        start=Start(data.check_media),
    )


def _drawn(dataset: MixDataset) -> np.ndarray:
    """Return the records that an epoch draws, each once, in their order."""
    order = dataset.mixture.order(0)
    return order[np.sort(np.unique(order, return_index=True)[1])]
