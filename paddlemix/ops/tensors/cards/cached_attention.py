"""One more token of each row of a batch against a cache that is read where it lies."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import paddle
from paddle.nn.functional import flash_attention as kernels

from paddlemix.handover import sent
from paddlemix.ops.tensors import built
from paddlemix.ops.tensors.attention_reference import attention_reference
from paddlemix.ops.tensors.cards.flash import HALVES, flash_attention_fits
from paddlemix.ops.tensors.checks import check_like, check_shape
from paddlemix.ops.tensors.mask import CausalMask

# The built op keeps queries and what they mix in registers.
_LARGEST_HEAD = 256


def has_cached_attention(query: paddle.Tensor) -> bool:
    """Tell whether `cached_attention` reads the cache where it lies.

    Args:
        query: float[B, L, H, D].

    Returns:
        Whether it is one token of each row on a GPU, without gradients, and Paddle's flash attention or the built op
        takes it. On the CPU `decode_blocks` and `attention` do as much.
    """
    if query.shape[1] != 1 or paddle.is_grad_enabled() or not query.place.is_gpu_place():
        return False
    return flash_attention_fits(query) or takes_row_table(query)


def takes_row_table(query: paddle.Tensor) -> bool:
    """Tell whether the op built for GPUs takes float[..., H, D]; it reads rows through a table too."""
    # Autocast hands an op copies of float32 inputs; what it writes to them would be lost.
    is_copied = query.dtype not in HALVES and paddle.is_autocast_enabled()
    fits = query.place.is_gpu_place() and query.shape[-1] <= _LARGEST_HEAD and not is_copied
    return fits and built.takes(query, on_cuda=True)


def cached_attention(
    query: paddle.Tensor,
    key: paddle.Tensor,
    value: paddle.Tensor,
    keys: paddle.Tensor,
    values: paddle.Tensor,
    length: int,
    mask: CausalMask | None = None,
    rows: paddle.Tensor | None = None,
) -> paddle.Tensor:
    """Write one token of each row into a cache, and attend to all that the row then holds.

    What it gives has no gradients.

    Args:
        query: float[B, 1, H, D], H a multiple of G.
        key: float[B, 1, G, D].
        value: float[B, 1, G, D].
        keys: float[N, capacity, G, D], N at least B; place `length` of the first B rows is written.
        values: float[N, capacity, G, D]; likewise.
        length: tokens that the cache holds, padding included.
        mask: hides padding among the `length + 1` tokens; None where there is none.
        rows: int32[B, capacity], which row of the cache holds each of a row's `length` tokens; None where it is the row
            itself. The built op reads them where they lie; else they are gathered.

    Returns:
        float[B, 1, H, D].

    Raises:
        ValueError: shapes, dtypes or places do not fit, or the cache is full.
    """
    _check(query, key, value, keys, values, length, mask, rows)
    padding = None if mask is None else mask.padding
    has_gaps = mask is not None and mask.shape is not None and (padding is None or not padding.is_before)
    if not has_gaps and takes_row_table(query):
        nothing = built.nothing("int32")
        starts = nothing if padding is None else _on_card(padding.starts)
        table = nothing if rows is None else rows
        return built.run("cached_attention", query, key, value, keys, values, starts, table, length)[0]
    if has_gaps or rows is not None or not flash_attention_fits(query):
        return cached_attention_reference(query, key, value, keys, values, length, mask, rows)
    starts = (0,) * query.shape[0] if padding is None else padding.starts
    return _flash_cached_attention(query, key, value, keys, values, length, starts)


@paddle.no_grad()
def cached_attention_reference(
    query: paddle.Tensor,
    key: paddle.Tensor,
    value: paddle.Tensor,
    keys: paddle.Tensor,
    values: paddle.Tensor,
    length: int,
    mask: CausalMask | None = None,
    rows: paddle.Tensor | None = None,
) -> paddle.Tensor:
    """Compute `cached_attention` in its readable form."""
    _write(key, value, keys, values, length)
    batch, span = query.shape[0], length + 1
    if rows is None:
        return attention_reference(query, keys[:batch, :span], values[:batch, :span], mask)
    own = paddle.arange(batch, dtype="int32").unsqueeze(-1)
    places = paddle.concat([rows[:, :length], own], axis=1).astype("int64") * keys.shape[1] + paddle.arange(span)
    gathered = [
        cache.flatten(0, 1).index_select(places.flatten()).reshape([batch, span, *cache.shape[2:]])
        for cache in (keys, values)
    ]
    return attention_reference(query, gathered[0], gathered[1], mask)


def _write(key: paddle.Tensor, value: paddle.Tensor, keys: paddle.Tensor, values: paddle.Tensor, length: int) -> None:
    keys[: key.shape[0], length : length + 1] = key
    values[: key.shape[0], length : length + 1] = value


@paddle.no_grad()
def _flash_cached_attention(
    query: paddle.Tensor,
    key: paddle.Tensor,
    value: paddle.Tensor,
    keys: paddle.Tensor,
    values: paddle.Tensor,
    length: int,
    starts: tuple[int, ...],
) -> paddle.Tensor:
    """Attend without the built op: the whole cache is one sequence of what is seen and of gaps that no query sees."""
    _write(key, value, keys, values, length)
    query_ends, key_ends = _ends_with_gaps(starts, keys.shape[1], length + 1)
    rows = len(starts)
    mixed, _ = kernels.flash_attn_unpadded(
        query.squeeze(1),
        keys[:rows].flatten(0, 1),
        values[:rows].flatten(0, 1),
        query_ends,
        key_ends,
        1,
        keys.shape[1],
        query.shape[-1] ** -0.5,
    )
    return mixed.unsqueeze(1)


@lru_cache(maxsize=2)  # all layers of a step ask for the same
def _ends_with_gaps(starts: tuple[int, ...], capacity: int, span: int) -> tuple[paddle.Tensor, paddle.Tensor]:
    """Cut a cache, its rows laid end to end, into what each row sees and the gaps before it.

    Args:
        starts: by row, places of padding before its tokens.
        capacity: places of a row.
        span: places that hold padding or tokens.

    Returns:
        int32[n + 1] each: where the queries and the keys of each stretch begin, and the end of the last. A gap has no
        query.
    """
    queries, keys = [0], [0]
    for row, start in enumerate(starts):
        begin, end = row * capacity + start, row * capacity + span
        if begin > keys[-1]:
            queries.append(queries[-1])
            keys.append(begin)
        queries.append(queries[-1] + 1)
        keys.append(end)
    if span < capacity:
        queries.append(queries[-1])
        keys.append(len(starts) * capacity)
    return sent(np.array(queries, np.int32)), sent(np.array(keys, np.int32))


@lru_cache(maxsize=2)  # the same for all layers and all steps of an answer
def _on_card(starts: tuple[int, ...]) -> paddle.Tensor:
    return sent(np.array(starts, np.int32))


def _check(
    query: paddle.Tensor,
    key: paddle.Tensor,
    value: paddle.Tensor,
    keys: paddle.Tensor,
    values: paddle.Tensor,
    length: int,
    mask: CausalMask | None,
    rows: paddle.Tensor | None,
) -> None:
    if query.ndim != 4 or query.shape[1] != 1:
        raise ValueError(f"`query` has shape {query.shape}; expected [B, 1, H, D].")
    batch, _, heads, size = query.shape
    if keys.ndim != 4 or keys.shape[0] < batch or keys.shape[3] != size:
        raise ValueError(f"`keys` has shape {keys.shape}; expected [{batch} or more, capacity, G, {size}].")
    groups = keys.shape[2]
    if not groups or heads % groups:
        raise ValueError(f"`query` has {heads} heads, which is no multiple of the {groups} of `keys`.")
    check_shape("values", values, keys.shape)
    for name, new, cache in (("key", key, keys), ("value", value, values)):
        check_shape(name, new, [batch, 1, groups, size])
        check_like(name, new, query)
        check_like(f"{name}s", cache, query)
        if not cache.is_contiguous():
            raise ValueError(f"`{name}s` does not lie in one piece; what is written to it would be lost.")
    if not 0 <= length < keys.shape[1]:
        raise ValueError(f"`length` is {length}; the cache has room for {keys.shape[1]} tokens.")
    if mask is not None and mask.shape not in (None, [batch, length + 1]):
        raise ValueError(f"`mask` has shape {mask.shape}; expected {[batch, length + 1]}.")
    if rows is not None:
        check_shape("rows", rows, [batch, keys.shape[1]])
