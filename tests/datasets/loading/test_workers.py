from __future__ import annotations

import multiprocessing
import os
import signal
import time

import numpy as np
import paddle
import pytest

from paddlemix import handover
from paddlemix.conversation import RecordError, RecordId
from paddlemix.datasets.loading.workers import BatchError, BatchLoader, WorkerError

from ...gpu import fake_copies


class Numbers:
    """Item `i` is an array of `i`; some items misbehave."""

    def __init__(self, count, misbehave=None):
        self.count, self.misbehave = count, misbehave or {}

    def __len__(self):
        return self.count

    def __getitem__(self, item):
        self.misbehave.get(item, lambda: None)()
        return np.full((3,), item, dtype=np.int64)

    def sources(self, item):
        return [RecordId("a.json", item)]


class Batches:
    def __init__(self, count, size=2):
        self.batches = [list(range(start, min(start + size, count))) for start in range(0, count, size)]
        self.first = 0

    def begin_at(self, step):
        self.first = step

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        return iter(self.batches[self.first :])


def collate(samples):
    return {"x": np.stack(samples), "n": np.array([len(samples)], dtype=np.int32)}


def loaded(count=21, workers=0, misbehave=None):
    return list(BatchLoader(Numbers(count, misbehave), Batches(count), collate, workers))


def refuse():
    raise RecordError(RecordId("a.json", 7), "its image is broken.")


def fail():
    raise ZeroDivisionError


@pytest.mark.parametrize("workers", [1, 2, 3, 30])
def test_batches_come_in_the_order_of_the_sampler_whatever_the_number_of_workers(workers):
    alone, ahead = loaded(), loaded(workers=workers)
    assert len(alone) == len(ahead) == 11
    for one, other in zip(alone, ahead, strict=True):
        assert isinstance(other["x"], paddle.Tensor)
        for name in ("x", "n"):
            assert one[name].dtype == other[name].dtype
            np.testing.assert_array_equal(one[name].numpy(), other[name].numpy())


def test_a_slow_worker_holds_nothing_back_but_its_own_batch():
    batches = loaded(workers=2, misbehave={2: lambda: time.sleep(0.3)})
    assert [int(batch["x"][0, 0]) for batch in batches] == list(range(0, 21, 2))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_record_ends_the_epoch_with_its_own_error(workers):
    with pytest.raises(RecordError, match=r"^a\.json, record 7: its image is broken\.$"):
        loaded(workers=workers, misbehave={7: refuse})


def test_an_error_in_a_worker_names_the_record_it_was_on():
    with pytest.raises(WorkerError, match=r"failed on a\.json, record 7:\n(.|\n)*ZeroDivisionError"):
        loaded(workers=2, misbehave={7: fail})


@pytest.mark.parametrize("workers", [0, 2])
def test_what_is_wrong_with_a_batch_is_said_in_a_sentence_that_names_its_records(workers):
    def refuse_six(samples):
        if any((sample == 6).any() for sample in samples):
            raise ValueError("`targets` run from 0 to 9; expected tokens from 0 to 5.")
        return collate(samples)

    words = (
        r"^the batch of a\.json, record 6, a\.json, record 7: `targets` run from 0 to 9; expected tokens from 0 to 5\.$"
    )
    with pytest.raises(BatchError, match=words):
        list(BatchLoader(Numbers(21), Batches(21), refuse_six, workers))


@pytest.mark.parametrize(
    ("how", "words"),
    [(lambda: os.kill(os.getpid(), signal.SIGKILL), "was killed by SIGKILL"), (lambda: os._exit(3), "ended with 3")],
)
def test_a_worker_that_dies_names_the_record_it_was_on(how, words):
    with pytest.raises(WorkerError, match=rf"{words}; it was on a\.json, record 7\."):
        loaded(workers=2, misbehave={7: how})


def test_batches_before_a_bad_one_arrive():
    loader = BatchLoader(Numbers(21, {7: fail}), Batches(21), collate, 2)
    seen = []
    with pytest.raises(WorkerError):
        seen.extend(int(batch["x"][0, 0]) for batch in loader)
    assert seen == [0, 2, 4]


def test_a_signal_to_all_processes_of_a_run_stops_no_worker():
    iterator = iter(BatchLoader(Numbers(21), Batches(21), collate, 2))
    seen = [next(iterator), next(iterator)]  # one of each worker, which is thus at work
    workers = multiprocessing.active_children()
    for worker in workers:
        os.kill(worker.pid, signal.SIGTERM)
    seen.extend(iterator)
    assert len(workers) == 2 and [int(batch["x"][0, 0]) for batch in seen] == list(range(0, 21, 2))


def test_workers_end_when_the_epoch_is_given_up():
    loader = BatchLoader(Numbers(1000), Batches(1000), collate, 2)
    iterator = iter(loader)
    next(iterator)
    assert len(multiprocessing.active_children()) == 2
    iterator.close()
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_that_begins_in_the_middle_prepares_nothing_before(workers):
    loader = BatchLoader(Numbers(21, dict.fromkeys(range(8), fail)), Batches(21), collate, workers)
    loader.begin_at(4, 4)
    batches = list(loader)
    assert batches[:4] == [None] * 4
    assert [int(batch["x"][0, 0]) for batch in batches[4:]] == list(range(8, 21, 2))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_card_gets_each_batch_by_one_copy_and_where_there_are_workers_ahead_of_its_step(monkeypatch, workers):
    wanted = loaded()
    copies = fake_copies.install(monkeypatch.setattr)
    found = loaded(workers=workers)
    for one, other in zip(found, wanted, strict=True):
        assert {name: tensor.tolist() for name, tensor in one.items()} == {
            name: tensor.tolist() for name, tensor in other.items()
        }
    assert sorted(kind for kind, _ in copies) == ["copied"] * 11 + ["pinned"] * 11
    by = {kind: {thread == "MainThread" for found, thread in copies if found == kind} for kind in ("copied", "pinned")}
    assert by == {"copied": {True}, "pinned": {workers == 0}}


def test_what_goes_wrong_on_the_way_to_a_card_is_raised_where_batches_are_asked_for(monkeypatch):
    fake_copies.install(monkeypatch.setattr)

    def full(memory):
        raise MemoryError("no room")

    monkeypatch.setattr(handover, "_pinned", full)
    with pytest.raises(MemoryError, match="no room"):
        loaded(workers=2)


def test_a_bad_record_comes_behind_the_batches_before_it_on_a_card_too(monkeypatch):
    fake_copies.install(monkeypatch.setattr)
    seen = []
    with pytest.raises(RecordError, match="record 7"):
        seen.extend(int(batch["x"][0, 0]) for batch in BatchLoader(Numbers(21, {7: refuse}), Batches(21), collate, 2))
    assert seen == [0, 2, 4]
