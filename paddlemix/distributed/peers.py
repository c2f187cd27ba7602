"""Noticing that another rank has died, on whatever machine: then this one ends too, with a sentence that names it.

Every rank keeps a connection to the first one. The system closes it when a process ends, however that comes about, and
finds out in half a minute about a machine that has gone silent. Collectives wait longer (NCCL's for half an hour), and
so may a rank that waits for files of others; Paddle's launcher watches its own machine alone.
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
from paddlemix.distributed.ranks import gather_texts

# Seconds for all ranks to start, once the store has seen each of them, and then to connect with the first.
_START, _CONNECT = 300, 60
# Bytes of every message: a rank that is lost, or that the sender leaves.
_MESSAGE = 8
_LEAVING = "parted"
# Linux: seconds of silence before the first probe, seconds between probes, and how many may go unanswered.
_PROBES = (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3))
# Seconds in which an error of this rank's own, told to all, ends it before it speaks of another rank that has ended.
_OWN_ERROR_FIRST = 0.5
# Seconds that follow: the launcher looks every second, and names the first failed process that it finds.
_LAUNCHER_FIRST = 5
# Seconds for the others to come to their end, once this rank has: the first one keeps the store that they share.
_LEAVE = 60

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
    peers = Peers.connect()
    try:
        yield
    except SystemExit:
        peers.leave()
        raise
    except RuntimeError:
        peers.end_if_one_is_lost()  # which is what a collective's error mostly means
        peers.is_ending = True
        raise
    except BaseException:
        peers.is_ending = True
        raise
    peers.leave()


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
        self._left: set[int] = set()
        self._has_lost = threading.Event()
        for connection in connections.values():
            _probe(connection)
        # A forked worker must not keep open what this process's death should close.
        os.register_at_fork(after_in_child=self._close)
        self._thread = threading.Thread(target=self._listen, name="peers", daemon=True)
        self._thread.start()

    @classmethod
    def connect(cls) -> Peers:
        """Connect all ranks.

        Returns:
            The others.

        Raises:
            OSError: a rank cannot be reached.
        """
        rank, world = paddle.distributed.get_rank(), paddle.distributed.get_world_size()
        own = {"host": socket.gethostname(), "process": os.getpid(), "log": str(log_file(os.environ) or "")}
        if rank > 0:
            ranks = [json.loads(text) for text in gather_texts(json.dumps(own), patience=_START)]
            return cls({0: _connect_to_first(ranks[0]["port"], ranks[0]["secret"], rank)}, _names(ranks))
        with socket.create_server(("", 0), backlog=world) as server:
            secret = secrets.token_hex(16)
            own |= {"port": server.getsockname()[1], "secret": secret}
            ranks = [json.loads(text) for text in gather_texts(json.dumps(own), patience=_START)]
            return cls(_accept_ranks(server, secret, world), _names(ranks))

    def end_if_one_is_lost(self) -> None:
        """Return where no other rank is lost, else never: the process ends."""
        if self._has_lost.wait(timeout=_LAUNCHER_FIRST):
            self._thread.join()

    def leave(self) -> None:
        """Tell the others that this rank has done its work; the first one waits until all have."""
        self.is_ending = True
        self._send_to_all(_LEAVING)
        if paddle.distributed.get_rank() == 0:
            self._thread.join(timeout=_LEAVE)

    def _listen(self) -> None:
        with selectors.DefaultSelector() as selector:
            for rank, connection in self._connections.items():
                selector.register(connection, selectors.EVENT_READ, rank)
            while len(self._left) < len(self._connections):
                for key, _ in selector.select():
                    lost = self._receive(key.data)
                    if lost is not None:
                        self._lose(lost)
                        return
                    if key.data in self._left:
                        selector.unregister(key.fileobj)

    def _receive(self, rank: int) -> int | None:
        """Read a rank's message, and return which rank is lost; None where that one has left."""
        try:
            message = self._connections[rank].recv(_MESSAGE, socket.MSG_WAITALL).decode().strip()
        except OSError:
            message = ""
        if message != _LEAVING:
            return int(message) if message else rank
        self._left.add(rank)
        return None

    def _lose(self, rank: int) -> None:
        """End the process, unless it does so by itself."""
        self._has_lost.set()
        self._send_to_all(str(rank))
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

    def _send_to_all(self, message: str) -> None:
        for connection in self._connections.values():
            with suppress(OSError):  # it is gone itself
                connection.sendall(message.ljust(_MESSAGE).encode())

    def _close(self) -> None:
        for connection in self._connections.values():
            connection.close()


def _names(ranks: list[dict[str, str]]) -> list[str]:
    return [
        f"rank {rank} of {len(ranks)} (host {one['host']}, process {one['process']}, log {one['log'] or 'unknown'})"
        for rank, one in enumerate(ranks)
    ]


def _connect_to_first(port: int, secret: str, rank: int) -> socket.socket:
    connection = socket.create_connection((first_host(os.environ), port), timeout=_CONNECT)
    connection.sendall(f"{secret}{rank:{_MESSAGE}d}".encode())
    return connection


def _accept_ranks(server: socket.socket, secret: str, world: int) -> dict[int, socket.socket]:
    """Wait until all other ranks have connected with this one, the first; who does not know the secret is refused."""
    server.settimeout(_CONNECT)
    connections: dict[int, socket.socket] = {}
    while len(connections) < world - 1:
        try:
            connection, _ = server.accept()
        except TimeoutError:
            missing = sorted(set(range(1, world)) - set(connections))
            raise OSError(f"ranks {missing} have not connected to rank 0 in {_CONNECT} s.") from None
        rank = _identify(connection, secret)
        if rank is None:
            connection.close()
        else:
            connections[rank] = connection
    return connections


def _identify(connection: socket.socket, secret: str) -> int | None:
    """Return which rank has connected; None where it is none of ours."""
    connection.settimeout(_CONNECT / 10)
    try:
        greeting = connection.recv(len(secret) + _MESSAGE)
    except OSError:
        return None
    is_ours = secrets.compare_digest(greeting[: len(secret)], secret.encode())
    return int(greeting[len(secret) :]) if is_ours else None


def _probe(connection: socket.socket) -> None:
    """Let the system find out about a machine that is gone without closing its connections."""
    connection.settimeout(None)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _PROBES:
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
