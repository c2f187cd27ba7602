from __future__ import annotations

import numpy as np
import paddle

from paddlemix.generation.cache import KVCache


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
