from __future__ import annotations

from collections.abc import Callable

import numpy as np
import paddle
import pytest

STEP = 1e-5


def numeric_gradient(formula: Callable[..., np.ndarray], arrays: list[np.ndarray], which: int, upstream: np.ndarray):
    """Gradient of `(formula(*arrays) * upstream).sum()` by `arrays[which]`, by central differences in float64."""
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


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
