from __future__ import annotations

import pickle

import numpy as np
import pytest

from paddlemix.contract import Sample, SampleSize
from paddlemix.conversation import Conversation, RecordError, RecordId, Text, Turn
from paddlemix.datasets.mixing.loss_weights import WeightedRow, count_targets
from paddlemix.datasets.row_dataset import RowDataset


class FakeDataset:
    """Sample i has i + 2 tokens, all of them labels."""

    def __init__(self, measured: list[SampleSize]) -> None:
        self.sizes = measured
        self.conversations = [
            Conversation((Turn("assistant", (Text("a"),)),), RecordId("a.json", index))
            for index in range(len(measured))
        ]

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, index: int) -> Sample:
        ids = np.arange(index + 2)
        return Sample(ids, ids, np.tile(ids, (3, 1)))


def sizes(count: int) -> list[SampleSize]:
    return [SampleSize(index + 2, 0, index + 1) for index in range(count)]


def test_a_row_is_its_samples_with_their_weights():
    dataset = RowDataset(FakeDataset(sizes(5)))
    row = dataset[WeightedRow((3, 1), (0.5, 0.25))]
    assert len(dataset) == 5
    assert [(len(one.sample.input_ids), one.weight) for one in row] == [(5, 0.5), (3, 0.25)]


def test_the_first_token_is_no_target():
    assert count_targets(np.array([5, -100, 6, 7, -100])) == 2
    assert count_targets(np.array([5])) == 0


@pytest.mark.parametrize("other", [SampleSize(4, 0, 2), SampleSize(3, 0, 1)])
def test_a_record_that_is_not_as_it_was_measured_is_named(other):
    dataset = RowDataset(FakeDataset([*sizes(1), other]))
    assert dataset[WeightedRow((0,), (1.0,))]
    with pytest.raises(RecordError, match=r"a\.json, record 1: .* 3 tokens, 2 of them targets, but") as caught:
        dataset[WeightedRow((1,), (1.0,))]
    assert f"but {other.tokens} and {other.target_tokens} were measured" in str(caught.value)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
