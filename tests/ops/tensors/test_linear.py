from __future__ import annotations

import subprocess
import sys

import numpy as np
import paddle
import pytest
from paddle.amp.amp_lists import white_list
from paddle.base import core
from paddle.base.framework import _dygraph_tracer
from scipy.special import erf

from paddlemix.ops import linear, set_compute_dtype
from paddlemix.ops.probing.measure import take
from paddlemix.ops.tensors import built
from paddlemix.ops.tensors.linear import is_rounded, linear_reference, product_dtype

ACTIVATIONS = {
    None: lambda x: x,
    "gelu": lambda x: x * (1 + erf(x / np.sqrt(2))) / 2,
    "quick_gelu": lambda x: x / (1 + np.exp(-1.702 * x)),
}


@pytest.fixture(params=["in bfloat16", "held in float32"])
def rounded(request, only_built, monkeypatch):
    """Round products to bfloat16, fast or not, in both forms in which their factors can be held."""
    found = built.library()
    if request.param == "in bfloat16" and not found.speed.rates.bfloat16:
        pytest.skip("a processor for which oneDNN has no products from bfloat16")
    found.handle.paddlemix_choose_products(0, int(request.param != "in bfloat16"), 4)
    assert set_compute_dtype("bfloat16") and is_rounded()
    yield
    assert set_compute_dtype("float32")
    take(found.handle, found.speed.choice)


def test_products_are_rounded_where_that_is_asked_for_and_can_be_had(implementation):
    assert set_compute_dtype("bfloat16") == is_rounded() == (implementation == "built")
    assert set_compute_dtype("float32") and not is_rounded()


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("lead", [(1,), (3,), (7,), (2, 3)])
def test_it_is_the_activation_of_the_product_and_the_bias(assert_matches, rng, lead, activation):
    x, weight, bias = rng.standard_normal((*lead, 5)), rng.standard_normal((5, 3)), rng.standard_normal(3)
    formula = ACTIVATIONS[activation]
    assert_matches(lambda *a: linear(*a, activation), lambda x, w, b: formula(x @ w + b), x, weight, bias)


def test_a_weight_held_the_other_way_round_gives_the_same(assert_matches, rng):
    x, weight = rng.standard_normal((7, 5)), rng.standard_normal((3, 5))
    assert_matches(lambda x, w: linear(x, w, transposed=True), lambda x, w: x @ w.T, x, weight)


@pytest.mark.parametrize("rows", [1, 4, 5, 33, 130])
@pytest.mark.parametrize(("inner", "outer"), [(1, 1), (67, 33), (128, 200)])
def test_built_and_reference_agree_at_every_size(assert_agree, rng, rows, inner, outer):
    arrays = rng.standard_normal((rows, inner)), rng.standard_normal((inner, outer)), rng.standard_normal(outer)
    assert_agree(linear, linear_reference, *arrays)


@pytest.mark.parametrize("frozen", [0, 1, 2])
def test_what_is_frozen_gets_no_gradient_and_the_others_keep_theirs(rng, frozen):
    arrays = [rng.standard_normal(shape).astype(np.float32) for shape in ((6, 5), (5, 4), (4,))]
    free = [paddle.to_tensor(array, stop_gradient=False) for array in arrays]
    some = [paddle.to_tensor(array, stop_gradient=index == frozen) for index, array in enumerate(arrays)]
    for tensors in (free, some):
        linear(*tensors).sum().backward()
    assert some[frozen].grad is None
    for index in {0, 1, 2} - {frozen}:
        assert (some[index].grad.numpy() == free[index].grad.numpy()).all()


def test_rows_that_do_not_lie_together_are_read_where_they_are(rng):
    wide, weight = rng.standard_normal((6, 10)).astype(np.float32), rng.standard_normal((5, 4)).astype(np.float32)
    view = paddle.to_tensor(wide)[::2, ::2]
    found = linear(view, paddle.to_tensor(weight.T.copy()).t())
    np.testing.assert_allclose(found.numpy(), wide[::2, ::2] @ weight, atol=1e-5)


def test_no_rows_give_no_rows_and_gradients_of_zero(only_built):
    # Paddle 3.3.1's own product fails in this gradient.
    weight = paddle.ones([5, 3])
    weight.stop_gradient = False
    y = linear(paddle.zeros([0, 5]), weight, paddle.ones([3]))
    assert y.shape == [0, 3]
    y.sum().backward()
    assert (weight.grad.numpy() == 0).all()


EVER_NEW_LENGTHS = """
from pathlib import Path
import paddle
from paddlemix.ops import linear

def memory():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 >> 20

weight = paddle.randn([192, 512])
weight.stop_gradient = False
def step(rows):
    x = paddle.randn([rows, 192])
    x.stop_gradient = False
    linear(x, weight).sum().backward()
    weight.clear_grad()

step(1300)
before = memory()
for i in range(400):
    step(800 + i * 163 % 400)
print(memory() - before)
"""


def test_products_of_ever_new_lengths_do_not_gather_memory(only_built):
    done = subprocess.run([sys.executable, "-c", EVER_NEW_LENGTHS], capture_output=True, text=True, check=True)
    # MiB: 46 to 56 here, of which the tensors need 15; 450 when what oneDNN prepared was kept for 1024 shapes.
    assert int(done.stdout) < 150


def test_large_numbers_stay_finite(rng):
    x = paddle.to_tensor(1e4 * rng.standard_normal((40, 64)).astype(np.float32))
    assert np.isfinite(linear(x, x.t(), activation="quick_gelu").numpy()).all()


@pytest.mark.parametrize("transposed", [False, True])
def test_rounded_products_are_those_of_rounded_factors(rounded, rng, transposed):
    def to_bfloat16(x):
        return paddle.to_tensor(x).astype("bfloat16").astype("float32").numpy().astype(np.float64)

    x, weight, upstream = (rng.standard_normal(shape).astype(np.float32) for shape in ((64, 96), (96, 48), (64, 48)))
    held = weight.T.copy() if transposed else weight
    tensors = [paddle.to_tensor(array, stop_gradient=False) for array in (x, held)]
    y = linear(*tensors, transposed=transposed)
    y.backward(paddle.to_tensor(upstream))
    x, weight, upstream = map(to_bfloat16, (x, weight, upstream))
    weight_grad = x.T @ upstream
    wanted = [x @ weight, upstream @ weight.T, weight_grad.T if transposed else weight_grad]
    for found, right in zip([y, *(tensor.grad for tensor in tensors)], wanted, strict=True):
        # Products of bfloat16 are exact in float32; a sum of 100 of size 1 is off by 1e-6 of its 10.
        np.testing.assert_allclose(found.numpy(), right, atol=2e-5, rtol=0)


def test_rounding_is_coarser_than_float32_so_it_was_on(rounded, rng):
    x, weight = (paddle.to_tensor(rng.standard_normal(shape).astype(np.float32)) for shape in ((64, 96), (96, 48)))
    error = np.abs(linear(x, weight).numpy() - linear_reference(x, weight).numpy()).max()
    assert 1e-3 < error < 0.2


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("weight", ((2, 3), (4, 5), None, None)),
        ("bias", ((2, 3), (3, 5), (4,), None)),
        ("activation", ((2, 3), (3, 5), None, "relu")),
    ],
)
def test_what_does_not_fit_is_named(name, arguments):
    x, weight, bias, activation = arguments
    tensors = [paddle.ones(shape) if shape else None for shape in (x, weight, bias)]
    with pytest.raises(ValueError, match=f"`{name}`"):
        linear(*tensors, activation)


def test_another_dtype_of_the_weight_is_named():
    with pytest.raises(ValueError, match="`weight` is .*float64"):
        linear(paddle.ones([2, 3]), paddle.ones([3, 4], dtype="float64"))


def test_an_unknown_compute_dtype_is_refused():
    with pytest.raises(ValueError, match="float16"):
        set_compute_dtype("float16")


@pytest.fixture
def autocast():
    """Set autocast as on a GPU; on the CPU Paddle's own call does nothing."""
    tracer = _dygraph_tracer()
    before = tracer._amp_level, tracer._amp_dtype, tracer._get_amp_op_list()

    def choose(dtype, white):
        tracer._amp_level, tracer._amp_dtype = core.AmpLevel.O1, dtype
        tracer._set_amp_op_list(white, set())

    yield choose
    tracer._amp_level, tracer._amp_dtype, lists = before
    tracer._set_amp_op_list(*lists)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_products_are_of_autocasts_dtype_unless_the_user_leaves_them_in_float32(autocast, dtype):
    assert product_dtype() is None
    white = white_list()[dtype]["O1"]
    autocast(dtype, white)
    assert product_dtype() == getattr(paddle, dtype)
    autocast(dtype, white - {"matmul_v2"})  # as with "amp_custom_black_list": ["matmul_v2"]
    assert product_dtype() is None
