"""Rotary position embedding in its half-split form, for text (1-D and M-RoPE) and vision (2-D) alike."""

from __future__ import annotations

import numpy as np
import paddle

from paddlemix.ops.tensors import built
from paddlemix.ops.tensors.checks import check_like, check_shape
from paddlemix.ops.tensors.lean import rotary as lean

# Cosines and sines of each pair's angle, float32[..., L, D/2].
Rotary = tuple[paddle.Tensor, paddle.Tensor]


def rotary_frequencies(base: float, size: int) -> np.ndarray:
    """Compute the radians that each pair of a head turns for one step of position.

    Args:
        base: the slowest pair turns about `1 / base`.
        size: numbers that are turned, twice the pairs.

    Returns:
        float32[size / 2], from 1 downwards.

    Source: Su et al., "RoFormer", 2021, arXiv:2104.09864.
    """
    return np.float32(1) / rotary_steps(base, size)


def rotary_steps(base: float, size: int) -> np.ndarray:
    """Compute the steps of position in which each pair of a head turns by one radian.

    Args:
        base: the slowest pair takes about as many.
        size: numbers that are turned, twice the pairs.

    Returns:
        float32[size / 2], from 1 upwards.
    """
    # Rounded where the published code rounds, which other formulas miss by one unit in the last place: at position
    # 30000 that turns a pair by 2e-3 radians.
    exponents = np.arange(0, size, 2).astype(np.float32) / np.float32(size)
    base = float(np.float32(base))
    return (base ** exponents.astype(np.float64)).astype(np.float32)


def apply_rotary(x: paddle.Tensor, cos: paddle.Tensor, sin: paddle.Tensor) -> paddle.Tensor:
    """Rotate the pairs `(x[i], x[i + D/2])` of every head.

    Args:
        x: float[..., L, H, D].
        cos: float32[..., L, D/2], the cosine of each pair's angle.
        sin: float32[..., L, D/2].

    Returns:
        float[..., L, H, D] in the dtype of `x`; the rotation is done in float32.

    Raises:
        ValueError: shapes do not fit.

    Source: Su et al., "RoFormer", 2021, arXiv:2104.09864.
    """
    _check("x", x, cos, sin)
    if built.takes(x, on_cuda=True):
        return built.run("rotary", x, cos, sin)[0]
    if built.on_gpu(x):
        return lean.apply_rotary(x, cos, sin)
    return apply_rotary_reference(x, cos, sin)


def apply_rotary_reference(x: paddle.Tensor, cos: paddle.Tensor, sin: paddle.Tensor) -> paddle.Tensor:
    """Compute `apply_rotary` in its readable form."""
    wide = x.astype("float32")
    half = [*x.shape[:-1], x.shape[-1] // 2]
    # Rolled by half a head, each number meets its partner. On Paddle's CPU this and the spread-out angles take an
    # eighth of the time that splitting, broadcasting and joining take (2.1 against 16.1 ms, forward and backward,
    # 16 x 150 x 6 x 32).
    cos, sin = (angle.unsqueeze(-2).expand(half) for angle in (cos, sin))
    partner = paddle.roll(wide, half[-1], axis=-1)
    return (wide * paddle.concat([cos, cos], -1) + partner * paddle.concat([-sin, sin], -1)).astype(x.dtype)


def rotate_pair(
    query: paddle.Tensor, key: paddle.Tensor, cos: paddle.Tensor, sin: paddle.Tensor
) -> tuple[paddle.Tensor, paddle.Tensor]:
    """Apply `apply_rotary` to queries and keys, which may be overwritten: do not use them afterwards.

    Args:
        query: float[..., L, H, D].
        key: float[..., L, G, D].
        cos: float32[..., L, D/2], the cosine of each pair's angle.
        sin: float32[..., L, D/2].

    Returns:
        The rotated queries and keys.

    Raises:
        ValueError: shapes, dtypes or places do not fit.
    """
    _check("query", query, cos, sin)
    _check("key", key, cos, sin)
    check_like("key", key, query)
    # What a user wants gradients of is left alone; Paddle refuses it too. Without gradients every tensor is a leaf.
    is_given = paddle.is_grad_enabled() and (query.is_leaf or key.is_leaf)
    # Under autocast their dtypes may differ, as where one of them alone is normalised: each is turned in its own.
    if is_given or not built.takes(query, key, on_cuda=True):
        return apply_rotary(query, cos, sin), apply_rotary(key, cos, sin)
    return tuple(built.run("rotary_pair", query, key, cos, sin))


def rotate_split(
    qkv: paddle.Tensor, cos: paddle.Tensor, sin: paddle.Tensor
) -> tuple[paddle.Tensor, paddle.Tensor, paddle.Tensor]:
    """Take queries, keys and values apart, and rotate the first two.

    Args:
        qkv: float[N, 3, H, D].
        cos: float32[N, D/2], the cosine of each pair's angle.
        sin: float32[N, D/2].

    Returns:
        float[N, H, D] each: rotated queries, rotated keys, values.

    Raises:
        ValueError: shapes do not fit.
    """
    if qkv.ndim != 4 or qkv.shape[1] != 3:
        raise ValueError(f"`qkv` has shape {qkv.shape}; expected [N, 3, H, D].")
    if built.takes(qkv, on_cuda=True):
        _check("qkv", qkv[:, 0], cos, sin)
        return tuple(built.run("rotary_split", qkv, cos, sin))
    query, key, value = qkv.unbind(axis=1)
    return apply_rotary(query, cos, sin), apply_rotary(key, cos, sin), value


def _check(name: str, x: paddle.Tensor, cos: paddle.Tensor, sin: paddle.Tensor) -> None:
    if x.ndim < 3 or x.shape[-1] % 2:
        raise ValueError(f"`{name}` has shape {x.shape}; expected [..., L, H, D] with an even D.")
    for angle_name, angle in (("cos", cos), ("sin", sin)):
        check_shape(angle_name, angle, [*x.shape[:-2], x.shape[-1] // 2])
        if angle.dtype != paddle.float32:
            raise ValueError(f"`{angle_name}` is {angle.dtype}; expected float32.")
