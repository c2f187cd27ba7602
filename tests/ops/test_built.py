"""How the built ops are found, chosen and told about."""

from __future__ import annotations

import json
import logging

import numpy as np
import paddle
import pytest

from paddlemix import ops_build
from paddlemix.ops import built, rms_norm, set_num_threads
from paddlemix.ops.__main__ import OPS, PICTURE_OPS, describe
from paddlemix.ops_build import read_build
from paddlemix.picture_ops.built import find_library


@pytest.fixture
def fresh(monkeypatch):
    """The search as it is in a process that has called no op yet."""
    monkeypatch.undo()
    forget()
    yield
    forget()


def forget() -> None:
    for kept in (built.library, find_library, ops_build.warn_once):
        kept.cache_clear()


def test_a_build_for_another_paddle_is_named_and_not_loaded(tmp_path):
    about = {"paddle": "2.6.2", "onednn": "3.6.0", "library": "none.so"}
    (tmp_path / "built.json").write_text(json.dumps(about))
    found = built._load(read_build(tmp_path), "3.3.1")
    assert found.handle is None
    assert "built for Paddle 2.6.2, this is 3.3.1" in found.reason and built.BUILD_COMMAND in found.reason


def test_a_library_that_cannot_be_loaded_is_named(tmp_path):
    (tmp_path / "built.json").write_text(json.dumps({"paddle": "3.3.1", "library": "broken.so"}))
    (tmp_path / "broken.so").write_text("this is no library")
    found = built._load(read_build(tmp_path), "3.3.1")
    assert found.handle is None and "broken.so cannot be loaded" in found.reason


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
    assert all(name in text for name in (*OPS, *PICTURE_OPS))
    assert ("Built ops" in text) == (implementation == "built")
