"""Noticing that another rank has died, on whatever machine: then this one ends too, with a sentence that names it.

Every rank keeps a connection to the first one. The system closes it when a process ends, however that comes about, and
finds out in half a minute about a machine that has gone silent. Collectives wait longer (NCCL's for half an hour), and
so may a rank that waits for files of others; Paddle's launcher watches its own machine alone.

A process that is stopped (SIGSTOP, a debugger, a frozen container) keeps its connections. So ranks say every few
seconds that they are there. One that does not is named, but ends nobody by that: a long call that holds Python's lock
is silent too. Where a collective gives up meanwhile, that is the rank it has waited for.
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

from paddlemix.distributed.launcher import abort_late, aborting, end_with_launcher, first_host, log_file
from paddlemix.distributed.ranks import gather_texts

# Seconds for all ranks to start, once the store has seen each of them, and then to connect with the first.
_START, _CONNECT = 300, 60
# Bytes of every message: a rank that is lost, or that the sender leaves.
_MESSAGE = 8
_LEAVING, _HERE = "parted", "here"
# In front of a rank that the first one, which alone hears of all, does not hear of any more, or hears of again.
_SILENT, _HEARD = "?", "!"
# Seconds between two words of a rank that it is there, and without one after which it is named.
_BEAT, _SILENCE = 5.0, 20.0
# Linux: seconds of silence before the first probe, seconds between probes, and how many may go unanswered.
_PROBES = (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3))
# Seconds in which an error of this rank's own, told to all, ends it before it speaks of another rank that has ended.
_OWN_ERROR_FIRST = 0.5
# Seconds that follow: the launcher looks every second, and names the first failed process that it finds.
_LAUNCHER_FIRST = 5
# Seconds between two looks at whether this process is about to abort.
_LOOK = 1.0
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
        self._heard = dict.fromkeys(connections, time.monotonic())
        self._silent: set[int] = set()
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
        """Return where no other rank is lost or silent, else never: the process ends."""
        if self._has_lost.wait(timeout=_LAUNCHER_FIRST):
            self._thread.join()
        self._end_if_one_is_silent()

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
            next_beat = time.monotonic() + _BEAT
            while len(self._left) < len(self._connections):
                for key, _ in selector.select(timeout=_LOOK):
                    lost = self._receive(key.data)
                    if lost is not None:
                        self._lose(lost)
                        return
                    if key.data in self._left:
                        selector.unregister(key.fileobj)
                if aborting.is_set():
                    self._end_if_one_is_silent()
                if time.monotonic() >= next_beat:
                    self._send_to_all(_HERE)
                    self._name_the_silent(late=time.monotonic() - next_beat)
                    next_beat = time.monotonic() + _BEAT

    def _receive(self, rank: int) -> int | None:
        """Read a rank's message, and return which rank is lost; None where none is."""
        try:
            message = self._connections[rank].recv(_MESSAGE, socket.MSG_WAITALL).decode().strip()
        except OSError:
            message = ""
        self._heard[rank] = time.monotonic()
        if rank in self._silent and message:
            self._note_heard(rank)
            self._send_to_all(f"{_HEARD}{rank}")
        if message == _HERE:
            return None
        if message.startswith((_SILENT, _HEARD)):
            note = self._note_silent if message.startswith(_SILENT) else self._note_heard
            note(int(message[1:]))
            return None
        if message != _LEAVING:
            return int(message) if message else rank
        self._left.add(rank)
        return None

    def _name_the_silent(self, late: float) -> None:
        """Look for ranks that have not been heard of; not where this one was stopped itself, and so heard nobody."""
        if late > _BEAT:
            self._heard = dict.fromkeys(self._heard, time.monotonic())
        for rank, heard in self._heard.items():
            is_silent = time.monotonic() - heard > _SILENCE and rank not in self._left
            if is_silent and rank not in self._silent:
                self._note_silent(rank)
                self._send_to_all(f"{_SILENT}{rank}", but=rank)

    def _note_silent(self, rank: int) -> None:
        self._silent.add(rank)
        logger.warning(
            "%s has not answered for %.0f s: it is stopped (SIGSTOP, a debugger, a frozen container), or in one call "
            "that takes long. The others wait for it as long as their collectives do.",
            self._names[rank],
            _SILENCE,
        )

    def _note_heard(self, rank: int) -> None:
        self._silent.discard(rank)
        logger.warning("%s answers again.", self._names[rank])

    def _end_if_one_is_silent(self) -> None:
        """End the process where a collective has given up and a rank is silent; that one is why."""
        if not self._silent or self.is_ending:
            return
        logger.error(
            "%s does not answer, and a collective has given up waiting for it. Let it go on (SIGCONT) or end it, then "
            "start again with `resume_from_checkpoint` set to true.",
            self._names[min(self._silent)],
        )
        sys.stdout.flush()
        os._exit(1)

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

    def _send_to_all(self, message: str, *, but: int | None = None) -> None:
        for rank, connection in self._connections.items():
            if rank == but:
                continue
            with suppress(OSError):  # it is gone itself, or stopped for so long that no more words have room
                connection.send(message.ljust(_MESSAGE).encode(), socket.MSG_DONTWAIT)

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
