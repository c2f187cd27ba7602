from __future__ import annotations

import numpy as np
import paddle

from paddlemix.generation import cache as cache_module
from paddlemix.generation.cache import KVCache, KVCaches


def test_it_gives_back_all_keys_and_values_in_the_order_in_which_they_came():
    rng = np.random.default_rng(0)
    keys, values = rng.standard_normal((2, 2, 6, 3, 4)).astype(np.float32)
    cache = KVCache(7)
    for start, stop in ((0, 4), (4, 5), (5, 6)):
        found = cache.extend(paddle.to_tensor(keys[:, start:stop]), paddle.to_tensor(values[:, start:stop]))
        assert cache.length == stop
        np.testing.assert_array_equal(found[0].numpy(), keys[:, :stop])
        np.testing.assert_array_equal(found[1].numpy(), values[:, :stop])


def test_rows_are_kept_in_the_order_asked_for_and_may_be_kept_twice():
    cache = KVCache(3)
    rows = paddle.arange(3, dtype="float32").reshape([3, 1, 1, 1])
    cache.extend(rows, rows + 10)
    cache.keep(paddle.to_tensor([2, 0, 2, 2]))
    key, value = cache.extend(paddle.ones([4, 1, 1, 1]), paddle.ones([4, 1, 1, 1]))
    assert key.squeeze([2, 3]).tolist() == [[2, 1], [0, 1], [2, 1], [2, 1]]
    assert value[:, 0].flatten().tolist() == [12, 10, 12, 12]
    assert (cache.length, cache.prefilled) == (2, 1)


def test_whoever_writes_tokens_itself_is_given_the_memory_behind_the_others():
    cache = KVCache(3)
    cache.extend(paddle.zeros([1, 1, 1, 2]), paddle.zeros([1, 1, 1, 2]))
    key, value = cache.open(1)
    assert key.shape == value.shape == [1, 3, 1, 2] and cache.length == 2
    key[:, 1], value[:, 1] = 5.0, 7.0
    found = cache.extend(paddle.ones([1, 1, 1, 2]), paddle.ones([1, 1, 1, 2]))
    assert [one[0, :, 0, 0].tolist() for one in found] == [[0, 5, 1], [0, 7, 1]]


def test_caches_go_on_with_other_rows_through_one_table_and_copy_nothing(monkeypatch):
    monkeypatch.setattr(cache_module, "takes_row_table", lambda key: True)
    caches, rng = KVCaches(2, 6), np.random.default_rng(1)
    prompts = rng.standard_normal((2, 3, 1, 1)).astype(np.float32)
    for cache in caches:
        cache.extend(paddle.to_tensor(prompts), paddle.to_tensor(-prompts))
    rows = [list(row.ravel()) for row in prompts]

    def write(tokens):
        for cache in caches:
            length = cache.length
            keys, values = cache.open(1)
            for row, token in enumerate(tokens):
                keys[row, length], values[row, length] = float(token), -float(token)

    for kept, tokens in (([0, 0, 1, 1], [1, 2, 3, 4]), ([3, 1, 0, 1], [5, 6, 7, 8]), ([2, 3], [9, 10])):
        addresses = [cache.open(0)[0].data_ptr() for cache in caches]
        caches.keep(paddle.to_tensor(kept))
        if len(kept) == 4 and tokens[0] == 5:
            assert addresses == [cache.open(0)[0].data_ptr() for cache in caches]
        write(tokens)
        rows = [[*rows[row], token] for row, token in zip(kept, tokens, strict=True)]
    for cache in caches:
        places = cache.rows[:, :6].numpy().copy()
        places[:, 5] = [0, 1]
        for held, sign in zip(cache.open(0), (1, -1), strict=True):
            found = held.numpy()[places, np.arange(6), 0, 0]
            np.testing.assert_array_equal(found, sign * np.array(rows, np.float32))
    assert caches[0].rows is caches[1].rows


def test_the_first_keys_are_given_back_as_they_came():
    cache, key = KVCache(9), paddle.ones([2, 3, 1, 4])
    found, _ = cache.extend(key, key)
    assert found is key and cache.open(0)[0].shape == [2, 9, 1, 4]
