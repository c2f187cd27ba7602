"""How the built ops are found, chosen and described."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import paddle
import pytest

from paddlemix.ops import build as ops_build
from paddlemix.ops import rms_norm, set_num_threads
from paddlemix.ops.__main__ import IMAGE_OPS, OPS, describe
from paddlemix.ops.build import CUDA_INTERFACE, INTERFACE, read_build
from paddlemix.ops.images.built import find_library
from paddlemix.ops.tensors import built


@pytest.fixture
def fresh(monkeypatch):
    """Let the search begin as in a process that has called no op yet."""
    monkeypatch.undo()
    forget()
    yield
    forget()


def forget() -> None:
    for kept in (built.library, built.cuda_library, find_library, ops_build.warn_once):
        kept.cache_clear()


class OnGpu:
    """What the choice looks at of a tensor on a GPU, which no machine without one can make."""

    def __init__(self, dtype=paddle.float32):
        self.dtype = dtype
        self.place = SimpleNamespace(is_cpu_place=lambda: False, is_gpu_place=lambda: True)


def test_a_build_for_another_paddle_is_named_and_not_loaded(tmp_path):
    about = {"interface": INTERFACE, "paddle": "2.6.2", "onednn": "3.6.0", "library": "none.so"}
    (tmp_path / "built.json").write_text(json.dumps(about))
    found = built._load(read_build(tmp_path), "3.3.1")
    assert found.handle is None
    assert "built for Paddle 2.6.2, this is 3.3.1" in found.reason and built.BUILD_COMMAND in found.reason


def test_a_library_that_cannot_be_loaded_is_named(tmp_path):
    (tmp_path / "built.json").write_text(
        json.dumps({"interface": INTERFACE, "paddle": "3.3.1", "library": "broken.so"})
    )
    (tmp_path / "broken.so").write_text("this is no library")
    found = built._load(read_build(tmp_path), "3.3.1")
    assert found.handle is None and "broken.so cannot be loaded" in found.reason


@pytest.mark.parametrize("interface", [{}, {"interface": INTERFACE - 1}])
def test_a_build_of_another_version_is_named(tmp_path, interface):
    (tmp_path / "built.json").write_text(json.dumps({**interface, "paddle": "3.3.1", "library": "cpu.so"}))
    reason = read_build(tmp_path).reason
    assert "of another version of paddlemix, build again" in reason and built.BUILD_COMMAND in reason


def test_what_is_built_here_is_of_this_version():
    setup = (Path(__file__).parents[3] / "external_ops" / "setup.py").read_text("utf-8")
    assert f"\nINTERFACE = {INTERFACE}\n" in setup


def test_an_unfinished_build_is_named(tmp_path):
    assert "unfinished" in read_build(tmp_path).reason


def test_without_a_build_ops_warn_once_and_compute(fresh, monkeypatch, caplog):
    monkeypatch.setattr(ops_build.util, "find_spec", lambda name: None)
    with caplog.at_level(logging.WARNING, logger=ops_build.logger.name):
        values = [rms_norm(paddle.ones([2, 4]), paddle.ones([4]), 1e-6) for _ in range(3)]
    assert (values[0].numpy() > 0.99).all()
    (record,) = caplog.records
    assert built.BUILD_COMMAND in record.getMessage()


def test_a_user_who_asks_for_the_reference_gets_it_without_a_warning(fresh, monkeypatch, caplog):
    monkeypatch.setenv(ops_build.CHOICE_VARIABLE, "reference")
    assert not built.takes(paddle.ones([2]))
    assert not caplog.records and "reference" in describe()


def test_half_precision_is_left_to_paddle():
    assert not built.takes(paddle.ones([2], dtype="bfloat16"))
    assert not built.takes(paddle.ones([2], dtype="float64"))


@pytest.fixture
def with_cuda(monkeypatch):
    """Make a process that has found the ops built for CUDA."""
    monkeypatch.setattr(built, "cuda_library", lambda: built.Library(handle=object()))


@pytest.mark.parametrize("dtype", [paddle.float32, paddle.bfloat16, paddle.float16])
def test_on_a_gpu_the_cuda_ops_take_three_dtypes_where_the_op_is_built_for_it(with_cuda, dtype):
    x = OnGpu(dtype)
    assert built.takes(x, OnGpu(dtype), None, on_cuda=True)
    assert not built.takes(x)  # an op that is built for CPUs alone
    assert not built.takes(OnGpu(paddle.float64), on_cuda=True)


def test_tensors_of_two_dtypes_are_taken_by_ops_that_mix_float32_and_one_narrower_dtype(with_cuda):
    # Autocast hands norms bfloat16 rows and a float32 weight.
    rows, weight = OnGpu(paddle.bfloat16), OnGpu(paddle.float32)
    assert built.takes(rows, weight, on_cuda=True, is_mixed=True)
    assert built.takes(weight, rows, None, on_cuda=True, is_mixed=True)
    assert not built.takes(rows, weight, on_cuda=True)
    assert not built.takes(rows, OnGpu(paddle.float16), on_cuda=True, is_mixed=True)
    assert not built.takes(weight, OnGpu(paddle.float64), on_cuda=True, is_mixed=True)
    assert not built.takes(paddle.ones([2]), paddle.ones([2], dtype="bfloat16"), on_cuda=True, is_mixed=True)


def test_the_cpus_library_is_not_asked_for_tensors_on_a_gpu(monkeypatch, with_cuda):
    monkeypatch.setattr(built, "library", lambda: pytest.fail("asked for"))
    assert built.takes(OnGpu(), on_cuda=True)


def test_a_call_goes_to_the_library_of_its_place(monkeypatch):
    called = []
    monkeypatch.setattr(paddle._C_ops, "_run_custom_op", lambda name, *arguments: called.append(name) or [])
    built.run("swiglu", OnGpu(), OnGpu())
    built.run("swiglu", paddle.ones([2]), paddle.ones([2]))
    assert called == ["paddlemix_cuda_swiglu", "paddlemix_swiglu"]


def test_a_build_without_cuda_says_so(tmp_path):
    (tmp_path / "built.json").write_text(json.dumps({"interface": INTERFACE, "paddle": "3.3.1", "library": "cpu.so"}))
    found = built._load(read_build(tmp_path), "3.3.1", "cuda_library")
    assert found.handle is None and "Paddle had no CUDA, build again" in found.reason


def read_cuda_build(folder, **about):
    ours = {"cuda_library": "cuda.so", "cuda_interface": CUDA_INTERFACE}
    about = {"interface": INTERFACE, "paddle": "3.3.1", "library": "cpu.so", **ours, **about}
    (folder / "built.json").write_text(json.dumps(about))
    return built._load(read_build(folder), "3.3.1", "cuda_library").reason


@pytest.mark.parametrize(
    ("capability", "runs"),
    [
        ((7, 0), False),
        ((7, 5), False),
        ((8, 0), True),
        ((8, 9), True),
        ((9, 0), True),
        ((10, 0), True),
        ((12, 1), True),
    ],
)
def test_a_library_without_code_for_the_card_is_not_loaded_and_says_why(monkeypatch, tmp_path, capability, runs):
    monkeypatch.setattr(built, "compute_capability", lambda: capability)
    reason = read_cuda_build(tmp_path, cuda_code="sm_80 sm_90 compute_90")
    told = "code for sm_80, sm_90, compute_90, and this card has compute capability {}.{}".format(*capability)
    assert ("cuda.so cannot be loaded" in reason) == runs and (told in reason) == (not runs)


def test_code_for_a_generation_runs_on_no_other(monkeypatch, tmp_path):
    for capability, runs in (((8, 6), True), ((8, 0), False), ((9, 0), False)):
        monkeypatch.setattr(built, "compute_capability", lambda capability=capability: capability)
        assert ("cannot be loaded" in read_cuda_build(tmp_path, cuda_code="sm_86")) == runs


def test_a_cuda_build_that_does_not_say_its_cards_is_of_an_earlier_version(tmp_path):
    reason = read_cuda_build(tmp_path)
    assert "does not say for which cards" in reason and built.BUILD_COMMAND in reason


def test_a_cuda_build_of_another_version_is_named_and_the_cpus_ops_stay(tmp_path):
    reason = read_cuda_build(tmp_path, cuda_code="sm_80 compute_90", cuda_interface=CUDA_INTERFACE - 1)
    assert "of another version of paddlemix" in reason and built.BUILD_COMMAND in reason
    assert not read_build(tmp_path).reason
    setup = (Path(__file__).parents[3] / "external_ops" / "setup.py").read_text("utf-8")
    assert f"\nCUDA_INTERFACE = {CUDA_INTERFACE}\n" in setup


def test_on_a_card_without_code_ops_fall_back_and_the_reason_is_logged_once(fresh, monkeypatch, tmp_path, caplog):
    read_cuda_build(tmp_path, cuda_code="sm_80")
    (tmp_path / "__init__.py").write_text("")
    spec = SimpleNamespace(origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(ops_build.util, "find_spec", lambda name: spec)
    monkeypatch.setattr(built, "_paddle_version", lambda: "3.3.1")
    monkeypatch.setattr(built, "compute_capability", lambda: (7, 5))
    with caplog.at_level(logging.WARNING, logger=ops_build.logger.name):
        assert not any(built.takes(OnGpu(paddle.float16), on_cuda=True) for _ in range(3))
    (record,) = caplog.records
    assert "fused CUDA ops are not used" in record.getMessage() and "compute capability 7.5" in record.getMessage()


def test_a_gpu_without_its_ops_is_warned_of_once(fresh, monkeypatch, caplog):
    monkeypatch.setattr(ops_build.util, "find_spec", lambda name: None)
    with caplog.at_level(logging.WARNING, logger=ops_build.logger.name):
        assert not any(built.takes(OnGpu(), on_cuda=True) for _ in range(3))
    (record,) = caplog.records
    assert "fused CUDA ops are not used" in record.getMessage() and built.BUILD_COMMAND in record.getMessage()


@pytest.mark.parametrize("found", [built.Library(handle=object()), built.Library("they are elsewhere")])
def test_on_a_gpu_each_op_is_described_for_it(monkeypatch, found):
    monkeypatch.setattr(paddle, "get_device", lambda: "gpu:0")
    monkeypatch.setattr(built, "cuda_library", lambda: found)
    lines = {line.split()[0]: line for line in describe().splitlines() if line.startswith("  ")}
    assert set(lines) == {*OPS, *IMAGE_OPS}
    assert "Paddle's own kernels" in lines["attention"] and "Paddle's own kernels" in lines["linear"]
    assert ("built for float32, bfloat16 and float16" in lines["rms_norm"]) == (found.handle is not None)
    assert (found.reason in describe()) and "gpu:0" in describe()


@pytest.mark.parametrize(
    ("environment", "threads"),
    [
        ({"MKL_NUM_THREADS": "3", "OMP_NUM_THREADS": "1"}, 3),
        ({"MKL_NUM_THREADS": "", "OMP_NUM_THREADS": "2"}, 2),
    ],
)
def test_as_many_threads_as_paddles_products_take(monkeypatch, environment, threads):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert built._wanted_threads() == threads


POOL = """
import os
import paddlemix
import paddle
from paddlemix import ops

def threads():
    return len(os.listdir("/proc/self/task"))

x = paddle.ones([512, 512])
ops.set_num_threads(1)
ops.linear(x, x), ops.swiglu(x, x)
alone = threads()
ops.set_num_threads(2)
ops.linear(x, x)
after_product = threads()
ops.swiglu(x, x)
print(after_product - alone, threads() - alone)
"""


def test_products_and_our_own_loops_share_one_pool_of_as_many_threads_as_were_asked_for(only_built):
    # A second OpenMP beside Paddle's left products on one thread, and the two pools took each other's cores.
    # The ops start their threads when they are loaded, on as many as the environment says.
    environment = {**os.environ, "MKL_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", POOL]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "1 1\n"


def test_no_threads_are_refused():
    with pytest.raises(ValueError, match="`threads` is 0"):
        set_num_threads(0)


def test_sums_over_rows_do_not_depend_on_the_number_of_threads(only_built):
    rng, before, found = np.random.default_rng(0), built.num_threads(), []
    x, upstream = (rng.standard_normal((3000, 64)).astype(np.float32) for _ in range(2))
    for threads in (1, 2, 5):
        set_num_threads(threads)
        weight = paddle.ones([64])
        weight.stop_gradient = False
        rms_norm(paddle.to_tensor(x), weight, 1e-6).backward(paddle.to_tensor(upstream))
        found.append(weight.grad.numpy())
    set_num_threads(before)
    assert (found[0] == found[1]).all() and (found[0] == found[2]).all()


@pytest.mark.parametrize("recorded", [False, True])
def test_what_comes_of_frozen_tensors_is_frozen(recorded):
    x, weight = paddle.ones([2, 4]), paddle.ones([4])
    with paddle.set_grad_enabled(recorded):
        assert rms_norm(x, weight, 1e-6).stop_gradient
    weight.stop_gradient = False
    with paddle.set_grad_enabled(recorded):
        assert rms_norm(x, weight, 1e-6).stop_gradient == (not recorded)


def test_every_op_is_described(implementation):
    text = describe()
    assert all(name in text for name in (*OPS, *IMAGE_OPS))
    assert ("Built ops" in text) == (implementation == "built")
