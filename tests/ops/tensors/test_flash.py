"""The routes to flash attention, with a kernel in its place that computes in float32 and refuses what it refuses."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import paddle
import pytest
from paddle.nn.attention import sdpa
from paddle.nn.functional.flash_attention import _select_sdp

from paddlemix.models.layers.mask import known_mask
from paddlemix.ops import CausalMask, CausalSegments, Segments, cached_attention
from paddlemix.ops.tensors import attention_reference as reference
from paddlemix.ops.tensors import built
from paddlemix.ops.tensors.attention_reference import attention_reference, segment_attention_reference
from paddlemix.ops.tensors.cards import cached_attention as cached
from paddlemix.ops.tensors.cards import flash
from paddlemix.ops.tensors.cards.cached_attention import cached_attention_reference, has_cached_attention
from paddlemix.ops.tensors.mask import HIDDEN, Padding

# Heads of the towers, the resampler and the decoders of published models, and of common others.
SIZES = [64, 72, 80, 104, 128]


class Kernels:
    """What `paddle.nn.functional.flash_attention` holds, and what it was asked; `version` says who sees what.

    Where there are fewer queries than keys, in version 2 of the kernel the first query sees the first key alone, in
    version 3 the last sees all.
    """

    def __init__(self, version: int) -> None:
        self.version, self.asked = version, []

    def flash_attention(self, query, key, value, causal=False):
        assert query.ndim == 4 and key.shape == value.shape
        assert _select_sdp(query.shape[-1]) == "flash_attn", "Paddle's function would compute with products"
        self.asked.append("rows")
        return self._attend(query, key, value, causal=causal), None

    def flash_attn_unpadded(self, query, key, value, query_ends, key_ends, longest, longest_key, scale, causal=False):
        self.asked.append("unpadded")
        assert (
            query.ndim == 3 and query_ends.dtype == key_ends.dtype == paddle.int32 and scale == query.shape[-1] ** -0.5
        )
        mixed = []
        for (start, end), (first, last) in zip(pairwise(query_ends.tolist()), pairwise(key_ends.tolist()), strict=True):
            assert end - start <= longest and last - first <= longest_key
            if end > start:
                part = query[start:end].unsqueeze(0), key[first:last].unsqueeze(0), value[first:last].unsqueeze(0)
                mixed.append(self._attend(*part, causal=causal).squeeze(0))
        assert query_ends.tolist()[-1] == len(query) and key_ends.tolist()[-1] == len(key)
        return paddle.concat(mixed), None

    def _attend(self, query, key, value, *, causal):
        _, length, heads, size = query.shape
        span, share = key.shape[1], heads // key.shape[2]
        key, value = (x.repeat_interleave(share, axis=2).transpose([0, 2, 1, 3]) for x in (key, value))
        scores = paddle.matmul(query.transpose([0, 2, 1, 3]), key, transpose_y=True) * size**-0.5
        if causal:
            shift = 0 if self.version == 2 else span - length
            scores = scores + paddle.full([length, span], HIDDEN).triu(1 + shift)
        return paddle.matmul(paddle.nn.functional.softmax(scores, axis=-1), value).transpose([0, 2, 1, 3])


@pytest.fixture(params=[2, 3])
def kernels(request, monkeypatch):
    kernels = Kernels(request.param)
    monkeypatch.setattr(flash, "kernels", kernels)
    monkeypatch.setattr(cached, "kernels", kernels)
    return kernels


@pytest.fixture
def on_card(monkeypatch):
    """Make the routes take tensors of the CPU for those of a card, once called."""

    def insert():
        for module in (reference, cached):
            monkeypatch.setattr(module, "flash_attention_fits", lambda query: True)

    return insert


def draw(rng, *shape):
    return paddle.to_tensor(rng.standard_normal(shape).astype(np.float32), stop_gradient=False)


def row_mask(kind, span=9):
    mask = np.ones([3, span], np.int64)
    if kind == "left":
        mask[0, :4], mask[2, :8] = 0, 0
    elif kind == "right":
        mask[0, 5:], mask[1, 1:] = 0, 0
    elif kind == "both":
        mask[0, :3], mask[0, 6:], mask[1, 4:] = 0, 0, 0
    elif kind == "holes":
        mask[1, 3:5] = 0
    elif kind == "an empty row":
        mask[1] = 0
    return mask


def values_and_gradients(attend, tensors, upstream):
    y = attend(*tensors)
    gradients = paddle.grad([(y * upstream).sum()], list(tensors))
    return [y.numpy(), *(one.numpy() for one in gradients)]


def assert_close(found, wanted):
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5, rtol=0)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["none", "left", "right", "both", "an empty row"])
def test_padded_batches_give_tokens_what_the_reference_gives(kernels, on_card, rng, size, kind):
    tensors = draw(rng, 3, 9, 4, size), draw(rng, 3, 9, 2, size), draw(rng, 3, 9, 2, size)
    is_token = row_mask(kind)
    # What padding gives is never asked for: no loss has labels there.
    upstream = draw(rng, 3, 9, 4, size).detach() * paddle.to_tensor(is_token, "float32").unsqueeze([2, 3])
    mask = None if kind == "none" else is_token
    wanted = values_and_gradients(lambda *x: attention_reference(*x, CausalMask(mask)), tensors, upstream)
    on_card()
    found = values_and_gradients(lambda *x: attention_reference(*x, CausalMask(mask)), tensors, upstream)
    assert kernels.asked == (["unpadded"] if kind in ("left", "both") else ["rows"])
    assert all(np.isfinite(one).all() for one in found)
    found[0], wanted[0] = (one[is_token == 1] for one in (found[0], wanted[0]))
    assert_close(found, wanted)


@pytest.mark.parametrize("size", SIZES)
def test_without_a_mask_every_query_sees_every_key(kernels, on_card, rng, size):
    # As in the resampler of Qwen-VL: more keys than queries.
    tensors = draw(rng, 2, 4, 6, size), draw(rng, 2, 16, 6, size), draw(rng, 2, 16, 6, size)
    upstream = draw(rng, 2, 4, 6, size).detach()
    wanted = values_and_gradients(attention_reference, tensors, upstream)
    on_card()
    assert_close(values_and_gradients(attention_reference, tensors, upstream), wanted)
    assert kernels.asked == ["rows"]


@pytest.mark.parametrize("size", SIZES)
def test_segments_and_packs_give_what_the_reference_gives(kernels, on_card, rng, size):
    tensors, upstream = [draw(rng, 9, 2, size) for _ in range(3)], draw(rng, 9, 2, size).detach()
    segments, pack = Segments([4, 2, 3]), CausalSegments(paddle.to_tensor([0, 4, 6, 9], dtype="int32"))

    def attend_in_pack(*x):
        return attention_reference(*(one.unsqueeze(0) for one in x), pack).squeeze(0)

    ways = (lambda *x: segment_attention_reference(*x, segments), attend_in_pack)
    wanted = [values_and_gradients(way, tensors, upstream) for way in ways]
    on_card()
    for way, one in zip(ways, wanted, strict=True):
        assert_close(values_and_gradients(way, tensors, upstream), one)
    assert kernels.asked == ["unpadded"] * 2


@pytest.mark.parametrize("kind", ["none", "left"])
def test_several_tokens_behind_a_cache_give_what_the_reference_gives(kernels, on_card, rng, kind):
    query, key, value = draw(rng, 3, 3, 4, 64), draw(rng, 3, 9, 2, 64), draw(rng, 3, 9, 2, 64)
    mask = None if kind == "none" else row_mask(kind)
    is_token = row_mask(kind)[:, -3:] == 1
    wanted = attention_reference(query, key, value, CausalMask(mask)).numpy()
    on_card()
    found = attention_reference(query, key, value, CausalMask(mask)).numpy()
    assert len(kernels.asked) == 1 and np.isfinite(found).all()
    assert_close([found[is_token]], [wanted[is_token]])


@pytest.mark.parametrize("way", ["holes", "numbers"])
def test_what_the_kernel_cannot_compute_keeps_its_scores(kernels, on_card, rng, way):
    tensors = [draw(rng, 3, 9, 2, 64) for _ in range(3)]
    mask = CausalMask(row_mask("holes")) if way == "holes" else CausalMask().dense(9, 9)
    wanted = attention_reference(*tensors, mask).numpy()
    on_card()
    np.testing.assert_array_equal(attention_reference(*tensors, mask).numpy(), wanted)
    assert kernels.asked == []


def test_what_padding_holds_reaches_no_token(kernels, on_card, rng):
    tensors = [draw(rng, 3, 9, 2, 64).detach() for _ in range(3)]
    on_card()
    for kind in ("left", "right", "both"):
        is_token = row_mask(kind)
        before = attention_reference(*tensors, CausalMask(is_token)).numpy()[is_token == 1]
        other = [paddle.where(paddle.to_tensor(is_token == 1).unsqueeze([2, 3]), x, x + 1e4) for x in tensors]
        after = attention_reference(*other, CausalMask(is_token)).numpy()[is_token == 1]
        np.testing.assert_array_equal(after, before)


def test_paddles_function_alone_might_compute_with_products(monkeypatch):
    """What the routes guard against: a build whose flag does not say that it has the kernel."""
    monkeypatch.setitem(sdpa._backend_enabled, sdpa.SDPBackend.FLASH_ATTENTION, False)
    monkeypatch.setitem(sdpa._backend_enabled, sdpa.SDPBackend.EFFICIENT_ATTENTION, False)
    assert _select_sdp(128) == "math"
    with sdpa.sdpa_kernel(sdpa.SDPBackend.FLASH_ATTENTION):
        assert _select_sdp(128) == "flash_attn"
    assert _select_sdp(128) == "math"


class OnCard:
    """A tensor's place."""

    def is_gpu_place(self):
        return True


class Query:
    place = OnCard()

    def __init__(self, dtype, shape):
        self.dtype, self.shape = dtype, shape


def test_half_precision_of_sizes_that_the_kernel_knows_takes_it(monkeypatch):
    monkeypatch.setattr(flash, "_card_takes_it", lambda: True)
    for size in (*SIZES, 8, 256):
        assert flash.flash_attention_fits(Query(paddle.bfloat16, [1, 5, 2, size])), size
    for dtype, size in ((paddle.float32, 64), (paddle.bfloat16, 257), (paddle.float16, 84)):
        assert not flash.flash_attention_fits(Query(dtype, [1, 5, 2, size])), (dtype, size)
    assert not flash.flash_attention_fits(paddle.zeros([1, 5, 2, 64], dtype="bfloat16"))


def test_one_token_without_gradients_is_attended_to_a_cache_on_a_card(monkeypatch):
    monkeypatch.setattr(flash, "_card_takes_it", lambda: True)
    one, two = Query(paddle.bfloat16, [2, 1, 4, 64]), Query(paddle.bfloat16, [2, 2, 4, 64])
    assert not has_cached_attention(one)
    with paddle.no_grad():
        assert has_cached_attention(one) and not has_cached_attention(two)
        assert not has_cached_attention(paddle.zeros([2, 1, 4, 64]))
        # Float32 takes the built op alone, and not under autocast, which copies what would be written to.
        wide, asked = Query(paddle.float32, [2, 1, 4, 64]), []
        monkeypatch.setattr(built, "takes", lambda query, *, on_cuda: asked.append(on_cuda) or True)
        assert has_cached_attention(wide) and asked == [True]
        monkeypatch.setattr(paddle, "is_autocast_enabled", lambda: True)
        assert not has_cached_attention(wide) and has_cached_attention(one)


def cache_of(rng, batch=3, spare=0, capacity=12, length=8, size=64):
    """New tokens and a cache whose room holds no numbers."""
    query, key, value = (draw(rng, batch, 1, heads, size).detach() for heads in (4, 2, 2))
    held = [np.full([batch + spare, capacity, 2, size], np.nan, np.float32) for _ in range(2)]
    for one in held:
        one[:, :length] = rng.standard_normal([batch + spare, length, 2, size])
    return query, key, value, *map(paddle.to_tensor, held), length


@pytest.mark.parametrize("spare", [0, 2])
@pytest.mark.parametrize("kind", ["none", "left"])
def test_without_built_ops_a_token_reads_the_cache_by_the_kernel_where_it_lies(kernels, on_card, rng, kind, spare):
    query, key, value, keys, values, length = cache_of(rng, spare=spare)
    mask = None if kind == "none" else CausalMask(row_mask(kind))
    copies = keys.clone(), values.clone()
    wanted = cached_attention_reference(query, key, value, *copies, length, mask)
    on_card()
    addresses = keys.data_ptr(), values.data_ptr()
    found = cached_attention(query, key, value, keys, values, length, mask)
    assert kernels.asked == ["unpadded"] and (keys.data_ptr(), values.data_ptr()) == addresses
    assert_close([found.numpy()], [wanted.numpy()])
    np.testing.assert_array_equal(keys[:, : length + 1].numpy(), copies[0][:, : length + 1].numpy())
    np.testing.assert_array_equal(values[:, : length + 1].numpy(), copies[1][:, : length + 1].numpy())


def test_a_token_behind_padding_among_tokens_gives_what_the_reference_gives(kernels, on_card, rng):
    given = cache_of(rng)
    wanted = cached_attention_reference(*(x.clone() for x in given[:5]), given[5], CausalMask(row_mask("holes")))
    on_card()
    found = cached_attention(*given, CausalMask(row_mask("holes")))
    assert kernels.asked == []
    assert_close([found.numpy()], [wanted.numpy()])


def test_rows_are_read_through_a_table_by_the_reference_too(rng):
    query, key, value, keys, values, length = cache_of(rng, spare=1)
    rows = rng.integers(0, 4, [3, 12])
    picked = [paddle.to_tensor(x.numpy()[rows, np.arange(12)]) for x in (keys, values)]
    wanted = cached_attention_reference(query, key, value, *picked, length)
    table = paddle.to_tensor(rows.astype(np.int32))
    found = cached_attention(query, key, value, keys, values, length, None, table)
    assert_close([found.numpy()], [wanted.numpy()])
    mask = CausalMask(row_mask("holes"))
    found = cached_attention(query, key, value, keys, values, length, mask, table)
    assert_close([found.numpy()], [cached_attention_reference(query, key, value, *picked, length, mask).numpy()])


def test_a_cache_that_does_not_fit_is_refused(rng):
    query, key, value, keys, values, _ = cache_of(rng)
    for change, words in (
        ({"length": 12}, "has room for 12 tokens"),
        ({"keys": keys[:, :9], "values": values[:, :9]}, "does not lie in one piece"),
        ({"query": query[:, :, :3]}, "no multiple of the 2"),
        ({"keys": keys[:2]}, "3 or more"),
        ({"mask": CausalMask(row_mask("left", 5))}, "`mask` has shape"),
    ):
        given = {"query": query, "key": key, "value": value, "keys": keys, "values": values, "length": 8, **change}
        with pytest.raises(ValueError, match=words):
            cached_attention(**given)


def test_padding_is_read_from_a_mask():
    assert Padding.of(row_mask("left")) == Padding((4, 0, 8), (9, 9, 9), 9)
    assert Padding.of(row_mask("right")).is_behind and not Padding.of(row_mask("right")).is_before
    assert Padding.of(row_mask("an empty row")).lengths == [9, 9, 9]
    assert Padding.of(row_mask("both")).cu_seqlens.tolist() == [0, 3, 6, 9, 13, 18, 27]
    assert Padding.of(row_mask("holes")) is None
    assert Padding.of(np.zeros([2, 0], bool)) == Padding((0, 0), (0, 0), 0)


def test_a_mask_on_the_cpu_or_the_host_stays_where_it_is():
    tensor, array = paddle.ones([2, 3], dtype="int64"), np.ones([2, 3])
    assert known_mask(tensor) is tensor and known_mask(array) is array and known_mask(None) is None


@pytest.mark.parametrize("kind", ["left", "right", "both", "holes"])
def test_an_array_masks_as_a_tensor_does(kind):
    array, tensor = CausalMask(row_mask(kind)), CausalMask(paddle.to_tensor(row_mask(kind)))
    np.testing.assert_array_equal(array.visible.numpy(), tensor.visible.numpy())
    np.testing.assert_array_equal(array.dense(3, 9).numpy(), tensor.dense(3, 9).numpy())
    assert array.padding == tensor.padding and array.shape == tensor.shape == [3, 9]
