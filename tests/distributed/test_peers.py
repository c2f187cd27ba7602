"""How ranks connect with the first one, and what follows from their messages; test_lost_ranks.py kills real ones."""

from __future__ import annotations

import socket
import time
from threading import Thread

import pytest

from paddlemix.distributed import peers
from paddlemix.distributed.peers import Peers, watching_peers

SECRET = "0123456789abcdef"


def connect(port: int, greeting: bytes) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port))
    connection.sendall(greeting)
    return connection


def test_only_ranks_that_know_the_secret_are_accepted() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        callers = [
            connect(port, greeting) for greeting in (b"GET / HTTP/1.0\r\n\r\n", b"", SECRET.encode() + b"       2")
        ]
        callers[1].close()
        callers.append(connect(port, SECRET.encode() + b"       1"))
        accepted = peers._accept_ranks(server, SECRET, world=3)
    assert sorted(accepted) == [1, 2]
    assert [accepted[rank].getpeername() for rank in (2, 1)] == [callers[place].getsockname() for place in (2, 3)]


def test_ranks_that_do_not_connect_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "_CONNECT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        caller = connect(server.getsockname()[1], SECRET.encode() + b"       2")
        with pytest.raises(OSError, match=r"^ranks \[1, 3\] have not connected to rank 0"):
            peers._accept_ranks(server, SECRET, world=4)
        caller.close()


@pytest.fixture
def codes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """With which the process would have ended."""
    found: list[int] = []
    monkeypatch.setattr(peers.os, "_exit", found.append)
    monkeypatch.setattr(peers, "_OWN_ERROR_FIRST", 0.1)
    monkeypatch.setattr(peers, "_LAUNCHER_FIRST", 0.1)
    return found


def first_of_three() -> tuple[Peers, list[socket.socket]]:
    """The first rank, and what the other two have in hand."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        theirs = [connect(server.getsockname()[1], f"{SECRET}{rank:8d}".encode()) for rank in (1, 2)]
        return Peers(peers._accept_ranks(server, SECRET, world=3), ["first", "second", "third"]), theirs


def test_a_rank_that_is_gone_is_named_to_all_and_ends_them(codes: list[int], caplog: pytest.LogCaptureFixture) -> None:
    first, (second, third) = first_of_three()
    second.close()
    first._thread.join(5)
    assert third.recv(8) == b"1       " and codes == [1]
    assert [record.getMessage().split(",")[0] for record in caplog.records] == ["second is gone"]


def test_what_the_first_rank_has_heard_of_is_named_by_the_others(
    codes: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        theirs, _ = server.accept()
    second = Peers({0: ours}, ["first", "second", "third"])
    theirs.sendall(b"2       ")
    second._thread.join(5)
    assert codes == [1] and caplog.records[0].getMessage().startswith("third is gone")


def test_ranks_that_have_done_their_work_end_nobody(codes: list[int], caplog: pytest.LogCaptureFixture) -> None:
    first, others = first_of_three()
    for other in others:
        other.sendall(b"parted  ")
        other.close()
    first._thread.join(5)
    assert not first._thread.is_alive() and codes == [] and caplog.records == []


def test_the_first_rank_leaves_after_the_others(codes: list[int]) -> None:
    first, others = first_of_three()
    leaving = Thread(target=first.leave, daemon=True)
    leaving.start()
    leaving.join(0.2)
    assert leaving.is_alive() and [other.recv(8) for other in others] == [b"parted  "] * 2
    for other in others:
        other.sendall(b"parted  ")
    leaving.join(5)
    assert not leaving.is_alive() and codes == []


def test_a_rank_that_ends_for_a_reason_of_its_own_speaks_of_no_other(
    codes: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    first, (second, _) = first_of_three()
    first.is_ending = True
    second.close()
    first._thread.join(5)
    assert codes == [] and caplog.records == []


def test_a_rank_that_is_silent_is_named_to_all_ends_nobody_and_is_told_when_it_answers(
    codes: list[int], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, seconds in (("_BEAT", 0.05), ("_LOOK", 0.02), ("_SILENCE", 0.5)):
        monkeypatch.setattr(peers, name, seconds)
    first, (second, third) = first_of_three()
    heard: list[bytes] = []
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and b"!1      " not in heard:
        third.sendall(b"here    ")
        heard.append(third.recv(8))
        if b"?1      " in heard:
            second.sendall(b"here    ")
    assert heard[0] == b"here    " and heard.index(b"?1      ") < heard.index(b"!1      ") and codes == []
    told = [record.getMessage() for record in caplog.records]
    assert told[0].startswith("second has not answered for") and "SIGSTOP" in told[0]
    assert told[1] == "second answers again."
    first.is_ending = True
    second.close()


def test_where_a_collective_gives_up_the_silent_rank_is_why(
    codes: list[int], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        theirs, _ = server.accept()
    third = Peers({0: ours}, ["first", "second", "third"])
    third._end_if_one_is_silent()
    assert codes == []
    theirs.sendall(b"?1      ")
    while not third._silent:
        time.sleep(0.01)
    third._end_if_one_is_silent()
    assert codes == [1]
    assert caplog.records[-1].getMessage().startswith("second does not answer, and a collective has given up waiting")
    third.is_ending = True
    theirs.close()


def test_a_process_alone_watches_nobody() -> None:
    with pytest.raises(KeyError), watching_peers():
        raise KeyError
