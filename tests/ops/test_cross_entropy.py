from __future__ import annotations

import numpy as np
import paddle
import pytest

from paddlemix.ops import token_cross_entropy


def slow_cross_entropy(logits, targets):
    sums = np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1)) + logits.max(-1)
    return (sums - logits[np.arange(len(targets)), targets]).mean()


@pytest.mark.parametrize(("count", "vocabulary"), [(1, 2), (5, 7), (3, 11)])
def test_it_is_the_mean_of_what_each_target_costs(assert_matches, rng, count, vocabulary):
    logits, targets = 2 * rng.standard_normal((count, vocabulary)), rng.integers(0, vocabulary, count)
    tensor = paddle.to_tensor(targets)
    assert_matches(lambda x: token_cross_entropy(x, tensor), lambda x: slow_cross_entropy(x, targets), logits)


def test_without_targets_it_is_zero_and_so_are_the_gradients():
    table = paddle.ones([3, 5])
    table.stop_gradient = False
    loss = token_cross_entropy(table[:0], paddle.zeros([0], dtype="int64"))
    loss.backward()
    assert float(loss) == 0 and loss.dtype == paddle.float32
    assert table.grad.shape == [3, 5] and (table.grad.numpy() == 0).all()


def test_half_precision_is_summed_in_float32():
    # In float16 the sum of exponentials overflows: 70000 against a largest number of 65504.
    loss = token_cross_entropy(paddle.zeros([1, 70_000], dtype="float16"), paddle.to_tensor([1]))
    assert loss.dtype == paddle.float32
    np.testing.assert_allclose(float(loss), np.log(70_000), rtol=1e-6)


@pytest.mark.parametrize(("count", "vocabulary"), [(1, 2), (5, 7)])
def test_with_weights_it_is_the_sum_of_what_each_target_costs_times_its_weight(assert_matches, rng, count, vocabulary):
    logits, targets = 2 * rng.standard_normal((count, vocabulary)), rng.integers(0, vocabulary, count)
    weights = rng.uniform(0.5, 2, count).astype(np.float32)

    def formula(x):
        return sum(weights[row] * slow_cross_entropy(x[row : row + 1], targets[row : row + 1]) for row in range(count))

    tensors = paddle.to_tensor(targets), paddle.to_tensor(weights)
    assert_matches(lambda x: token_cross_entropy(x, *tensors), lambda x: np.array(formula(x)), logits)
