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
    threads, flushed = ops.num_threads(), denormals.are_flushed()
    yield found.handle
    ops.set_num_threads(threads)
    ops.flush_denormals(flushed)


THREADS = """
import json
import threading
import numpy as np
import paddlemix
from paddlemix.ops.denormals import are_flushed

asked, answered, older = threading.Event(), threading.Event(), []
def compute_late():  # in a thread that is older than the import of the ops
    asked.wait()
    older.append(are_flushed())
    ops.swiglu(x, x)
    older.append(are_flushed())
    answered.set()
threading.Thread(target=compute_late, daemon=True).start()

import paddle
from paddlemix import ops
from paddlemix.datasets.loading.workers import BatchLoader
from paddlemix.ops.tensors import built
import ctypes, sys

class Records:
    def __len__(self):
        return 4
    def __getitem__(self, item):
        return np.array([are_flushed()])
    def sources(self, item):
        return [str(item)]

def registers(own_loop):
    found = (ctypes.c_uint32 * 3)()
    built.library().handle.paddlemix_control_registers(3, own_loop, found)
    return [value & 0x8040 == 0x8040 for value in found]

x = paddle.ones([64, 64])
ops.set_num_threads(3)
ops.linear(paddle.ones([512, 512]), paddle.ones([512, 512]))
if sys.argv[1] == "again":
    ops.flush_denormals(False)
    assert not any([*registers(0), *registers(1), are_flushed()])
    ops.flush_denormals()
asked.set()
answered.wait()
small, large = paddle.full([1024, 1024], 1e-39), paddle.full([1024, 1024], 1e3)
loader = BatchLoader(Records(), [[0, 1], [2, 3]], lambda samples: {"flushed": np.stack(samples)}, num_workers=1)
print(json.dumps({
    "this thread": are_flushed(),
    "OpenMP's": registers(0),
    "our own loops'": registers(1),
    "older": older,
    "Paddle's products": bool((paddle.matmul(small, large).numpy() == 0).all()),
    "our products": bool((ops.linear(small, large).numpy() == 0).all()),
    "workers": [bool(one) for batch in loader for one in batch["flushed"].numpy().ravel()],
}))
for dtype in (np.float16, np.float32, np.float64, np.complex64, np.complex128):
    np.finfo(dtype).smallest_subnormal, str(np.finfo(dtype))
"""
FLUSHING = {
    "this thread": True,
    "OpenMP's": [True] * 3,
    "our own loops'": [True] * 3,
    "older": [False, True],
    "Paddle's products": True,
    "our products": True,
    "workers": [True] * 4,
}
KEEPING = {name: [False] * len(flushes) if isinstance(flushes, list) else False for name, flushes in FLUSHING.items()}


@pytest.mark.parametrize(
    ("variables", "again", "wanted"),
    [
        ({}, "", FLUSHING),
        ({"PADDLEMIX_DENORMALS": "keep"}, "", KEEPING),
        # Where OpenMP does not hand the register on to its threads, which are there already.
        ({"KMP_INHERIT_FP_CONTROL": "0"}, "again", FLUSHING),
    ],
    ids=["flush", "keep", "told later"],
)
def test_every_thread_that_computes_flushes_or_none(built_ops, variables, again, wanted):
    environment = {**os.environ, "MKL_NUM_THREADS": "3", "OMP_NUM_THREADS": "3", **variables}
    # NumPy, which warns where it finds out that denormals are 0, must not.
    command = [sys.executable, "-W", "error:The value of the smallest subnormal", "-c", THREADS, again]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == wanted


def test_results_are_flushed_the_same_whatever_the_number_of_threads(built_ops):
    rng = np.random.default_rng(0)
    # Some are denormal, some become so on the way: 2e-38 halved by a sigmoid, 1e-20 squared.
    scales = np.array([1.0, 1e-20, 2e-38, DENORMAL], np.float32)
    arrays = [rng.standard_normal((4096, 64)).astype(np.float32) * rng.choice(scales, (4096, 64)) for _ in range(2)]
    assert (np.abs(arrays[0].view(np.uint32) & 0x7FFFFFFF) < 0x00800000).mean() > 0.1

    def compute(threads, flushed):
        ops.set_num_threads(threads)
        ops.flush_denormals(flushed)
        x, y = (paddle.to_tensor(array, stop_gradient=False) for array in arrays)
        values = [ops.swiglu(x, y), ops.quick_gelu(x), ops.rms_norm(x, y[0], 1e-6)]
        paddle.autograd.backward([value.sum() for value in values])
        return np.concatenate([one.numpy().ravel().view(np.uint32) for one in (*values, x.grad, y.grad)]) & 0x7FFFFFFF

    def denormal(bits):
        return ((bits > 0) & (bits < 0x00800000)).sum()

    one, two, five = (compute(threads, True) for threads in (1, 2, 5))
    assert (one == two).all() and (one == five).all() and denormal(one) == 0
    assert denormal(compute(1, False)) > 1000


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
    ops.flush_denormals(False)
    call = make(np.random.default_rng(0))
    call()  # oneDNN's code is made in the first one
    seen = Seen()
    call()
    assert seen.now() == 0
    # The register does see them.
    ops.swiglu(paddle.full([64], DENORMAL), paddle.ones([64]))
    assert seen.now() & DENORMAL_OPERAND


def test_a_word_that_says_neither_is_warned_of(caplog):
    assert denormals.are_to_be_flushed({}) and not denormals.are_to_be_flushed({"PADDLEMIX_DENORMALS": "keep"})
    assert not caplog.records
    assert denormals.are_to_be_flushed({"PADDLEMIX_DENORMALS": "no"})
    (record,) = caplog.records
    assert "PADDLEMIX_DENORMALS is 'no'" in record.getMessage() and "'keep'" in record.getMessage()


def test_other_processors_are_left_alone(monkeypatch):
    denormals._mathematics.cache_clear()
    monkeypatch.setattr(denormals.platform, "machine", lambda: "aarch64")
    denormals.set_flushed(True)
    assert not denormals.are_flushed()
    denormals._mathematics.cache_clear()
