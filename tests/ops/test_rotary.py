from __future__ import annotations

from pathlib import Path

import numpy as np
import paddle
import pytest

from paddlemix.ops import apply_rotary, rotary_frequencies

PUBLISHED = Path(__file__).parents[1] / "fixtures" / "qwen2_vl_tiny" / "frequencies.npz"


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
