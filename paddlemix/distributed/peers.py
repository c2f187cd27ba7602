"""Noticing that another rank has died, on whatever machine: then this one ends too, with a sentence that names it.

Every rank keeps a connection to the first one. The system closes it when a process ends, however that comes about, and
finds out in half a minute about a machine that has gone silent. Collectives wait longer (NCCL's for half an hour), and
so may a rank that others have to write files for; Paddle's launcher watches its own machine alone.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import selectors
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import paddle

from paddlemix.distributed.launcher import abort_late, end_with_launcher, first_host, log_file
from paddlemix.distributed.ranks import share

# Seconds for all ranks to come, once the store has seen each of them, and then to connect with the first.
_COME, _CONNECT = 300, 60
# Bytes of all that is ever said.
_WORD = 8
# Linux: seconds of silence before the first probe, seconds between probes, and how many may go unanswered.
_PROBES = (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3))
# Seconds in which an error of this rank's own, told to all, ends it before it speaks of another rank that has ended.
_OWN_ERROR_FIRST = 0.5
# Seconds that follow: the launcher looks every second, and names the first failed process that it finds.
_LAUNCHER_FIRST = 5
# Seconds for the others to come to their end, once this rank has: the first one keeps the store that they share.
_PARTING = 60
_FAREWELL = "parted"

logger = logging.getLogger(__name__)


@contextmanager
def watching_peers() -> Iterator[None]:
    """End this process where the launcher or another rank dies while the block runs.

    Yields:
        Nothing, once all ranks are there. A single process just runs the block.
    """
    end_with_launcher()
    if paddle.distributed.get_world_size() <= 1:
        yield
        return
    abort_late()
    peers = Peers.meet()
    try:
        yield
    except SystemExit:
        peers.part()
        raise
    except RuntimeError:
        peers.end_if_one_is_lost()  # which is what a collective's error mostly means
        peers.is_ending = True
        raise
    except BaseException:
        peers.is_ending = True
        raise
    peers.part()


class Peers:
    """The other ranks, as far as this one is connected with them: the first with all, the others with the first.

    Args:
        connections: by rank.
        names: what to call each rank.

    Attributes:
        is_ending: whether this rank ends for a reason of its own, and need not be ended.
    """

    is_ending: bool

    def __init__(self, connections: dict[int, socket.socket], names: list[str]) -> None:
        self.is_ending = False
        self._connections = connections
        self._names = names
        self._parted: set[int] = set()
        self._has_lost = threading.Event()
        for connection in connections.values():
            _probe(connection)
        # A forked worker must not keep open what this process's death should close.
        os.register_at_fork(after_in_child=self._close)
        self._thread = threading.Thread(target=self._listen, name="peers", daemon=True)
        self._thread.start()

    @classmethod
    def meet(cls) -> Peers:
        """Connect all ranks.

        Returns:
            The others.

        Raises:
            OSError: a rank cannot be reached.
        """
        rank, world = paddle.distributed.get_rank(), paddle.distributed.get_world_size()
        about = {"host": socket.gethostname(), "process": os.getpid(), "log": str(log_file(os.environ) or "")}
        if rank > 0:
            told = [json.loads(text) for text in share(json.dumps(about), patience=_COME)]
            return cls({0: _knock(told[0]["port"], told[0]["word"], rank)}, _names(told))
        with socket.create_server(("", 0), backlog=world) as door:
            word = secrets.token_hex(16)
            about |= {"port": door.getsockname()[1], "word": word}
            told = [json.loads(text) for text in share(json.dumps(about), patience=_COME)]
            return cls(_let_in(door, word, world), _names(told))

    def end_if_one_is_lost(self) -> None:
        """Return where no other rank is lost, else never: the process ends."""
        if self._has_lost.wait(timeout=_LAUNCHER_FIRST):
            self._thread.join()

    def part(self) -> None:
        """Tell the others that this rank has done its work; the first one waits until all have."""
        self.is_ending = True
        self._tell_all(_FAREWELL)
        if paddle.distributed.get_rank() == 0:
            self._thread.join(timeout=_PARTING)

    def _listen(self) -> None:
        with selectors.DefaultSelector() as selector:
            for rank, connection in self._connections.items():
                selector.register(connection, selectors.EVENT_READ, rank)
            while len(self._parted) < len(self._connections):
                for key, _ in selector.select():
                    lost = self._hear(key.data)
                    if lost is not None:
                        self._lose(lost)
                        return
                    if key.data in self._parted:
                        selector.unregister(key.fileobj)

    def _hear(self, rank: int) -> int | None:
        """What a rank tells: nothing more than that it parts, or which rank is lost."""
        try:
            word = self._connections[rank].recv(_WORD, socket.MSG_WAITALL).decode().strip()
        except OSError:
            word = ""
        if word != _FAREWELL:
            return int(word) if word else rank
        self._parted.add(rank)
        return None

    def _lose(self, rank: int) -> None:
        """End the process, unless it does so by itself."""
        self._has_lost.set()
        self._tell_all(str(rank))
        time.sleep(_OWN_ERROR_FIRST)
        if self.is_ending:
            return
        logger.error(
            "%s is gone, and no rank can go on without it. Look at the end of its log: where that gives no reason the "
            "process was killed, as the system does where memory runs out. Then start again with "
            "`resume_from_checkpoint` set to true.",
            self._names[rank],
        )
        time.sleep(_LAUNCHER_FIRST)
        if self.is_ending:
            return
        sys.stdout.flush()
        os._exit(1)

    def _tell_all(self, word: str) -> None:
        for connection in self._connections.values():
            with suppress(OSError):  # it is gone itself
                connection.sendall(word.ljust(_WORD).encode())

    def _close(self) -> None:
        for connection in self._connections.values():
            connection.close()


def _names(told: list[dict[str, str]]) -> list[str]:
    return [
        f"rank {rank} of {len(told)} (host {one['host']}, process {one['process']}, log {one['log'] or 'unknown'})"
        for rank, one in enumerate(told)
    ]


def _knock(port: int, word: str, rank: int) -> socket.socket:
    """Connect with the first rank."""
    connection = socket.create_connection((first_host(os.environ), port), timeout=_CONNECT)
    connection.sendall(f"{word}{rank:{_WORD}d}".encode())
    return connection


def _let_in(door: socket.socket, word: str, world: int) -> dict[int, socket.socket]:
    """Connect with the other ranks."""
    door.settimeout(_CONNECT)
    connections: dict[int, socket.socket] = {}
    while len(connections) < world - 1:
        try:
            connection, _ = door.accept()
        except TimeoutError:
            missing = sorted(set(range(1, world)) - set(connections))
            raise OSError(f"ranks {missing} have not connected to rank 0 in {_CONNECT} s.") from None
        rank = _identify(connection, word)
        if rank is None:
            connection.close()
        else:
            connections[rank] = connection
    return connections


def _identify(connection: socket.socket, word: str) -> int | None:
    """Which rank has connected; None for a stranger."""
    connection.settimeout(_CONNECT / 10)
    try:
        said = connection.recv(len(word) + _WORD)
    except OSError:
        return None
    known = secrets.compare_digest(said[: len(word)], word.encode())
    return int(said[len(word) :]) if known else None


def _probe(connection: socket.socket) -> None:
    """Let the system find out about a machine that is gone without a word."""
    connection.settimeout(None)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _PROBES:
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
