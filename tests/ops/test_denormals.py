"""Denormal numbers are 0 in every thread that computes: their control registers are read back."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys

import numpy as np
import paddle
import pytest

from paddlemix import ops
from paddlemix.ops import denormals
from paddlemix.ops.tensors import built

# MXCSR's bits: results and operands that are flushed, and what was seen since they were cleared.
FLUSHED, DENORMAL_OPERAND, UNDERFLOW = 0x8040, 0x02, 0x10
DENORMAL = 1e-39


@pytest.fixture
def built_ops():
    """The built ops, which are left as they were found."""
    found = built.library()
    if found.handle is None:
        pytest.skip(f"no built ops: {found.reason}")
    threads = ops.num_threads()
    yield found.handle
    ops.set_num_threads(threads)
    found.handle.paddlemix_flush_denormals(denormals.are_to_be_flushed(os.environ))


THREADS = """
import ctypes
import json
import threading
import numpy as np
import paddlemix
import paddle
from paddlemix import ops
from paddlemix.datasets.loading.workers import BatchLoader
from paddlemix.ops.denormals import are_flushed
from paddlemix.ops.tensors import built

class Records:
    def __len__(self):
        return 4
    def __getitem__(self, item):
        return np.array([are_flushed()])
    def sources(self, item):
        return [str(item)]

def threads_of(kind):
    found = (ctypes.c_uint32 * 3)()
    built.library().handle.paddlemix_control_registers(3, kind, found)
    return [value & 0x8040 == 0x8040 for value in found]

def look():
    started = []
    thread = threading.Thread(target=lambda: started.append(are_flushed()))
    thread.start()
    thread.join()
    loader = BatchLoader(Records(), [[0, 1], [2, 3]], lambda samples: {"flushed": np.stack(samples)}, num_workers=1)
    return {
        "this thread": are_flushed(),
        "Paddle's team": threads_of(0),
        "oneDNN's team": threads_of(1),
        "our own loops": threads_of(2),
        "started": started,
        "workers": [bool(one) for batch in loader for one in batch["flushed"].numpy().ravel()],
        "Paddle's products": bool((paddle.matmul(small, large).numpy() == 0).all()),
        "our products": bool((ops.linear(small, large).numpy() == 0).all()),
    }

small, large = (paddle.to_tensor(np.full((1024, 1024), value, np.float32)) for value in (1e-39, 1e3))
ops.linear(large, large)  # the team is older than what follows
found = [look()]
with ops.flushed_denormals():
    found.append(look())
    for dtype in (np.float16, np.float32, np.float64, np.complex64, np.complex128):
        np.finfo(dtype).smallest_subnormal, str(np.finfo(dtype))
found.append(look())
print(json.dumps(found))
"""
ALL = {
    "this thread": True,
    "Paddle's team": [True] * 3,
    "oneDNN's team": [True] * 3,
    "our own loops": [True] * 3,
    "started": [True],
    "workers": [True] * 4,
    "Paddle's products": True,
    "our products": True,
}
NONE = {name: [False] * len(flushes) if isinstance(flushes, list) else False for name, flushes in ALL.items()}
BUILT_OPS = {**NONE, **{name: ALL[name] for name in ("oneDNN's team", "our own loops", "our products")}}


@pytest.mark.parametrize(
    ("variables", "around", "within"),
    [({}, BUILT_OPS, ALL), ({"PADDLEMIX_DENORMALS": "keep"}, NONE, NONE)],
    ids=["flush", "keep"],
)
def test_every_thread_that_computes_flushes_or_none(built_ops, variables, around, within):
    environment = {**os.environ, "MKL_NUM_THREADS": "3", "OMP_NUM_THREADS": "3", **variables}
    # NumPy, which warns where it finds out that denormals are 0, must not.
    command = [sys.executable, "-W", "error:The value of the smallest subnormal", "-c", THREADS]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [around, within, around]


def test_results_are_flushed_the_same_whatever_the_number_of_threads(built_ops):
    rng = np.random.default_rng(0)
    # Some are denormal, some become so on the way: 2e-38 halved by a sigmoid, 1e-20 squared.
    scales = np.array([1.0, 1e-20, 2e-38, DENORMAL], np.float32)
    arrays = [rng.standard_normal((4096, 64)).astype(np.float32) * rng.choice(scales, (4096, 64)) for _ in range(2)]
    assert (np.abs(arrays[0].view(np.uint32) & 0x7FFFFFFF) < 0x00800000).mean() > 0.1

    def compute(threads):
        ops.set_num_threads(threads)
        x, y = (paddle.to_tensor(array, stop_gradient=False) for array in arrays)
        values = [ops.swiglu(x, y), ops.quick_gelu(x), ops.rms_norm(x, y[0], 1e-6)]
        paddle.autograd.backward([value.sum() for value in values])
        return np.concatenate([one.numpy().ravel().view(np.uint32) for one in (*values, x.grad, y.grad)]) & 0x7FFFFFFF

    def denormal(bits):
        return ((bits > 0) & (bits < 0x00800000)).sum()

    with ops.flushed_denormals():
        one, two, five = (compute(threads) for threads in (1, 2, 5))
    assert (one == two).all() and (one == five).all() and denormal(one) == 0
    built_ops.paddlemix_flush_denormals(False)
    assert denormal(compute(1)) > 1000


class Seen:
    """What this thread's control register has seen of denormals since it was made."""

    def __init__(self):
        self._library = ctypes.CDLL(None)
        self._environment = (ctypes.c_uint32 * 8)()
        self._library.fegetenv(self._environment)
        self._environment[7] &= ~0x3F
        self._library.fesetenv(self._environment)

    def now(self):
        self._library.fegetenv(self._environment)
        return self._environment[7] & (DENORMAL_OPERAND | UNDERFLOW)


def head_loss(rng):
    hidden, weight = (
        paddle.to_tensor(rng.standard_normal(shape).astype(np.float32)) for shape in ((40, 512), (512, 999))
    )
    hidden.stop_gradient = weight.stop_gradient = False
    targets = paddle.to_tensor(rng.integers(0, 999, 40))
    return lambda: ops.linear_cross_entropy(hidden, weight, targets).backward()


def attention(rng):
    tensors = [paddle.to_tensor(8 * rng.standard_normal((1, 200, 2, 64)).astype(np.float32)) for _ in range(3)]
    for tensor in tensors:
        tensor.stop_gradient = False
    upstream = paddle.to_tensor(1e-3 * rng.standard_normal((1, 200, 2, 64)).astype(np.float32))
    return lambda: ops.attention(*tensors, ops.CausalMask()).backward(upstream)


@pytest.mark.skipif(sys.platform != "linux", reason="the register is read with glibc's fegetenv")
@pytest.mark.parametrize("make", [head_loss, attention])
def test_a_softmax_makes_none_where_they_are_kept(built_ops, make):
    # Scores of deviation 22 and more: most weights are below 1e-38 times the largest.
    ops.set_num_threads(1)
    built_ops.paddlemix_flush_denormals(False)
    call = make(np.random.default_rng(0))
    call()  # oneDNN's code is made in the first one
    seen = Seen()
    call()
    assert seen.now() == 0
    # The register does see them.
    ops.swiglu(paddle.full([64], DENORMAL), paddle.ones([64]))
    assert seen.now() & DENORMAL_OPERAND


def test_a_word_that_says_neither_is_warned_of_once(caplog):
    denormals._warn_once.cache_clear()
    assert denormals.are_to_be_flushed({}) and not denormals.are_to_be_flushed({"PADDLEMIX_DENORMALS": "keep"})
    assert not caplog.records
    assert all(denormals.are_to_be_flushed({"PADDLEMIX_DENORMALS": "no"}) for _ in range(3))
    (record,) = caplog.records
    assert "PADDLEMIX_DENORMALS is 'no'" in record.getMessage() and "'keep'" in record.getMessage()


def test_other_processors_are_left_alone(monkeypatch):
    denormals._mathematics.cache_clear()
    monkeypatch.setattr(denormals.platform, "machine", lambda: "aarch64")
    with ops.flushed_denormals():
        assert not denormals.are_flushed()
    denormals._mathematics.cache_clear()
