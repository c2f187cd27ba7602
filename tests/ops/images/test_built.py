"""How the built image ops are found, on which kernels they run, and how they leave other threads alone."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest

from paddlemix.ops import build as ops_build
from paddlemix.ops.build import BUILD_COMMAND, CHOICE_VARIABLE, Build
from paddlemix.ops.images import built, patchify, resize_bicubic
from paddlemix.ops.images.resize import resize_bicubic_reference
from paddlemix.ops.images.weights import axis_weights

# Prints the set of kernels and a digest of what both ops give at sizes that reach every part of them.
DIGEST = """
import hashlib, sys
import numpy as np
from paddlemix.ops.images import resize_bicubic
from paddlemix.ops.images import built
from paddlemix.ops.images import patchify
rng, digest = np.random.default_rng(0), hashlib.sha256()
levels = rng.standard_normal((3, 256)).astype(np.float32)
cases = (1, 1, (70, 3)), (3, 4, (5, 90)), (50, 70, (67, 19)), (301, 3, (5, 40)), (130, 97, (96, 64))
for height, width, size in cases:
    pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    for precision in ("pillow", "torch"):
        digest.update(resize_bicubic(pixels, *size, precision=precision))
for side, patch_size in ((56, 14), (9, 3), (36, 18)):
    frames = [rng.integers(0, 256, (side, side, 3), dtype=np.uint8) for _ in range(2)]
    digest.update(patchify(frames, levels, patch_size=patch_size, merge_size=1))
library = built.find_library()[0]
assert "paddle" not in sys.modules
print(library.instruction_set if library else "reference", digest.hexdigest())
"""


@pytest.fixture
def only_built() -> built.Library:
    library, reason = built.find_library()
    if library is None:
        pytest.skip(f"no built image ops: {reason}")
    return library


@pytest.fixture
def fresh():
    """Let the search begin as in a process that has called no op yet."""
    built.find_library.cache_clear()
    ops_build.warn_once.cache_clear()
    yield
    built.find_library.cache_clear()
    ops_build.warn_once.cache_clear()


def digest_with(**variables: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", DIGEST], capture_output=True, text=True, env={**os.environ, **variables}, check=True
    )
    return done.stdout.split()


def test_all_kernels_and_the_reference_give_the_same_bytes_without_paddle(only_built):
    reference = digest_with(**{CHOICE_VARIABLE: "reference"})
    assert reference[0] == "reference"
    found = {name: digest_with(PADDLEMIX_OPS_ISA=name) for name in ("plain", "avx2", "avx512")}
    assert found["plain"][0] == "plain"
    assert {digest for _, digest in found.values()} == {reference[1]}


def test_a_build_of_before_the_image_ops_is_named(tmp_path):
    library, reason = built._load(Build(folder=tmp_path, about={"library": "_cpu.so"}))
    assert library is None
    assert f"{tmp_path} has no image ops, build again: {BUILD_COMMAND}" in reason


def test_a_library_that_cannot_be_loaded_is_named(tmp_path):
    (tmp_path / "broken.so").write_text("this is no library")
    library, reason = built._load(Build(folder=tmp_path, about={"images": "broken.so"}))
    assert library is None and "broken.so cannot be loaded" in reason


def test_without_a_build_ops_warn_once_and_compute(fresh, monkeypatch, caplog):
    monkeypatch.delenv(CHOICE_VARIABLE, raising=False)
    monkeypatch.setattr(ops_build.util, "find_spec", lambda name: None)
    pixels = np.full((5, 6, 3), 9, np.uint8)
    with caplog.at_level(logging.WARNING, logger=ops_build.logger.name):
        for _ in range(3):
            assert (resize_bicubic(pixels, 4, 4) == 9).all()
    (record,) = caplog.records
    assert BUILD_COMMAND in record.getMessage()


def test_a_user_who_asks_for_the_reference_gets_it_without_a_warning(fresh, monkeypatch, caplog):
    monkeypatch.setenv(CHOICE_VARIABLE, "reference")
    assert built.wanted_library() is None and not caplog.records


def test_no_memory_for_an_image_is_an_error_of_python():
    built._check(0)
    with pytest.raises(MemoryError, match="image"):
        built._check(1)


@contextmanager
def beating() -> Iterator[list[float]]:
    """Collect moments at which another thread of Python got to run."""
    stop, moments = threading.Event(), []

    def beat() -> None:
        while not stop.wait(0.0005):
            moments.append(time.perf_counter())

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        yield moments
    finally:
        stop.set()
        thread.join()


def test_other_threads_run_while_an_op_computes(only_built):
    pixels, down = np.zeros((4000, 4000, 3), np.uint8), axis_weights(4000, 3999, "pillow")
    # On a busy machine the other thread may not get a core during one call.
    most = 0
    for _ in range(20):
        with beating() as moments:
            start = time.perf_counter()
            resized = only_built.resize(pixels, None, down)
            end = time.perf_counter()
        assert resized.shape == (3999, 4000, 3)
        most = max(most, sum(start < moment < end for moment in moments))
        if most > 2:
            return
    raise AssertionError(f"another thread ran {most} times during one call; with Python's lock held it can do so twice")


def test_threads_that_resize_at_the_same_time_do_not_disturb_one_another(only_built):
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (40 + n, 90 - n, 3), dtype=np.uint8) for n in range(24)]
    levels = rng.standard_normal((3, 256)).astype(np.float32)

    def prepare(pixels: np.ndarray) -> np.ndarray:
        return patchify([resize_bicubic(pixels, 84, 56)] * 2, levels, patch_size=14, merge_size=2)

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(prepare, images * 4))
    for pixels, patches in zip(images * 4, found, strict=True):
        resized = resize_bicubic_reference(pixels, 84, 56)
        np.testing.assert_array_equal(patches, patchify([resized] * 2, levels, patch_size=14, merge_size=2))
