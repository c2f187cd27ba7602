"""Batches prepared ahead by worker processes, in the order of the sampler, whatever their number."""

from __future__ import annotations

import atexit
import multiprocessing
import pickle
import queue
import signal
import socket
import struct
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from itertools import cycle, repeat
from typing import Any

import numpy as np
import paddle
from paddle.io import DataLoader

from paddlemix.conversation import RecordError
from paddlemix.datasets.loading.forking import ready_to_fork
from paddlemix.datasets.loading.shared_arrays import SharedArrays
from paddlemix.handover import Contents, Parcel, handed_over, is_on_card

# Batches that each worker is ahead, the one it works on included.
_AHEAD = 2

Collate = Callable[[list[Any]], dict[str, np.ndarray]]


class WorkerError(RuntimeError):
    """A worker process that failed or died; the message names the records it was on."""


class BatchError(ValueError):
    """Records that cannot be put together in a batch; the message names them."""


class BatchLoader(DataLoader):
    """Batches of a data set as inputs of a model, which are Paddle's tensors.

    Paddle's own loader ends an epoch early, with a line in the log, where a worker is killed, and does not say which
    record a worker failed on. On a card each batch is one copy that nobody waits for; where there are workers, the
    thread that receives brings it to where the card reads it by itself, ahead of its step.

    Args:
        dataset: `dataset[item]` prepares one item of what the sampler draws; `dataset.sources(item)` names its records.
        batch_sampler: yields lists of items.
        collate_fn: makes a batch of what was prepared.
        num_workers: processes; 0 prepares each batch when it is asked for.
    """

    def __init__(self, dataset: Any, batch_sampler: Any, collate_fn: Collate, num_workers: int = 0) -> None:
        super().__init__(dataset, batch_sampler=batch_sampler, collate_fn=collate_fn, num_workers=0)
        self._workers = num_workers
        self._skipped = 0

    def begin_at(self, step: int, batches: int) -> None:
        """Let the next epoch begin where an earlier run was; nothing of what lies before is drawn or read.

        Args:
            step: the optimizer step of the epoch to begin with.
            batches: how many batches lie before it; the trainer counts them off, and gets `None` for each.
        """
        self.batch_sampler.begin_at(step)
        self._skipped = batches

    def __iter__(self) -> Iterator[dict[str, Any] | None]:
        """Yield the batches of an epoch."""
        skipped, self._skipped = self._skipped, 0
        yield from repeat(None, skipped)
        batches = self._prepared_ahead() if self._workers else map(self._prepare, self.batch_sampler)
        for batch in batches:
            yield batch.unpacked() if isinstance(batch, Parcel) else handed_over(batch)

    def _prepare(self, items: list[Any]) -> dict[str, np.ndarray]:
        return _together(self.dataset, self.collate_fn, items, [self.dataset[item] for item in items])

    def _prepared_ahead(self) -> Iterator[dict[str, np.ndarray] | Parcel]:
        with closing(_Workers(self.dataset, self.collate_fn, self._workers)) as workers:
            yield from workers.map(self.batch_sampler)


class _Workers:
    """Forked processes, each with a socket: batches of items go out on it in turn, and come back in shared memory."""

    def __init__(self, dataset: Any, collate: Collate, count: int) -> None:
        self._dataset = dataset
        context = multiprocessing.get_context("fork")
        # How many items of its batch each worker is done with.
        self._done = context.RawArray("q", count)
        self._sockets: list[socket.socket] = []
        self._processes = []
        # One more than a worker is ahead: the last of its batches is in use.
        self._shared = [[SharedArrays() for _ in range(_AHEAD + 1)] for _ in range(count)]
        with ready_to_fork():
            for number in range(count):
                ours, theirs = socket.socketpair()
                held = theirs, [*self._sockets, ours]
                work = _Work(dataset, collate, self._done, number, self._shared[number])
                process = context.Process(target=work.run, args=held, daemon=True)
                process.start()
                theirs.close()  # with the worker's own end the last one is closed, which is how its death is seen
                self._sockets.append(ours)
                self._processes.append(process)
        self._closed = threading.Event()
        atexit.register(self.close)  # multiprocessing would send SIGTERM, and wait

    def map(self, batches: Any) -> Iterator[dict[str, np.ndarray] | Parcel]:
        """Prepare batches, in their order."""
        count, ahead = len(self._sockets), len(self._sockets) * _AHEAD
        source = enumerate(iter(batches))
        # A thread receives, so that a worker can go on while what it made is not asked for yet.
        under_way: queue.Queue[tuple[int, Any] | None] = queue.Queue()
        received: queue.Queue[Any] = queue.Queue()
        arguments = under_way, received, paddle.get_device()
        threading.Thread(target=self._receive, args=arguments, daemon=True).start()

        def send() -> bool:
            number, items = next(source, (None, None))
            if number is None:
                return False
            under_way.put((number % count, items))
            with suppress(OSError):  # of a dead worker: the receiver finds out, and knows what it was on
                _send_message(self._sockets[number % count], pickle.dumps(items))
            return True

        waiting = sum(send() for _ in range(ahead))
        while waiting:
            result = received.get()
            if isinstance(result, BaseException):
                raise result
            waiting += send() - 1
            yield result
        under_way.put(None)

    def _receive(self, under_way: queue.Queue[Any], received: queue.Queue[Any], device: str) -> None:
        taken = [0] * len(self._sockets)
        if is_on_card():
            paddle.set_device(device)  # a thread begins with the first card, and would claim memory of it
        while (sent := under_way.get()) is not None and not self._closed.is_set():
            worker, items = sent
            try:
                reply = pickle.loads(_receive_message(self._sockets[worker]))
            except (EOFError, OSError):
                if not self._closed.is_set():  # else `close` has ended the worker, and must be alone to wait for it
                    received.put(self._death(worker, items))
                return
            slot = self._shared[worker][taken[worker] % len(self._shared[worker])]
            taken[worker] += 1
            received.put(reply if isinstance(reply, BaseException) else _delivered(slot, reply))

    def _death(self, worker: int, items: list[Any]) -> WorkerError:
        self._processes[worker].join(timeout=5)
        code = self._processes[worker].exitcode
        how = f"was killed by {signal.Signals(-code).name}" if code and code < 0 else f"ended with {code}"
        place = self._done[worker]
        at = _names(self._dataset, items[place]) if place < len(items) else "putting a batch together"
        return WorkerError(
            f"a worker that prepares records {how}; it was on {at}. SIGKILL mostly means that memory ran out: lower "
            "`dataloader_num_workers`."
        )

    def close(self) -> None:
        """End the workers, whatever they are at."""
        atexit.unregister(self.close)
        self._closed.set()
        for process in self._processes:
            process.kill()
        for ours in self._sockets:
            with suppress(OSError):
                ours.shutdown(socket.SHUT_RDWR)
            ours.close()
        for process in self._processes:
            process.join()


class _Work:
    """What a worker does until its socket is closed.

    Args:
        dataset: prepares items.
        collate: makes a batch of them.
        done: int64[workers], where each notes how many items of its batch it is done with.
        number: this worker's.
        shared: where its batches go, in turn.
    """

    def __init__(self, dataset: Any, collate: Collate, done: Any, number: int, shared: list[SharedArrays]) -> None:
        self._dataset, self._collate = dataset, collate
        self._done, self._number = done, number
        self._shared = cycle(shared)

    def run(self, theirs: socket.socket, others: list[socket.socket]) -> None:
        """Answer every list of items with a batch.

        Args:
            theirs: the end of the socket on which they come.
            others: that this process has inherited, and closes.
        """
        for other in others:
            other.close()
        # What is done on these is the parent's alone; who stops a run sends them to all of its processes.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        with suppress(EOFError, OSError):
            while True:
                items = pickle.loads(_receive_message(theirs))
                _send_message(theirs, pickle.dumps(self._answer(items, next(self._shared))))

    def _answer(self, items: list[Any], slot: SharedArrays) -> Contents | Exception:
        """Prepare a batch in the slot, and return what lies there now, or why there is no batch."""
        samples: list[Any] = []
        self._done[self._number] = 0
        try:
            for item in items:
                samples.append(self._dataset[item])
                self._done[self._number] += 1
            return slot.write(_together(self._dataset, self._collate, items, samples))
        except (RecordError, BatchError) as error:
            return error
        except Exception:
            at = _names(self._dataset, items[len(samples)]) if len(samples) < len(items) else "putting a batch together"
            return WorkerError(f"a worker that prepares records failed on {at}:\n{traceback.format_exc()}")


def _together(dataset: Any, collate: Collate, items: list[Any], samples: list[Any]) -> dict[str, np.ndarray]:
    """Make a batch of what was prepared of each item; what is wrong with it is said of all of its records."""
    try:
        return collate(samples)
    except ValueError as error:
        names = ", ".join(_names(dataset, item) for item in items)
        raise BatchError(f"the batch of {names}: {error}") from error


def _names(dataset: Any, item: Any) -> str:
    return " and ".join(map(str, dataset.sources(item)))


def _delivered(slot: SharedArrays, contents: Contents) -> dict[str, np.ndarray] | Parcel | Exception:
    """Take a worker's batch out of its slot; on a card it is brought to where that reads it by itself."""
    try:
        return slot.parcel(contents) if is_on_card() else slot.read(contents)
    except Exception as error:  # the thread that asks for batches raises it
        return error


def _send_message(to: socket.socket, message: bytes) -> None:
    to.sendall(struct.pack("<q", len(message)) + message)


def _receive_message(source: socket.socket) -> bytearray:
    (size,) = struct.unpack("<q", _receive(source, 8))
    return _receive(source, size)


def _receive(source: socket.socket, size: int) -> bytearray:
    content = bytearray(size)
    view = memoryview(content)
    while view:
        got = source.recv_into(view)
        if not got:
            raise EOFError
        view = view[got:]
    return content
