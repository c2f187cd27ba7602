from __future__ import annotations

import numpy as np
import paddle
import pytest

from paddlemix.ops import BlockWeights, CausalMask, HeldBlock, decode_blocks, has_decode_blocks, set_num_threads
from paddlemix.ops.tensors import built
from paddlemix.ops.tensors.decode_block import MOST_ROWS

EPSILON = 1e-5


class Case:
    """A block, a cache that holds `length` tokens, and one more token of each row."""

    def __init__(self, rng, rows=2, hidden=24, heads=4, groups=2, size=8, inner=20, length=5, split=True, padded=False):
        self.rng, self.length = rng, length
        widths = [heads * size, groups * size, groups * size]
        if not split:
            widths = [sum(widths)]
        self.weights = BlockWeights(
            1 + self.draw(hidden),
            tuple(self.draw(hidden, width) for width in widths),
            tuple(self.draw(width) if split or width > 1 else None for width in widths),
            self.draw(heads * size, hidden),
            1 + self.draw(hidden),
            self.draw(hidden, inner),
            self.draw(hidden, inner),
            self.draw(inner, hidden),
            EPSILON,
        )
        self.x = self.draw(rows, 1, hidden, scale=1.0)
        self.rotary, self.key_rotary = (self.angles(rows, size // 2) for _ in range(2))
        self.keys, self.values = (self.draw(rows, length + 3, groups, size, scale=1.0).numpy() for _ in range(2))
        self.mask = None
        if padded:
            visible = np.ones([rows, length + 1], dtype=np.int64)
            visible[-1, : max(length - 1, 0)] = 0
            self.mask = CausalMask(paddle.to_tensor(visible))

    def draw(self, *shape, scale=0.3):
        return paddle.to_tensor(scale * self.rng.standard_normal(shape).astype(np.float32))

    def angles(self, rows, pairs):
        angles = 3 * self.draw(rows, 1, pairs)
        return angles.cos(), angles.sin()

    def run(self, function):
        """Return what `function` gives, and the cache after it."""
        keys, values = paddle.to_tensor(self.keys), paddle.to_tensor(self.values)
        with paddle.no_grad():
            held = [HeldBlock(self.weights)]
            y = function(self.x, held, self.rotary, self.key_rotary, [keys], [values], self.length, self.mask)
        return y.numpy(), keys.numpy(), values.numpy()


def by_hand(case):
    """Compute the same in float64, a row and a head at a time."""
    weights = BlockWeights(
        *(
            value
            if isinstance(value, float)
            else _wide(value)
            if isinstance(value, paddle.Tensor)
            else [*map(_wide, value)]
            for value in case.weights
        )
    )
    keys, values = case.keys.astype(np.float64), case.values.astype(np.float64)
    groups, size = keys.shape[2:]

    def norm(x, scale):
        return x / np.sqrt((x * x).mean() + EPSILON) * scale

    def turn(head, rotary, row):
        turns = _wide(rotary[0])[row, 0] + 1j * _wide(rotary[1])[row, 0]
        pairs = (head[: size // 2] + 1j * head[size // 2 :]) * turns
        return np.concatenate([pairs.real, pairs.imag])

    out = []
    for row, x in enumerate(_wide(case.x)[:, 0]):
        normed = norm(x, weights.attention_norm)
        projected = [normed @ w + b for w, b in zip(weights.projections, weights.biases, strict=True)]
        heads = np.concatenate(projected).reshape(-1, size)
        count = len(heads) - 2 * groups
        for group in range(groups):
            keys[row, case.length, group] = turn(heads[count + group], case.key_rotary, row)
            values[row, case.length, group] = heads[count + groups + group]
        mixed = []
        for head in range(count):
            group = head // (count // groups)
            scores = keys[row, : case.length + 1, group] @ turn(heads[head], case.rotary, row) / np.sqrt(size)
            if case.mask is not None:
                scores = np.where(case.mask.attention_mask.numpy()[row] != 0, scores, -np.inf)
            weight = np.exp(scores - scores.max())
            mixed.append(weight / weight.sum() @ values[row, : case.length + 1, group])
        total = x + np.concatenate(mixed) @ weights.output
        normed = norm(total, weights.feed_forward_norm)
        gate = normed @ weights.gate
        out.append(total + gate / (1 + np.exp(-gate)) * (normed @ weights.up) @ weights.down)
    return np.stack(out)[:, None], keys, values


def _wide(tensor):
    return tensor.numpy().astype(np.float64)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"length": 0},
        {"rows": 1, "heads": 1, "groups": 1, "size": 2, "inner": 1, "hidden": 1},
        {"rows": 3, "heads": 6, "groups": 3, "size": 20, "length": 70},
        {"rows": 1, "split": False, "length": 64},
        {"rows": MOST_ROWS, "heads": 7, "groups": 1, "size": 32, "inner": 70, "hidden": 67, "length": 17},
        {"rows": 2, "size": 128, "length": 131},
    ],
)
def test_a_token_goes_through_the_block_and_into_the_cache(rng, shape, padded):
    case = Case(rng, **shape, padded=padded)
    found, wanted = case.run(decode_blocks), by_hand(case)
    assert np.abs(wanted[0] - case.x.numpy()).max() > 0.01
    # float32 against float64: 2e-6 of the largest number was measured.
    for ours, theirs in zip(found, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5 * np.abs(theirs).max(), rtol=0)
    for ours, before in zip(found[1:], (case.keys, case.values), strict=True):
        changed = (ours != before).any(axis=(2, 3))
        assert changed[:, case.length].all() and changed.sum() == len(changed)


@pytest.mark.parametrize("split", [False, True])
def test_at_a_models_size_it_is_right_on_any_number_of_threads(only_built, rng, split):
    case = Case(rng, rows=3, hidden=256, heads=8, groups=2, size=32, inner=704, length=200, split=split, padded=True)
    wanted, threads = by_hand(case), built.num_threads()
    try:
        found = []
        for count in (1, 2, 5):
            set_num_threads(count)
            found.append(case.run(decode_blocks))
    finally:
        set_num_threads(threads)
    for other in found[1:]:  # what is shared out does not depend on how many share it
        for one, two in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(one, two)
    for ours, theirs in zip(found[0], wanted, strict=True):
        # Measured with six seeds: 0.4e-6 to 1.3e-6, of the reference 0.9e-6 to 3.8e-6.
        np.testing.assert_allclose(ours, theirs, atol=3e-6 * np.abs(theirs).max(), rtol=0)


def test_heads_that_the_built_op_has_no_room_for_are_left_to_the_reference(rng):
    case = Case(rng, rows=1, heads=65, groups=1, size=2)
    np.testing.assert_allclose(case.run(decode_blocks)[0], by_hand(case)[0], atol=1e-4)


def test_it_is_for_one_token_of_few_rows_without_gradients(only_built):
    assert not has_decode_blocks(paddle.ones([1, 1, 4]))
    with paddle.no_grad():
        assert has_decode_blocks(paddle.ones([MOST_ROWS, 1, 4]))
        for shape in ([MOST_ROWS + 1, 1, 4], [1, 2, 4]):
            assert not has_decode_blocks(paddle.ones(shape))
        assert not has_decode_blocks(paddle.ones([1, 1, 4], dtype="float64"))


def test_nothing_that_it_gives_asks_for_gradients(rng):
    case = Case(rng)
    for weight in (*case.weights.projections, case.weights.output):
        weight.stop_gradient = False
    case.x.stop_gradient = False
    keys, values = paddle.to_tensor(case.keys), paddle.to_tensor(case.values)
    with paddle.no_grad():
        held = [HeldBlock(case.weights)]
        y = decode_blocks(case.x, held, case.rotary, case.key_rotary, [keys], [values], case.length)
    assert y.stop_gradient and keys.stop_gradient and values.stop_gradient


@pytest.mark.parametrize(
    ("named", "change"),
    [
        ("x", {"x": paddle.ones([2, 2, 24])}),
        ("keys", {"keys": paddle.ones([3, 8, 2, 8])}),
        ("values", {"values": paddle.ones([2, 8, 2, 4])}),
        ("keys", {"keys": paddle.ones([2, 8, 2, 8], dtype="float64")}),
        ("values", {"values": paddle.ones([2, 9, 2, 8])[:, 1:]}),
        ("length", {"length": 8}),
        ("query_rotary[1]", {"query_rotary": (paddle.ones([2, 1, 4]), paddle.ones([2, 1, 3]))}),
        ("key_rotary[0]", {"key_rotary": (paddle.ones([1, 1, 4]), paddle.ones([2, 1, 4]))}),
        ("mask", {"mask": CausalMask(paddle.ones([2, 5], dtype="int64"))}),
        ("projections", {"projections": (paddle.ones([24, 30]),), "biases": (None,)}),
        ("projections", {"projections": (paddle.ones([20, 64]),), "biases": (None,)}),
        ("biases", {"biases": (paddle.ones([4]), None, None)}),
        ("attention_norm", {"attention_norm": paddle.ones([23])}),
        ("output", {"output": paddle.ones([24, 32])}),
        ("feed_forward_norm", {"feed_forward_norm": paddle.ones([20])}),
        ("gate", {"gate": paddle.ones([20, 20])}),
        ("up", {"up": paddle.ones([24, 19])}),
        ("down", {"down": paddle.ones([24, 20])}),
    ],
)
def test_what_does_not_fit_is_named_and_nothing_is_written(rng, named, change):
    case = Case(rng)
    inputs = {
        "x": case.x,
        "query_rotary": case.rotary,
        "key_rotary": case.key_rotary,
        "keys": paddle.to_tensor(case.keys),
        "values": paddle.to_tensor(case.values),
        "length": case.length,
    }
    weights = case.weights._replace(**{name: value for name, value in change.items() if name in BlockWeights._fields})
    inputs |= {name: value for name, value in change.items() if name not in BlockWeights._fields}
    caches = {name: [inputs.pop(name)] for name in ("keys", "values")}
    with paddle.no_grad(), pytest.raises(ValueError, match="`") as error:
        decode_blocks(blocks=[HeldBlock(weights)], **inputs, **caches)
    assert f"`{named}`" in str(error.value)
    if "keys" not in change:
        np.testing.assert_array_equal(caches["keys"][0].numpy(), case.keys)
