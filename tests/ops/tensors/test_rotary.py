from __future__ import annotations

from pathlib import Path

import numpy as np
import paddle
import pytest

from paddlemix.ops import apply_rotary, rotary_frequencies, rotate_pair, rotate_split
from paddlemix.ops.tensors.rotary import apply_rotary_reference

PUBLISHED = Path(__file__).parents[2] / "fixtures" / "qwen2_vl_tiny" / "frequencies.npz"


def slow_rotary(x, angles):
    """Turn the pair (x[i], x[i + D/2]) as a complex number."""
    half = x.shape[-1] // 2
    turned = (x[..., :half] + 1j * x[..., half:]) * np.exp(1j * angles)[..., None, :]
    return np.concatenate([turned.real, turned.imag], axis=-1)


@pytest.mark.parametrize(("lead", "heads", "size"), [((3,), 2, 4), ((2, 3), 1, 6), ((2, 5), 3, 2)])
def test_each_pair_turns_by_its_angle_in_every_head(assert_matches, rng, lead, heads, size):
    x, angles = rng.standard_normal((*lead, heads, size)), 9 * rng.standard_normal((*lead, size // 2))
    cos, sin = (paddle.to_tensor(f(angles).astype(np.float32)) for f in (np.cos, np.sin))
    assert_matches(lambda x: apply_rotary(x, cos, sin), lambda x: slow_rotary(x, angles), x)


def test_an_angle_of_zero_changes_nothing_and_half_precision_stays(rng):
    x = paddle.to_tensor(rng.standard_normal((2, 3, 4)).astype(np.float16))
    found = apply_rotary(x, paddle.ones([2, 2]), paddle.zeros([2, 2]))
    assert found.dtype == paddle.float16 and (found.numpy() == x.numpy()).all()


@pytest.mark.parametrize(("part", "base", "size"), [("decoder", 1e6, 128), ("vision", 1e4, 40)])
def test_frequencies_are_those_of_the_published_models_to_the_last_bit_but_one_unit_of_one_pair(part, base, size):
    with np.load(PUBLISHED) as stored:
        wanted = stored[part]
    found = rotary_frequencies(base, size)
    assert found.dtype == wanted.dtype == np.float32 and found[0] == 1
    # A power may be rounded the other way by another library of mathematics; a formula that rounds elsewhere misses a
    # third of them.
    assert (found != wanted).sum() <= 1
    np.testing.assert_array_max_ulp(found, wanted, maxulp=1)


@pytest.mark.parametrize(("base", "size"), [(1e6, 128), (1e4, 8), (10000, 6)])
def test_frequencies_fall_from_one_by_the_same_factor(base, size):
    found = rotary_frequencies(base, size)
    assert found.shape == (size // 2,)
    np.testing.assert_allclose(found, [base ** (-2 * pair / size) for pair in range(size // 2)], rtol=5e-7)


def angles_of(rng, *shape):
    angles = rng.standard_normal(shape).astype(np.float32)
    return paddle.to_tensor(np.cos(angles)), paddle.to_tensor(np.sin(angles))


@pytest.mark.parametrize(("tokens", "heads", "size"), [(1, 1, 2), (7, 3, 34), (150, 6, 64)])
def test_built_rotations_agree_with_the_reference(assert_agree, rng, tokens, heads, size):
    rotary = angles_of(rng, tokens, size // 2)
    query, key = rng.standard_normal((tokens, heads, size)), rng.standard_normal((tokens, 1, size))
    assert_agree(lambda x: apply_rotary(x, *rotary), lambda x: apply_rotary_reference(x, *rotary), query)
    assert_agree(
        lambda q, k: rotate_pair(q * 1, k * 1, *rotary),
        lambda q, k: [apply_rotary_reference(x, *rotary) for x in (q, k)],
        query,
        key,
    )


def test_queries_keys_and_values_come_apart_rotated_and_as_they_were(assert_matches, rng):
    rotary = angles_of(rng, 5, 2)
    qkv, angles = rng.standard_normal((5, 3, 2, 4)), np.arctan2(*(x.numpy() for x in reversed(rotary)))

    def formula(qkv):
        query, key, value = qkv.transpose(1, 0, 2, 3)
        return np.stack([slow_rotary(query, angles), slow_rotary(key, angles), value])

    assert_matches(lambda x: paddle.stack(rotate_split(x, *rotary)), formula, qkv)


def test_leaves_are_not_overwritten(rng):
    query, key = (paddle.to_tensor(rng.standard_normal((3, 2, 4)).astype(np.float32)) for _ in range(2))
    before = query.numpy().copy(), key.numpy().copy()
    found = rotate_pair(query, key, *angles_of(rng, 3, 2))
    assert (query.numpy() == before[0]).all() and (key.numpy() == before[1]).all()
    assert np.abs(found[0].numpy() - before[0]).max() > 0.1


def test_under_autocast_queries_and_keys_of_two_dtypes_are_turned_each_in_its_own(monkeypatch, rng):
    monkeypatch.setattr(paddle, "is_autocast_enabled", lambda: True)
    angles = angles_of(rng, 3, 2)
    query, key = (paddle.to_tensor(rng.standard_normal((3, 2, 4)).astype(np.float32)) for _ in range(2))
    with paddle.no_grad():
        found = rotate_pair(query, key.astype("bfloat16"), *angles)
        wanted = apply_rotary(query, *angles), apply_rotary(key.astype("bfloat16"), *angles)
    assert [one.dtype for one in found] == [paddle.float32, paddle.bfloat16]
    assert all((one.numpy() == other.numpy()).all() for one, other in zip(found, wanted, strict=True))


def test_without_gradients_the_pair_takes_its_own_place(only_built, rng):
    query, key = (paddle.to_tensor(rng.standard_normal((3, 2, 4)).astype(np.float32)) for _ in range(2))
    angles = angles_of(rng, 3, 2)
    wanted = [apply_rotary(one, *angles).numpy() for one in (query, key)]
    with paddle.no_grad():
        found = rotate_pair(query, key, *angles)
    assert [(one.numpy() == two).all() for one, two in zip(found, wanted, strict=True)] == [True, True]
    assert found[0].data_ptr() == query.data_ptr() and found[1].data_ptr() == key.data_ptr()


def test_angles_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match="`cos` has shape"):
        apply_rotary(paddle.ones([3, 2, 4]), paddle.ones([3, 3]), paddle.ones([3, 2]))
    with pytest.raises(ValueError, match="even D"):
        apply_rotary(paddle.ones([3, 2, 5]), paddle.ones([3, 2]), paddle.ones([3, 2]))
    with pytest.raises(ValueError, match="`qkv` has shape"):
        rotate_split(paddle.ones([3, 2, 2, 4]), paddle.ones([3, 2]), paddle.ones([3, 2]))
