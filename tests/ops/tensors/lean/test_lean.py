"""What GPUs without built ops compute with, on the CPU: results, gradients, and what is kept for them."""

from __future__ import annotations

import numpy as np
import paddle
import pytest
from paddle.autograd import saved_tensors_hooks

from paddlemix.ops.tensors.activation import quick_gelu_reference
from paddlemix.ops.tensors.lean import activation, norm, rotary
from paddlemix.ops.tensors.norm import rms_norm_reference
from paddlemix.ops.tensors.rotary import apply_rotary_reference


def angles_of(rng, *shape):
    angles = rng.standard_normal(shape).astype(np.float32)
    return paddle.to_tensor(np.cos(angles)), paddle.to_tensor(np.sin(angles))


@pytest.fixture
def ops(rng):
    """Each formula, the readable form, and the shapes of its inputs."""
    angles = angles_of(rng, 5, 4)
    return {
        "rms_norm": (
            lambda x, weight: norm.rms_norm(x, weight, 0.5, x.dtype),
            lambda x, weight: rms_norm_reference(x, weight, 0.5),
            [(2, 5, 8), (8,)],
        ),
        "rotary": (
            lambda x: rotary.apply_rotary(x, *angles),
            lambda x: apply_rotary_reference(x, *angles),
            [(5, 3, 8)],
        ),
        "quick_gelu": (activation.quick_gelu, quick_gelu_reference, [(5, 7)]),
    }


NAMES = ("rms_norm", "rotary", "quick_gelu")


def run(op, arrays, dtype="float32"):
    tensors = [paddle.to_tensor(array).astype(dtype).detach() for array in arrays]
    for tensor in tensors:
        tensor.stop_gradient = False
    y = op(*tensors)
    upstream = np.random.default_rng(3).uniform(0.5, 2, y.shape).astype(np.float32)
    y.backward(paddle.to_tensor(upstream).astype(y.dtype))
    return [y, *(tensor.grad for tensor in tensors)]


@pytest.mark.parametrize("name", NAMES)
def test_values_and_gradients_are_those_of_the_readable_form(ops, rng, name):
    lean, reference, shapes = ops[name]
    arrays = [rng.standard_normal(shape).astype(np.float32) + 1 for shape in shapes]
    for found, wanted in zip(run(lean, arrays), run(reference, arrays), strict=True):
        assert np.abs(wanted.numpy()).max() > 0.1
        np.testing.assert_allclose(found.numpy(), wanted.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_computed_in_float32_and_rounded_once(ops, rng, name, dtype):
    lean, _, shapes = ops[name]
    wide = [paddle.to_tensor(rng.standard_normal(shape).astype(np.float32) + 1) for shape in shapes]
    arrays = [one.astype(dtype).astype("float32").numpy() for one in wide]
    (value, *grads), (wanted, *slopes) = run(lean, arrays, dtype), run(lean, arrays)
    assert (value.numpy() == wanted.astype(dtype).numpy()).all()
    for grad, slope in zip(grads, slopes, strict=True):
        assert grad.dtype == value.dtype == getattr(paddle, dtype)
        # The upstream gradient was rounded too.
        np.testing.assert_allclose(grad.astype("float32").numpy(), slope.numpy(), rtol=2**-6, atol=2**-6)


def bytes_kept(op, *inputs):
    """Count what a backward pass keeps beside what the ops were given, in bytes."""
    kept = {}

    def pack(tensor):
        kept[tensor.data_ptr()] = tensor.size * tensor.element_size()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        op(*inputs)
    return sum(size for address, size in kept.items() if address not in {one.data_ptr() for one in inputs})


@pytest.mark.parametrize(("name", "most"), [("rms_norm", 4 * 10), ("rotary", 2 * 4 * 5 * 4), ("quick_gelu", 0)])
def test_what_is_kept_beside_the_inputs_is_next_to_nothing(ops, rng, name, most):
    lean, reference, shapes = ops[name]
    inputs = [paddle.to_tensor(rng.standard_normal(shape).astype(np.float32)) for shape in shapes]
    for one in inputs:
        one.stop_gradient = False
    assert bytes_kept(lean, *inputs) <= most  # a number a row; the angles
    if name != "rotary":  # whose readable form is kept in part by what follows
        assert bytes_kept(reference, *inputs) >= most + 4 * inputs[0].size


def test_what_is_frozen_gets_no_gradient(rng):
    x, weight = (paddle.to_tensor(rng.standard_normal(shape).astype(np.float32)) for shape in ((3, 8), (8,)))
    for trained, frozen in ((x, weight), (weight, x)):
        trained.stop_gradient, frozen.stop_gradient = False, True
        norm.rms_norm(x, weight, 1e-6, paddle.float32).sum().backward()
        assert trained.grad is not None and frozen.grad is None
        trained.grad = None


def test_a_norm_of_mixed_dtypes_is_rounded_to_what_is_asked(rng):
    x, weight = (paddle.to_tensor(rng.standard_normal(shape).astype(np.float32)) for shape in ((3, 8), (8,)))
    x.stop_gradient = weight.stop_gradient = False
    y = norm.rms_norm(x, weight, 1e-6, paddle.bfloat16)
    assert y.dtype == paddle.bfloat16
    assert (y.numpy() == norm.rms_norm(x, weight, 1e-6, paddle.float32).astype("bfloat16").numpy()).all()
    y.backward(paddle.ones(y.shape, dtype="bfloat16"))
    assert x.grad.dtype == weight.grad.dtype == paddle.float32


def test_layer_norm_is_rounded_to_what_is_asked(rng):
    x, weight, bias = (paddle.to_tensor(rng.standard_normal(n).astype(np.float32)) for n in ((3, 8), 8, 8))
    exact = paddle.nn.functional.layer_norm(x, [8], weight, bias, 1e-6)
    assert (norm.layer_norm(x, weight, bias, 1e-6, paddle.float32).numpy() == exact.numpy()).all()
    found = norm.layer_norm(x, weight, bias, 1e-6, paddle.bfloat16)
    assert found.dtype == paddle.bfloat16 and (found.numpy() == exact.astype("bfloat16").numpy()).all()


def test_scales_of_another_dtype_than_the_rows_are_widened_for_the_kernel(rng, monkeypatch):
    given = []
    kernel = lambda x, shape, *scales: given.append([one.dtype for one in scales[:2]]) or x  # noqa: E731
    monkeypatch.setattr(norm.F, "layer_norm", kernel)
    wide, narrow = paddle.ones([8]), paddle.ones([8], dtype="bfloat16")
    for x, scale in ((wide, narrow), (narrow, wide), (narrow, narrow)):
        norm.layer_norm(x, scale, scale, 1e-6, paddle.bfloat16)
    norm.layer_norm(narrow, narrow, wide, 1e-6, paddle.float32)
    half, full = paddle.bfloat16, paddle.float32
    assert given == [[full, full], [full, full], [half, half], [full, full]]
