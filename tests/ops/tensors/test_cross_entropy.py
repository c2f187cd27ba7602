from __future__ import annotations

import sys

import numpy as np
import paddle
import pytest

from paddlemix.ops import linear_cross_entropy, token_cross_entropy


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


def slow_linear_cross_entropy(hidden, weight, targets, weights):
    logits = hidden @ weight
    return sum(
        one * slow_cross_entropy(logits[row : row + 1], targets[row : row + 1])
        for row, one in enumerate(weights)
        if one
    )


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "sum", "weights"])
def test_the_loss_of_a_head_is_that_of_its_logits_without_ignored_targets(assert_matches, rng, transposed, reduction):
    hidden, weight = rng.standard_normal((6, 3)), rng.standard_normal((3, 7))
    targets = np.array([0, -100, 6, 3, 3, -100])
    shares = {"mean": np.full(6, 1 / 4), "sum": np.ones(6), "weights": rng.uniform(0.5, 2, 6).astype(np.float32)}
    weights = np.where(targets < 0, 0, shares[reduction])
    given = paddle.to_tensor(shares["weights"]) if reduction == "weights" else None
    name = "mean" if given is not None else reduction
    assert_matches(
        lambda h, w: linear_cross_entropy(
            h, w, paddle.to_tensor(targets), given, reduction=name, transposed=transposed
        ),
        lambda h, w: np.array(slow_linear_cross_entropy(h, w.T if transposed else w, targets, weights)),
        hidden,
        weight.T if transposed else weight,
    )


@pytest.mark.parametrize("transposed", [False, True])
def test_more_rows_than_are_held_at_once_cost_what_their_logits_do(only_built, rng, transposed):
    # 96 MiB of logits are held, 125 rows of these: the weight's gradient is added up over three pieces.
    rows, size, vocabulary = 300, 4, 200_000
    hidden, weight = rng.standard_normal((rows, size)), rng.standard_normal((size, vocabulary))
    targets = rng.integers(0, 3, rows)
    tensors = [
        paddle.to_tensor(np.ascontiguousarray(x).astype(np.float32), stop_gradient=False)
        for x in (hidden, weight.T if transposed else weight)
    ]
    loss = linear_cross_entropy(*tensors, paddle.to_tensor(targets), transposed=transposed)
    loss.backward()
    cost, hidden_grad, weight_grad = 0.0, np.empty_like(hidden), np.zeros_like(weight)
    for row, target in enumerate(targets):
        logits = hidden[row] @ weight
        shares = np.exp(logits)
        cost += np.log(shares.sum()) - logits[target]
        shares /= shares.sum()
        shares[target] -= 1
        hidden_grad[row], weight_grad = weight @ shares, weight_grad + np.outer(hidden[row], shares)
    np.testing.assert_allclose(float(loss), cost / rows, rtol=1e-6)
    found = tensors[1].grad.numpy().T if transposed else tensors[1].grad.numpy()
    for ours, right in ((tensors[0].grad.numpy(), hidden_grad / rows), (found, weight_grad / rows)):
        # Of the largest gradient: what rounding leaves of sums over 200,000 tokens, measured 1.5e-5.
        np.testing.assert_allclose(ours, right, rtol=0, atol=4e-5 * np.abs(right).max())


def test_a_loss_of_ten_thousand_is_not_capped(only_built):
    # Paddle's own cross entropy costs at most 64 on a CPU.
    hidden = paddle.to_tensor([[1.0, 0.0]], stop_gradient=False)
    weight = paddle.to_tensor([[1e4, -1e4, 0.0], [0.0, 0.0, 0.0]])
    loss = linear_cross_entropy(hidden, weight, paddle.to_tensor([2]))
    loss.backward()
    np.testing.assert_allclose(float(loss), 1e4, rtol=1e-6)
    np.testing.assert_allclose(hidden.grad.numpy(), [[1e4, 0]], rtol=1e-6)


@pytest.mark.parametrize("targets", [[], [-100, -100]])
def test_no_target_that_counts_costs_nothing_and_gradients_are_zero(targets):
    hidden, weight = paddle.ones([len(targets), 3]), paddle.ones([3, 5])
    weight.stop_gradient = hidden.stop_gradient = False
    loss = linear_cross_entropy(hidden, weight, paddle.to_tensor(targets, dtype="int64"))
    loss.backward()
    assert float(loss) == 0 and (weight.grad.numpy() == 0).all()


@pytest.mark.parametrize("upstream", [1.0, 0.25])
def test_the_gradient_is_that_of_what_follows_the_loss(rng, upstream):
    hidden, weight = rng.standard_normal((5, 3)).astype(np.float32), rng.standard_normal((3, 7)).astype(np.float32)
    found = []
    for factor in (1.0, upstream):
        tensors = [paddle.to_tensor(x, stop_gradient=False) for x in (hidden, weight)]
        (linear_cross_entropy(*tensors, paddle.to_tensor([0, 1, 2, 3, 4])) * factor).backward()
        found.append([tensor.grad.numpy() for tensor in tensors])
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one * upstream, other, rtol=1e-6)


def test_what_does_not_fit_is_named():
    hidden, weight, targets = paddle.ones([2, 3]), paddle.ones([3, 5]), paddle.to_tensor([0, 1])
    for name, call in {
        "weight": lambda: linear_cross_entropy(hidden, weight, targets, transposed=True),
        "targets": lambda: linear_cross_entropy(hidden, weight, paddle.to_tensor([0])),
        "weights": lambda: linear_cross_entropy(hidden, weight, targets, paddle.ones([3])),
        "reduction": lambda: linear_cross_entropy(hidden, weight, targets, reduction="max"),
    }.items():
        with pytest.raises(ValueError, match=f"`{name}`"):
            call()
    with pytest.raises(ValueError, match="`targets` run from 0 to 5; expected tokens from 0 to 4"):
        linear_cross_entropy(hidden, weight, paddle.to_tensor([0, 5]))


def test_targets_that_all_count_are_not_read(rng, monkeypatch):
    hidden, weight = (paddle.to_tensor(rng.standard_normal(shape).astype(np.float32)) for shape in ((3, 4), (4, 7)))
    targets = paddle.to_tensor([0, 6, 2])
    wanted = linear_cross_entropy(hidden, weight, targets).numpy()
    with monkeypatch.context() as patch:
        for owner, name in ((paddle.Tensor, "nonzero"), (paddle.Tensor, "numpy"), (paddle.Tensor, "__int__")):
            patch.setattr(owner, name, lambda *_: pytest.fail("the targets were read"))
        found = linear_cross_entropy(hidden, weight, targets, all_count=True)
    assert found.numpy().tobytes() == wanted.tobytes()


class Module:
    """The module itself, whose name `paddlemix.ops.tensors` gives to nothing else."""

    def __init__(self, monkeypatch):
        self.module = sys.modules[token_cross_entropy.__module__]
        self.called = []
        monkeypatch.setattr(self.module.built, "takes", self.takes)
        monkeypatch.setattr(self.module.built, "run", self.run)
        self.mixes = []

    def takes(self, *tensors, on_cuda, is_mixed):
        self.mixes.append(([one.dtype for one in tensors], is_mixed))
        return True

    def run(self, name, *arguments):
        self.called.append((name, *arguments))
        return [paddle.zeros([])]


@pytest.fixture
def on_card(monkeypatch):
    return Module(monkeypatch)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_in_float16_gradients_are_computed_when_the_loss_scale_is_known(on_card, dtype):
    # Before it is given the scale that keeps float16's from vanishing, the op computes no gradients.
    hidden, weight = (paddle.ones(shape, dtype=dtype) for shape in ([2, 3], [3, 5]))
    weight.stop_gradient = False
    linear_cross_entropy(hidden, weight, paddle.to_tensor([1, 4]))
    ((name, *arguments),) = on_card.called
    assert name == ("late_linear_cross_entropy" if dtype == "float16" else "linear_cross_entropy")
    assert arguments[-2:] == [False, True]  # of hidden states and weight the second asks for a gradient


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", None])
def test_under_autocast_products_are_computed_in_its_dtype_from_a_weight_that_stays_as_it_is(
    on_card, monkeypatch, dtype
):
    asked = None if dtype is None else getattr(paddle, dtype)
    monkeypatch.setattr(on_card.module, "product_dtype", lambda: asked)
    hidden, weight = paddle.ones([2, 3]), paddle.ones([3, 5])
    hidden.stop_gradient = False
    linear_cross_entropy(hidden, weight, paddle.to_tensor([1, 4]))
    ((_, given, held, *_),) = on_card.called
    assert given.dtype == (asked or paddle.float32) and held is weight
    assert on_card.mixes == [([given.dtype, paddle.float32], asked is not None)]
    given.sum().backward()
    assert hidden.grad.dtype == paddle.float32 and (hidden.grad.numpy() == 1).all()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_hidden_states_that_are_rounded_already_stay_as_they_are(on_card, monkeypatch, dtype):
    monkeypatch.setattr(on_card.module, "product_dtype", lambda: paddle.bfloat16)
    monkeypatch.setattr(paddle, "is_autocast_enabled", lambda: True)
    hidden = paddle.ones([2, 3], dtype=dtype)
    linear_cross_entropy(hidden, paddle.ones([3, 5]), paddle.to_tensor([1, 4]))
    assert on_card.called[0][1].dtype == hidden.dtype
