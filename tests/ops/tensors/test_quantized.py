"""Products with weights that are held as codes, beside those with what the codes stand for."""

from __future__ import annotations

import numpy as np
import paddle
import pytest

from paddlemix import ops
from paddlemix.ops.tensors import built
from paddlemix.ops.tensors.quantized import product
from paddlemix.ops.tensors.quantized import weight as weights
from paddlemix.quantization.blocks import Blocks, packed
from paddlemix.quantization.nf4 import LEVELS
from paddlemix.quantization.rounding import KINDS, rounded

# Products sum in another order than the reference's.
TOLERANCE = 1e-5


def weight_of(shape: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def shuffled(blocks: Blocks) -> Blocks:
    order = np.random.default_rng(2).permutation(blocks.shape[1])
    return Blocks(blocks.shape, blocks.bits, blocks.block, blocks.codes, blocks.values, blocks.scales, blocks.zeros,
                  order)  # fmt: skip


@pytest.mark.parametrize("tile", [8, 1 << 22])
@pytest.mark.parametrize("shape", [(48, 256), (10, 32), (6, 5), (7, 3)], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_product_and_gradient_are_those_of_the_plain_weight(kind, shape, tile, monkeypatch):
    monkeypatch.setattr(weights, "_TILE", tile)
    rng = np.random.default_rng(3)
    for blocks in (rounded(weight_of(shape), kind), shuffled(rounded(weight_of(shape), kind))):
        plain = blocks.numbers(slice(None))
        x = paddle.to_tensor(rng.normal(size=(2, 3, shape[1])).astype(np.float32), stop_gradient=False)
        bias = rng.normal(size=shape[0]).astype(np.float32)
        upstream = rng.normal(size=(2, 3, shape[0])).astype(np.float32)
        y = ops.quantized_linear(x, blocks.weight(), paddle.to_tensor(bias))
        (y * paddle.to_tensor(upstream)).sum().backward()
        wanted, gradient = x.numpy() @ plain.T + bias, upstream @ plain
        np.testing.assert_allclose(y.numpy(), wanted, atol=TOLERANCE * np.abs(wanted).max())
        np.testing.assert_allclose(x.grad.numpy(), gradient, atol=TOLERANCE * np.abs(gradient).max())
        assert np.abs(gradient).max() > 0.1


# What codes stand for, their bits, and whether blocks have zeros.
VALUES = {
    "levels": (LEVELS, 4, False),
    "int4 with zeros": (np.arange(16, dtype=np.float32), 4, True),
    "int8": (np.arange(-128, 128, dtype=np.float32), 8, False),
    "int8 with zeros": (np.arange(256, dtype=np.float32), 8, True),
    "int8 of any values": (np.random.default_rng(4).normal(size=256).astype(np.float32), 8, True),
}
# Outputs, inputs and block: blocks of published sizes, of a whole row, with rows that end within a vector, of sizes
# that cut words, and blocks and bytes that rows end within.
FORMS = [
    (40, 256, 32),
    (18, 320, 64),
    (35, 384, 128),
    (7, 176, 176),
    (9, 160, 32),
    (33, 120, 24),
    (20, 42, 42),
    (12, 60, 10),
    (10, 36, 64),
    (5, 33, 11),
]


def drawn(form: tuple[int, int, int], values: str) -> Blocks:
    """A weight of any form, which no rounding would give."""
    rng, (outputs, inputs, block), (numbers, bits, has_zeros) = np.random.default_rng(5), form, VALUES[values]
    blocks = -(-outputs * inputs // block)
    codes = packed(rng.integers(0, 1 << bits, outputs * inputs).astype(np.uint8), bits)
    scales, zeros = rng.uniform(0.1, 1, [2, blocks]).astype(np.float32)
    zeros = (zeros * len(numbers)).round() if has_zeros else None
    return Blocks((outputs, inputs), bits, block, codes, numbers, scales, zeros)


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("values", VALUES)
def test_any_form_gives_what_the_plain_weight_gives(values, form):
    blocks = drawn(form, values)
    for weight in (blocks, shuffled(blocks)):
        plain, held = weight.numbers(slice(None)).astype(np.float64), weight.weight()
        for rows in (*range(1, 10), 16, 17, 300):
            x = np.random.default_rng(rows).normal(size=(rows, form[1])).astype(np.float32)
            bias = np.random.default_rng(6).normal(size=form[0]).astype(np.float32)
            with paddle.no_grad():
                y = ops.quantized_linear(paddle.to_tensor(x), held, paddle.to_tensor(bias)).numpy()
            wanted = x @ plain.T + bias
            np.testing.assert_allclose(y, wanted, atol=TOLERANCE * np.abs(wanted).max(), rtol=0)
            assert np.abs(wanted).max() > 1


@pytest.mark.parametrize("values", VALUES)
def test_numbers_do_not_depend_on_threads(only_built, values):
    weight, threads = drawn((300, 384, 64), values).weight(), built.num_threads()
    try:
        for rows in (1, 3, 8, 40):
            x = paddle.to_tensor(np.random.default_rng(7).normal(size=(rows, 384)).astype(np.float32))
            x.stop_gradient = False
            found = []
            for count in (1, 2, 5):
                ops.set_num_threads(count)
                y = ops.quantized_linear(x, weight)
                (gradient,) = paddle.grad(y.sum(), x)
                found.append((y.numpy(), gradient.numpy()))
            for y, gradient in found[1:]:
                np.testing.assert_allclose(gradient, found[0][1], rtol=1e-5, atol=1e-4)
                if rows <= 16:  # more are multiplied by a library
                    np.testing.assert_array_equal(y, found[0][0])
    finally:
        ops.set_num_threads(threads)


def test_the_built_op_is_called_for_few_rows_and_many_and_keeps_no_gradient_of_the_weight(only_built, monkeypatch):
    names, run = [], built.run
    monkeypatch.setattr(built, "run", lambda name, *given: names.append(name) or run(name, *given))
    for rows in (1, 40):
        ops.quantized_linear(paddle.ones([rows, 256]), rounded(weight_of((48, 256)), "int4").weight())
    assert names == ["quantized_linear"] * 2


def test_rows_are_rounded_to_bfloat16_as_other_products_are(only_built):
    x = paddle.to_tensor(np.random.default_rng(8).normal(size=(40, 256)).astype(np.float32))
    blocks = rounded(weight_of((48, 256)), "int8")
    plain = ops.linear(x, paddle.to_tensor(np.ascontiguousarray(blocks.numbers(slice(None)).T)))
    exact = ops.quantized_linear(x, blocks.weight())
    try:
        assert ops.set_compute_dtype("bfloat16")
        wanted = ops.linear(x, paddle.to_tensor(np.ascontiguousarray(blocks.numbers(slice(None)).T)))
        found = ops.quantized_linear(x, blocks.weight())
    finally:
        ops.set_compute_dtype("float32")
    np.testing.assert_allclose(exact.numpy(), plain.numpy(), atol=1e-4)
    np.testing.assert_allclose(found.numpy(), wanted.numpy(), atol=1e-4)
    assert np.abs(found.numpy() - exact.numpy()).max() > 1e-3


def test_a_bias_that_is_trained_gets_its_gradient():
    bias = paddle.zeros([48])
    bias.stop_gradient = False
    x = paddle.ones([4, 256])
    ops.quantized_linear(x, rounded(weight_of((48, 256)), "nf4").weight(), bias).sum().backward()
    assert (bias.grad.numpy() == 4).all()


@pytest.fixture
def asked(monkeypatch) -> list[tuple]:
    """Let the op for GPUs be there, computed by Paddle's ops here, and tell what it was given."""
    given = []

    def run(name, x, codes, values, scales, zeros, bias, outputs, inputs, block):
        given.append((name, x, zeros, bias))
        factors = (scales, block, zeros if zeros.size else None)
        y = product._Product.apply(
            x.reshape([-1, inputs]), ops.QuantizedWeight((outputs, inputs), codes, values, *factors)
        )
        y = y.reshape([*x.shape[:-1], outputs])
        return [y + bias if bias.size else y]

    monkeypatch.setattr(built, "on_gpu", lambda tensor: True)
    monkeypatch.setattr(built, "takes", lambda tensor, on_cuda: on_cuda)
    monkeypatch.setattr(built, "run", run)
    return given


@pytest.mark.parametrize("is_trained", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_on_a_gpu_the_built_op_gets_the_weight_and_a_bias_that_is_not_trained(kind, is_trained, asked):
    blocks = shuffled(rounded(weight_of((10, 32)), kind))
    x = paddle.randn([2, 3, 32])
    bias = paddle.randn([10])
    x.stop_gradient, bias.stop_gradient = False, not is_trained
    y = ops.quantized_linear(x, blocks.weight(), bias)
    y.sum().backward()
    [(name, taken, zeros, in_op)] = asked
    assert name == "quantized_linear" and taken.shape == [2, 3, 32]
    assert zeros.size == (0 if blocks.zeros is None else blocks.zeros.size)
    assert in_op.size == (0 if is_trained else 10)
    plain = blocks.numbers(slice(None))
    np.testing.assert_allclose(y.numpy(), x.numpy() @ plain.T + bias.numpy(), atol=1e-5)
    np.testing.assert_allclose(x.grad.numpy(), np.broadcast_to(plain.sum(0), x.shape), atol=1e-5)
    if is_trained:
        assert (bias.grad.numpy() == 6).all()
    with paddle.no_grad():
        ops.quantized_linear(x, blocks.weight(), bias)
    assert asked[-1][-1].size == 10  # nothing is trained here


def test_rows_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"\[48, 256\] does not multiply `x` of shape \[3, 255\]"):
        ops.quantized_linear(paddle.ones([3, 255]), rounded(weight_of((48, 256)), "nf4").weight())
