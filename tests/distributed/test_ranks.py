"""How ranks agree, with a store that is a dictionary; tests/distributed does it with real ones."""

from __future__ import annotations

from collections import defaultdict
from threading import Thread

import paddle
import pytest

from paddlemix.distributed import ranks
from paddlemix.distributed.ranks import from_first, gather_texts, only_first, wait_for_all


class Store:
    """Paddle's, as far as it is used; in the place of another rank, `other` says the same things at the same time."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.counts: dict[str, int] = defaultdict(int)

    def set(self, key: str, value: bytes) -> None:
        self.values[key] = value

    def get(self, key: str) -> bytes:
        return self.values[key]

    def add(self, key: str, more: int) -> int:
        self.counts[key] += more
        return self.counts[key]

    def has(self, number: int, rank: int, text: str) -> None:
        self.set(f"paddlemix/{number}/{rank}", text.encode())
        self.add(f"paddlemix/{number}/given", 1)
        self.add(f"paddlemix/{number}/read", 1)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    store = Store()
    monkeypatch.setattr(paddle.base.core, "create_or_get_global_tcp_store", lambda: store)
    monkeypatch.setattr(paddle.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(paddle.distributed, "get_rank", lambda: 0)
    monkeypatch.setattr(ranks, "_numbers", iter(range(9)))
    return store


def test_all_get_what_each_has_given(store: Store) -> None:
    store.has(0, 1, "two")
    assert gather_texts("one") == ["one", "two"]


def test_a_rank_that_comes_late_is_waited_for(store: Store) -> None:
    waiting = Thread(target=wait_for_all, daemon=True)
    waiting.start()
    waiting.join(0.2)
    assert waiting.is_alive()
    store.has(0, 1, "")
    waiting.join(5)
    assert not waiting.is_alive()


def test_the_first_rank_stays_until_the_others_have_read_it(store: Store) -> None:
    store.set("paddlemix/0/1", b"")
    store.add("paddlemix/0/given", 1)
    waiting = Thread(target=gather_texts, args=("",), daemon=True)
    waiting.start()
    waiting.join(0.2)
    assert waiting.is_alive()
    store.add("paddlemix/0/read", 1)
    waiting.join(5)
    assert not waiting.is_alive()


def test_a_rank_that_does_not_come_in_time_is_given_up(store: Store) -> None:
    with pytest.raises(OSError, match=r"^1 of 2 ranks have come in 0 s\. Look at the logs of the others"):
        gather_texts("", patience=0.01)


def test_ranks_that_never_start_are_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    def give_up() -> Store:
        raise SystemError("(Fatal) _timeout:900 elapsed:901")

    monkeypatch.setattr(paddle.base.core, "create_or_get_global_tcp_store", give_up)
    monkeypatch.setattr(paddle.distributed, "get_world_size", lambda: 2)
    with pytest.raises(OSError, match=r"^the ranks have not come together: .* _timeout:900 elapsed:901$"):
        gather_texts("")


def test_a_store_that_has_gone_is_no_mistake_of_the_user(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def reset(key: str, value: bytes) -> None:
        raise ValueError("(InvalidArgument) TCP receive error. Details: Connection reset by peer.")

    monkeypatch.setattr(store, "set", reset)
    with pytest.raises(RuntimeError, match="store that rank 0 keeps"):
        gather_texts("")


def test_what_the_first_rank_cannot_do_fails_in_the_others_with_the_same_words(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> str:
        raise OSError("no room")

    store.has(0, 1, "")
    with pytest.raises(OSError, match="^no room$"):
        only_first(refuse)
    monkeypatch.setattr(paddle.distributed, "get_rank", lambda: 1)
    store.has(1, 0, store.get("paddlemix/0/0").decode())
    with pytest.raises(ValueError, match="^no room$"):
        from_first(refuse)
