from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from paddlemix.contract import SampleSize
from paddlemix.datasets.loading.sizes import SizeTable
from paddlemix.datasets.mixing.packs import PackPlanner
from paddlemix.datasets.mixing.rows import PackedRows, SingleRows
from paddlemix.datasets.mixing.sampler import BatchShape, GlobalBatchSampler
from paddlemix.training.callbacks import throughput
from paddlemix.training.callbacks.throughput import Throughput

LENGTHS, IMAGES = [10, 30, 20, 40, 50], [1, 0, 2, 0, 1]


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until a test moves it."""
    time = SimpleNamespace(now=100.0)
    monkeypatch.setattr(throughput.time, "monotonic", lambda: time.now)
    return time


def make(*, packs=False, **shape):
    """Samples in the order of their numbers."""
    order, lengths = (lambda epoch: np.arange(len(LENGTHS))), np.array(LENGTHS)
    plan = PackedRows(lengths, order, 0, PackPlanner(60)) if packs else SingleRows(lengths, order, 0)
    counts = zip(LENGTHS, IMAGES, strict=True)
    sizes = SizeTable.of(SampleSize(length, 0, 1, images=many) for length, many in counts)
    sampler = GlobalBatchSampler(range(len(LENGTHS)), plan, np.ones(len(LENGTHS), int), BatchShape(**shape))
    return Throughput(SimpleNamespace(sizes=sizes), sampler, packs=packs)


@pytest.mark.parametrize(
    ("shape", "places"),
    [
        ({"rows": 2}, [60, 80, 50]),
        ({"rows": 1, "ranks": 2}, [40, 60, 50]),
        ({"rows": 1, "accumulation": 2}, [40, 60, 50]),
        ({"rows": 2, "ranks": 2}, [120, 50]),  # samples 0 and 2 beside 1 and 3
        ({"rows": 2, "accumulation": 2}, [140, 50]),
        ({"rows": 5, "ranks": 2, "rank": 1}, [230]),
    ],
)
def test_padding_is_what_all_ranks_batches_have_beside_their_tokens(clock, shape, places):
    watched, size = make(**shape), shape["rows"] * shape.get("ranks", 1) * shape.get("accumulation", 1)
    for step, wanted in enumerate(places):
        clock.now += 2
        with watched.paused():
            figures = watched.figures([(0, step)])
        drawn = slice(step * size, (step + 1) * size)
        assert figures["padding"] == pytest.approx(1 - sum(LENGTHS[drawn]) / wanted)
        assert figures["tokens_per_second"] == sum(LENGTHS[drawn]) / 2
        assert figures["images_per_second"] == sum(IMAGES[drawn]) / 2


def test_packs_have_no_padding(clock):
    watched = make(packs=True, rows=2)
    clock.now += 1
    with watched.paused():
        figures = watched.figures([(0, 0), (0, 1)])
    assert figures == {"tokens_per_second": 150, "images_per_second": 4, "padding": 0}


def test_what_is_done_between_steps_takes_no_time_of_theirs(clock):
    watched = make(rows=1)
    for _ in range(3):
        clock.now += 1
        with watched.paused():
            clock.now += 50
    with watched.paused():
        assert watched.figures([(0, step) for step in range(3)])["tokens_per_second"] == 60 / 3
        clock.now += 50
    clock.now += 4
    with watched.paused():
        assert watched.figures([(0, 3), (0, 4)])["tokens_per_second"] == 90 / 4


def test_a_run_is_timed_from_its_beginning_and_in_any_epoch(clock):
    watched = make(rows=1)
    clock.now += 1000
    watched.begin()
    clock.now += 1
    with watched.paused():
        assert watched.figures([]) == {}
        assert watched.figures([(1, 3)])["tokens_per_second"] == LENGTHS[3]
