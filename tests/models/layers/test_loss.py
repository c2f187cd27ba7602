from __future__ import annotations

import numpy as np
import paddle
import pytest
from paddle import nn

from paddlemix.models.layers.linear import Linear
from paddlemix.models.layers.loss import next_token_loss

LABELS = [[-100, 2, -100, 4], [0, -100, 1, -100]]
# Where the tokens of LABELS are foretold, and which they are.
ROWS, TARGETS = ([0, 0, 1], [0, 2, 1]), [2, 4, 1]


class Watched(nn.Layer):
    """What stands in a head's place, as an adapter does: it remembers what it was given."""

    def __init__(self, inner: nn.Layer) -> None:
        super().__init__()
        self.inner, self.seen = inner, []

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        self.seen.append(x.numpy())
        return self.inner(x)


def make_head(kind: str) -> nn.Layer:
    linear = Linear(5, 7, bias_attr=False)
    if kind == "linear":
        return linear
    if kind == "adapter":
        return Watched(linear)
    embedding = nn.Embedding(7, 5)
    embedding.weight.set_value(linear.weight.T)
    return embedding


def matrix(head: nn.Layer) -> np.ndarray:
    weight = head.inner.weight if isinstance(head, Watched) else head.weight
    return (weight.T if isinstance(head, nn.Embedding) else weight).numpy().astype(np.float64)


def wanted_losses(hidden: np.ndarray, weight: np.ndarray) -> np.ndarray:
    logits = hidden[ROWS].astype(np.float64) @ weight
    return np.log(np.exp(logits).sum(-1)) - logits[np.arange(3), TARGETS]


@pytest.mark.parametrize("kind", ["linear", "adapter", "embedding"])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_loss_is_of_the_tokens_asked_for(kind, weighted):
    head = make_head(kind)
    hidden = paddle.to_tensor(np.random.default_rng(0).standard_normal((2, 4, 5)).astype(np.float32))
    weights = np.random.default_rng(1).uniform(0.1, 2, (2, 4)).astype(np.float32) if weighted else None
    loss = next_token_loss(
        hidden, paddle.to_tensor(LABELS), head, None if weights is None else paddle.to_tensor(weights)
    )
    losses = wanted_losses(hidden.numpy(), matrix(head))
    wanted = losses.mean() if weights is None else losses @ weights[[0, 0, 1], [1, 3, 2]]
    assert float(loss) == pytest.approx(wanted, rel=1e-6)


def test_only_the_logits_in_front_of_target_tokens_are_computed():
    hidden = paddle.to_tensor(np.random.default_rng(0).standard_normal((2, 4, 5)).astype(np.float32))
    head = make_head("adapter")
    next_token_loss(hidden, paddle.to_tensor(LABELS), head)
    np.testing.assert_array_equal(head.seen[0], hidden.numpy()[ROWS])


@pytest.mark.parametrize("kind", ["linear", "adapter", "embedding"])
def test_without_a_target_the_loss_and_its_gradients_are_zero(kind):
    hidden = paddle.ones([1, 3, 5])
    hidden.stop_gradient = False
    loss = next_token_loss(hidden, paddle.full([1, 3], -100, dtype="int64"), make_head(kind))
    loss.backward()
    assert float(loss) == 0 and float(hidden.grad.abs().max()) == 0


def steps_of(node, seen: dict[int, str]) -> dict[int, str]:
    """The names of all steps of a backward pass, by node."""
    if node is not None and id(node) not in seen:
        seen[id(node)] = node.name()
        for following in node.next_functions:
            steps_of(following, seen)
    return seen


@pytest.mark.parametrize("kind", ["linear", "adapter", "embedding"])
def test_no_state_is_sliced_since_the_gradient_of_that_takes_as_long_as_the_head(kind):
    hidden = paddle.ones([2, 4, 5])
    hidden.stop_gradient = False
    loss = next_token_loss(hidden, paddle.to_tensor(LABELS), make_head(kind), paddle.ones([2, 4]))
    names = steps_of(loss.grad_fn, {}).values()
    assert len(names) > 2 and not [name for name in names if "Slice" in name]
