from __future__ import annotations

from collections.abc import Callable

import numpy as np
import paddle
import pytest

from paddlemix.ops.tensors import built

STEP = 1e-5


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run every test with the reference and with the built op, unless it compares the two."""
    ways = ["built"] if "only_built" in metafunc.fixturenames else ["reference", "built"]
    metafunc.parametrize("implementation", ways, indirect=True)


@pytest.fixture(autouse=True)
def implementation(request, monkeypatch) -> str:
    """Choose what computes in a test; what needs the built ops is skipped where they are not built."""
    if request.param == "reference":
        found = built.Library("a test asked for the reference")
        monkeypatch.setattr(built, "library", lambda: found)
        monkeypatch.setattr(built, "warn_once", lambda reason, place: None)
    elif built.library().handle is None:
        pytest.skip(f"no built ops: {built.library().reason}")
    return request.param


@pytest.fixture
def only_built(implementation) -> None:
    """Serve tests of the built op alone, or beside the reference."""


def numeric_gradient(formula: Callable[..., np.ndarray], arrays: list[np.ndarray], which: int, upstream: np.ndarray):
    """Differentiate `(formula(*arrays) * upstream).sum()` by `arrays[which]`, by central differences in float64."""
    gradient = np.zeros_like(arrays[which])
    for place in np.ndindex(gradient.shape):
        ends = []
        for step in (STEP, -STEP):
            moved = arrays[which].copy()
            moved[place] += step
            ends.append((formula(*arrays[:which], moved, *arrays[which + 1 :]) * upstream).sum())
        gradient[place] = (ends[0] - ends[1]) / (2 * STEP)
    return gradient


@pytest.fixture
def assert_matches():
    """Compare an op in float32, value and gradient of every input, with a formula in float64.

    Values and gradients here are of size 1 to 10; float32 keeps them within 1e-6 of that.
    """

    def check(op: Callable, formula: Callable[..., np.ndarray], *arrays: np.ndarray, tolerance: float = 2e-5) -> None:
        narrow = [array.astype(np.float32) for array in arrays]
        tensors = [paddle.to_tensor(array, stop_gradient=False) for array in narrow]
        wide = [array.astype(np.float64) for array in narrow]
        value, wanted = op(*tensors), formula(*wide)
        upstream = np.random.default_rng(7).uniform(0.5, 2, wanted.shape)
        value.backward(paddle.to_tensor(upstream.astype(np.float32)))
        assert np.abs(wanted).max() > 0.1 and list(wanted.shape) == list(value.shape)
        np.testing.assert_allclose(value.numpy(), wanted, atol=tolerance, rtol=tolerance)
        for index, tensor in enumerate(tensors):
            gradient = numeric_gradient(formula, wide, index, upstream)
            assert np.abs(gradient).max() > 1e-3
            np.testing.assert_allclose(
                tensor.grad.numpy(), gradient, atol=tolerance, rtol=tolerance, err_msg=f"gradient of input {index}"
            )

    return check


def run_backward(op: Callable, arrays: list[np.ndarray]) -> list[np.ndarray]:
    """Compute values and gradients of `op`, for upstream gradients that are the same at every call."""
    tensors = [paddle.to_tensor(array.astype(np.float32), stop_gradient=False) for array in arrays]
    values = op(*tensors)
    values = list(values) if isinstance(values, (list, tuple)) else [values]
    rng = np.random.default_rng(11)
    upstream = [paddle.to_tensor(rng.standard_normal(value.shape).astype(np.float32)) for value in values]
    paddle.autograd.backward(values, upstream)
    return [x.numpy() for x in [*values, *(tensor.grad for tensor in tensors)]]


@pytest.fixture
def assert_agree(only_built):
    """Compare two forms of an op at any size, value and gradients.

    Each may be off by float32's rounding of sums of up to a thousand numbers: 1e-6 of the largest number was measured.
    """

    def check(op: Callable, reference: Callable, *arrays: np.ndarray, tolerance: float = 4e-6) -> None:
        found, wanted = run_backward(op, list(arrays)), run_backward(reference, list(arrays))
        for index, (ours, theirs) in enumerate(zip(found, wanted, strict=True)):
            assert ours.shape == theirs.shape
            assert not theirs.size or np.abs(theirs).max() > 1e-4
            scale = np.abs(theirs).max() if theirs.size else 1
            np.testing.assert_allclose(ours, theirs, atol=tolerance * scale, rtol=0, err_msg=f"number {index}")

    return check


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
