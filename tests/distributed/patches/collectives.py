"""Collectives that Paddle 3.3.1's gloo groups refuse, made of those that they have."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Any

import paddle
from paddle.base import core
from paddle.distributed import collective

SUM, AVG = core.ReduceOp.SUM, core.ReduceOp.AVG
Group = core.ProcessGroupGloo
# Those that gloo has, but not "on the stream that computes": on the CPU there is but one order of things anyway.
ON_STREAM = ("all_gather", "all_gather_into_tensor", "broadcast", "reduce", "scatter", "scatter_tensor", "send", "recv")
STORE_TIMEOUT = 900

_stores: list[Any] = []


class Finished:
    """A task that ended before it was handed out."""

    def wait(self, *_: Any) -> bool:
        return True

    def is_completed(self) -> bool:
        return True

    def synchronize(self) -> None:
        """Nothing is left to wait for."""


def install() -> None:
    """Give gloo's groups what they lack."""
    for name in ON_STREAM:
        setattr(Group, f"{name}_on_calc_stream", _waiting(getattr(Group, name)))
    for name, function in (
        ("all_reduce", _with_mean(Group.all_reduce)),
        ("reduce", _with_mean(Group.reduce)),
        ("reduce_scatter_tensor", _reduce_scatter_tensor),
        ("reduce_scatter", _reduce_scatter),
    ):
        setattr(Group, name, function)
        setattr(Group, f"{name}_on_calc_stream", function)
    if not hasattr(core, "nccl_version"):  # by which Paddle decides whether means are to be had
        core.nccl_version = lambda: 22000
    collective._new_process_group_impl = _with_own_store(collective._new_process_group_impl)


def _waiting(native: Callable[..., Any]) -> Callable[..., Finished]:
    def call(group: Any, *arguments: Any) -> Finished:
        native(group, *arguments, True).wait()
        return Finished()

    return call


def _with_mean(native: Callable[..., Any]) -> Callable[..., Finished]:
    """A reduction of whole tensors that knows the mean too; the operation is its last argument but for `sync_op`."""

    def call(group: Any, tensor: Any, *rest: Any) -> Finished:
        options = [one for one in rest if not isinstance(one, bool)]
        operation = options.pop() if options and isinstance(options[-1], core.ReduceOp) else SUM
        native(group, tensor, *options, SUM if operation == AVG else operation, True).wait()
        if operation == AVG:
            with paddle.no_grad():
                tensor.scale_(1 / group.size())
        return Finished()

    return call


def _reduce_scatter_tensor(group: Any, out: Any, whole: Any, operation: Any = SUM, sync: bool = True) -> Finished:
    del sync
    with paddle.no_grad():
        reduced = whole.detach().clone()
        group.all_reduce(reduced, operation, True)
        out.copy_(reduced.flatten().split(group.size())[group.rank()].reshape(out.shape), True)
    return Finished()


def _reduce_scatter(group: Any, out: Any, parts: Any, operation: Any = SUM, sync: bool = True) -> Finished:
    return _reduce_scatter_tensor(group, out, paddle.stack([part.flatten() for part in parts]), operation, sync)


def _with_own_store(create: Callable[..., Any]) -> Callable[..., Any]:
    """Groups meet through keys of one store that do not say of which group they are: each gets a store of its own."""

    def call(
        backend: str, store: Any, rank: int, size: int, name: str, pg_options: Any, group_id: int = 0, **more: Any
    ) -> Any:
        if size > 1 and group_id > 0:
            store = _new_store(store, f"patches/{name}/{group_id}", rank, size)
            _stores.append(store)
        return create(backend, store, rank, size, name, pg_options, group_id, **more)

    return call


def _new_store(store: Any, key: str, rank: int, size: int) -> Any:
    if rank == 0:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            store.set(key, str(probe.getsockname()[1]))
    port = int(bytes(store.get(key)).decode())
    if rank > 0:
        time.sleep(0.3)  # who comes before the first rank waits for three seconds
    return core.TCPStore("127.0.0.1", port, rank == 0, size, STORE_TIMEOUT)
