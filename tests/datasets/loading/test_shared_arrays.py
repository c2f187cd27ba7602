from __future__ import annotations

import gc
import multiprocessing
import os

import numpy as np
import pytest

from paddlemix.datasets.loading.shared_arrays import SharedArrays


def arrays(rows):
    rng = np.random.default_rng(rows)
    return {
        "pixel_values": rng.standard_normal((rows, 7)).astype(np.float32),
        "labels": rng.integers(-100, 100, (3, rows)),
        "mask": rng.random((rows, 2)).T > 0.5,  # not contiguous
        "none": np.zeros((0, 4), np.int32),
        "number": np.array(rows),
    }


def assert_same(found, wanted):
    assert list(found) == list(wanted)
    for name, array in wanted.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape, name
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize("has_memory_files", [True, False])
def test_what_another_process_writes_is_read_here_however_large_it_is(monkeypatch, has_memory_files):
    if not has_memory_files:
        monkeypatch.delattr(os, "memfd_create", raising=False)
    shared, context = SharedArrays(), multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    sizes = (5, 2, 4000, 1, 9000)

    def write():
        for rows in sizes:
            theirs.send(shared.write(arrays(rows)))
            theirs.recv()

    process = context.Process(target=write)
    process.start()
    for rows in sizes:
        assert_same(shared.read(ours.recv()), arrays(rows))
        ours.send("next")
    process.join()
    assert process.exitcode == 0


def test_arrays_lie_on_cache_lines_and_memory_is_used_again():
    shared = SharedArrays()
    first = shared.read(shared.write(arrays(50)))
    place = first["pixel_values"].ctypes.data
    second = shared.read(shared.write(arrays(40)))
    assert second["pixel_values"].ctypes.data == place
    assert {array.ctypes.data % 64 for array in second.values() if array.size} == {0}


@pytest.mark.parametrize("found", [{}, {"none": np.zeros((0, 3))}])
def test_nothing_can_be_written_too(found):
    shared = SharedArrays()
    assert_same(shared.read(shared.write(found)), found)


def test_the_memory_is_given_back_and_what_was_read_stays():
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    shared = SharedArrays()
    read = shared.read(shared.write(arrays(30)))
    del shared
    gc.collect()
    assert_same(read, arrays(30))
    del read
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before
