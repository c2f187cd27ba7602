"""Products with weights that are held as codes, beside those with what the codes stand for."""

from __future__ import annotations

import numpy as np
import paddle
import pytest

from paddlemix import ops
from paddlemix.ops.tensors import built
from paddlemix.ops.tensors.quantized import product
from paddlemix.ops.tensors.quantized import weight as weights
from paddlemix.quantization.blocks import Blocks
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
