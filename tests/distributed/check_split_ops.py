"""On two ranks: the loss of a split vocabulary against the plain one, and the collectives' gradients."""

from __future__ import annotations

import paddlemix  # isort: skip - before Paddle, which it prepares for
import numpy as np
import paddle
import paddle.distributed as dist
import pytest

from paddlemix import ops

del paddlemix

TOKENS, SIZE, VOCABULARY = 9, 6, 14
# Sums of a few dozen float32 in another order; logits reach 30.
CLOSE = {"rtol": 2e-6, "atol": 2e-6}


def part(whole: np.ndarray, axis: int) -> np.ndarray:
    return np.split(whole, dist.get_world_size(), axis)[dist.get_rank()]


def leaf(array: np.ndarray) -> paddle.Tensor:
    return paddle.to_tensor(array, stop_gradient=False)


def check_loss(transposed: bool, weighted: bool, targets: np.ndarray) -> None:
    random = np.random.default_rng(0)
    hidden = random.normal(size=[TOKENS, SIZE]).astype(np.float32) * 4
    matrix = random.normal(size=[VOCABULARY, SIZE] if transposed else [SIZE, VOCABULARY]).astype(np.float32) * 3
    weights = paddle.to_tensor(random.random(TOKENS).astype(np.float32)) if weighted else None
    asked, axis = paddle.to_tensor(targets), 0 if transposed else 1
    plain_hidden, plain_matrix = leaf(hidden), leaf(matrix)
    plain = ops.linear_cross_entropy(plain_hidden, plain_matrix, asked, weights, transposed=transposed)
    split_hidden, split_matrix = leaf(hidden), leaf(part(matrix, axis))
    group = dist.get_group()
    split = ops.split_linear_cross_entropy(split_hidden, split_matrix, asked, group, weights, transposed=transposed)
    (plain * 3).backward()
    (split * 3).backward()
    np.testing.assert_allclose(split.numpy(), plain.numpy(), **CLOSE)
    np.testing.assert_allclose(split_hidden.grad.numpy(), plain_hidden.grad.numpy(), **CLOSE)
    np.testing.assert_allclose(split_matrix.grad.numpy(), part(plain_matrix.grad.numpy(), axis), **CLOSE)
    assert bool(np.abs(split_hidden.grad.numpy()).max() > 1e-3) == bool((targets >= 0).any())


def check_gathered_logits() -> None:
    random = np.random.default_rng(1)
    hidden, matrix = (random.normal(size=shape).astype(np.float32) for shape in ([2, 3, SIZE], [SIZE, VOCABULARY]))
    upstream = paddle.to_tensor(random.normal(size=[2, 3, VOCABULARY]).astype(np.float32))
    plain_hidden, plain_matrix, split_hidden, split_matrix = map(leaf, (hidden, matrix, hidden, part(matrix, 1)))
    plain = ops.linear(plain_hidden, plain_matrix)
    own = ops.linear(ops.copy_to_ranks(split_hidden, dist.get_group()), split_matrix)
    gathered = ops.gather_from_ranks(own, dist.get_group())
    (plain * upstream).sum().backward()
    (gathered * upstream).sum().backward()
    np.testing.assert_allclose(gathered.numpy(), plain.numpy(), **CLOSE)
    np.testing.assert_allclose(split_hidden.grad.numpy(), plain_hidden.grad.numpy(), **CLOSE)
    np.testing.assert_allclose(split_matrix.grad.numpy(), part(plain_matrix.grad.numpy(), 1), **CLOSE)


def check_refusal() -> None:
    hidden, matrix = paddle.ones([1, SIZE]), paddle.ones([SIZE, VOCABULARY // 2])
    for target in (-1, VOCABULARY):
        with pytest.raises(ValueError, match=f"expected tokens from 0 to {VOCABULARY - 1}"):
            ops.split_linear_cross_entropy(hidden, matrix, paddle.to_tensor([target]), dist.get_group())


if __name__ == "__main__":
    dist.init_parallel_env()
    # Tokens of both halves, some that are not asked, and a token of the last place of the first half.
    some = np.array([3, -100, 13, 6, 7, -100, 0, 12, 6])
    for is_transposed in (False, True):
        for is_weighted in (False, True):
            check_loss(is_transposed, is_weighted, some)
    check_loss(transposed=True, weighted=True, targets=np.full(TOKENS, -100))
    check_loss(transposed=False, weighted=False, targets=np.full(TOKENS, 1))  # none in the second half
    check_gathered_logits()
    check_refusal()
    print("the split ops are right", flush=True)
