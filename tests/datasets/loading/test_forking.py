from __future__ import annotations

import gc
import multiprocessing
import os

import numpy as np
import pytest

from paddlemix.contract import SampleSize
from paddlemix.conversation import Conversation, RecordId
from paddlemix.datasets.loading import processes
from paddlemix.datasets.loading.forking import ready_to_fork
from paddlemix.datasets.loading.measure import CHUNK, Measuring
from paddlemix.datasets.loading.workers import BatchLoader


class Destroyed:
    """Notes in a file which process destroys it, as one that joins its threads would wait there."""

    def __init__(self, file):
        self.file = file
        self.cycle = self

    def __del__(self):
        with open(self.file, "a") as file:
            file.write(f"{os.getpid()}\n")


@pytest.fixture
def notes(tmp_path):
    """Make a file of notes; some objects lie about destroyed by nobody yet, and one that is in use."""
    file = tmp_path / "notes"
    gc.collect()
    gc.disable()
    for _ in range(3):
        Destroyed(file)
    yield file
    gc.enable()


class CollectingProcessor:
    """Lets its process collect its garbage once a chunk."""

    def measure(self, conversation):
        if conversation.source.index % CHUNK == 0:
            gc.collect()
        return SampleSize(1, 0, 1)


def test_processes_that_measure_destroy_nothing_of_this_one(notes, monkeypatch):
    monkeypatch.setattr(processes, "usable_cores", lambda: 2)
    pids = multiprocessing.get_context("fork").SimpleQueue()

    def parse(row):
        if row % CHUNK == 0:
            pids.put(os.getpid())
        return Conversation((), RecordId("a.json", int(row)))

    measured = Measuring(iter, parse, CollectingProcessor(), "test").measure(np.arange(8 * CHUNK))
    assert len(measured.table) == 8 * CHUNK and not measured.errors
    assert os.getpid() not in {pids.get() for _ in range(8)}
    assert set(notes.read_text().split()) == {str(os.getpid())}


def test_workers_that_prepare_batches_destroy_nothing_of_this_one(notes):
    class Dataset:
        def __getitem__(self, item):
            gc.collect()
            return np.array([os.getpid()])

        def sources(self, item):
            return [item]

    class Sampler(list):
        batch_size = 1

    loader = BatchLoader(Dataset(), Sampler([[0], [1], [2]]), lambda rows: {"pid": np.stack(rows)}, num_workers=2)
    pids = {batch["pid"].item() for batch in loader}
    assert len(pids) == 2 and os.getpid() not in pids
    assert set(notes.read_text().split()) == {str(os.getpid())}


@pytest.mark.parametrize("before", [None, "true"])
def test_what_was_set_is_as_it_was(monkeypatch, before):
    monkeypatch.delenv("TOKENIZERS_PARALLELISM", raising=False)
    if before:
        monkeypatch.setenv("TOKENIZERS_PARALLELISM", before)
    with ready_to_fork():
        assert os.environ["TOKENIZERS_PARALLELISM"] == "false" and gc.get_freeze_count() > 0
    assert os.environ.get("TOKENIZERS_PARALLELISM") == before and gc.get_freeze_count() == 0


def test_who_has_frozen_objects_already_keeps_them_so():
    gc.freeze()
    try:
        with ready_to_fork():
            pass
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()
