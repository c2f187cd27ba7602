from __future__ import annotations

import numpy as np
import paddle
import pytest

from paddlemix.models.layers.loss import next_token_loss


def test_only_the_logits_in_front_of_target_tokens_are_computed():
    hidden = paddle.to_tensor(np.random.default_rng(0).standard_normal((2, 4, 5)).astype(np.float32))
    labels = paddle.to_tensor([[-100, 2, -100, 4], [0, -100, 1, -100]])
    seen = []
    loss = next_token_loss(hidden, labels, lambda x: seen.append(x.numpy()) or x)
    rows = hidden.numpy()[[0, 0, 1], [0, 2, 1]]
    np.testing.assert_array_equal(seen[0], rows)
    wide = rows.astype(np.float64)
    wanted = [np.log(np.exp(row).sum()) - row[target] for row, target in zip(wide, [2, 4, 1], strict=True)]
    assert float(loss) == pytest.approx(np.mean(wanted), rel=1e-6)


def test_without_a_target_the_loss_and_its_gradients_are_zero():
    hidden = paddle.ones([1, 3, 4])
    hidden.stop_gradient = False
    loss = next_token_loss(hidden, paddle.full([1, 3], -100, dtype="int64"), lambda x: x * 2)
    loss.backward()
    assert float(loss) == 0 and float(hidden.grad.abs().max()) == 0
