"""A step of AdamW over many tensors, and their squared norms, beside formulas in float64."""

from __future__ import annotations

import numpy as np
import paddle
import pytest

from paddlemix import ops
from paddlemix.ops.tensors import built

# Nothing, less than a vector, around one, several of them, and more than one thread takes at a time.
SHAPES = [[0], [1], [15], [17], [63], [7, 9], [70_001]]
NUMBERS = {"beta1": 0.75, "beta2": 0.9375, "epsilon": 2.0**-10}  # exact in float32
POWERS = {"powers1": 0.75**3, "powers2": 0.9375**3}


@pytest.fixture(autouse=True)
def threads():
    """Give the thread count back that a test has changed."""
    before = built.num_threads()
    yield
    built.set_num_threads(before)


def draw() -> dict[str, list[np.ndarray]]:
    """The arrays of a step, float32, by the names of `AdamWTensors`."""
    random = np.random.default_rng(0)
    names = ("parameters", "gradients", "moments1", "moments2")
    arrays = {name: [random.standard_normal(shape).astype(np.float32) for shape in SHAPES] for name in names}
    arrays["moments2"] = [array**2 for array in arrays["moments2"]]
    return arrays | {name: [np.full([1], power, np.float32)] * len(SHAPES) for name, power in POWERS.items()}


def tensors_of(arrays: dict[str, list[np.ndarray]]) -> ops.AdamWTensors:
    return ops.AdamWTensors(**{name: list(map(paddle.to_tensor, each)) for name, each in arrays.items()})


def settings() -> dict[str, list[float]]:
    """By tensor the rate, the decay and the scale; some of them zero or one."""
    count = len(SHAPES)
    return {
        "rates": [0.1 + 0.05 * place for place in range(count)],
        "decays": [0.5 * (place % 2) for place in range(count)],
        "scales": [1.0 if place % 3 else 0.25 for place in range(count)],
    }


def test_a_step_is_that_of_the_formula() -> None:
    arrays, how = draw(), settings()
    tensors = tensors_of(arrays)
    ops.adamw_step(tensors, **how, **NUMBERS)
    for place in range(len(SHAPES)):
        p, g, m, v, power1, power2 = (arrays[name][place].astype(np.float64) for name in vars(tensors))
        g, rate = g * how["scales"][place], how["rates"][place]
        m, v = 0.75 * m + 0.25 * g, 0.9375 * v + 0.0625 * g**2
        p = p * (1 - rate * how["decays"][place]) - rate * (m / (1 - power1)) / (
            np.sqrt(v / (1 - power2)) + NUMBERS["epsilon"]
        )
        wanted = {
            "parameters": p,
            "gradients": arrays["gradients"][place],
            "moments1": m,
            "moments2": v,
            "powers1": power1 * 0.75,
            "powers2": power2 * 0.9375,
        }
        for name, array in wanted.items():
            # Six roundings of float32, of numbers up to 5.
            np.testing.assert_allclose(
                vars(tensors)[name][place].numpy(), array, rtol=1e-6, atol=2e-6, err_msg=f"{name} {place}"
            )


def test_the_number_of_threads_changes_no_bit_of_a_step(only_built: None) -> None:
    found = []
    for threads in (1, 2, 5):
        built.set_num_threads(threads)
        tensors = tensors_of(draw())
        ops.adamw_step(tensors, **settings(), **NUMBERS)
        sums = ops.squared_norms([*tensors.parameters, *tensors.moments1])
        found.append([tensor.numpy().tobytes() for tensors in vars(tensors).values() for tensor in tensors])
        found[-1].append(sums.numpy().tobytes())
    assert found[0] == found[1] == found[2]


def test_a_step_without_tensors_does_nothing() -> None:
    ops.adamw_step(ops.AdamWTensors([], [], [], [], [], []), rates=[], decays=[], scales=[], **NUMBERS)


def test_lists_of_different_lengths_are_refused() -> None:
    arrays = draw()
    with pytest.raises(ValueError, match="different lengths: .*'gradients': 6"):
        tensors_of(arrays | {"gradients": arrays["gradients"][1:]})
    with pytest.raises(ValueError, match="7 parameters, but 6 rates, 7 decays and 7 scales"):
        ops.adamw_step(tensors_of(arrays), **settings() | {"rates": [0.1] * 6}, **NUMBERS)


@pytest.mark.parametrize(
    ("name", "array", "why"),
    [
        ("gradients", np.zeros([3], np.float32), "has 70001 numbers, its gradient or a moment 3"),
        ("gradients", np.zeros(SHAPES[-1]), "not float32 in the CPU's memory"),
        ("powers2", np.zeros([0], np.float32), "is not one number"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_moves(
    only_built: None, name: str, array: np.ndarray, why: str
) -> None:
    arrays = draw()
    tensors = tensors_of(arrays | {name: [*arrays[name][:-1], array]})
    with pytest.raises(ValueError, match=why):
        ops.adamw_step(tensors, **settings(), **NUMBERS)
    for other, each in vars(tensors).items():
        if other != name:
            assert all((tensor.numpy() == old).all() for tensor, old in zip(each, arrays[other], strict=True)), other


@pytest.mark.parametrize("size", [1e-33, 1e-30, 1.0, 1e25])  # none of them denormal, which built ops take for 0
def test_squares_neither_vanish_nor_overflow(size: float) -> None:
    arrays = [(array * size).astype(np.float32) for array in draw()["parameters"]]
    sums = ops.squared_norms(list(map(paddle.to_tensor, arrays)))
    wanted = [float((array.astype(np.float64) ** 2).sum()) for array in arrays]
    assert sums.dtype == paddle.float64 and wanted[0] == 0.0 and (min(wanted[1:]) > 0.0)
    np.testing.assert_allclose(sums.numpy(), wanted, rtol=1e-12)


def test_there_are_no_norms_of_no_tensors() -> None:
    assert ops.squared_norms([]).shape == [0]


def test_tensors_with_gaps_in_memory_are_read_in_order() -> None:
    array = np.random.default_rng(1).standard_normal([40, 30]).astype(np.float32)
    gapped = paddle.to_tensor(array).transpose([1, 0])[:, :20]
    np.testing.assert_allclose(
        ops.squared_norms([gapped]).numpy(), [np.square(array[:20], dtype="f8").sum()], rtol=1e-12
    )
