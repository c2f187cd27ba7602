"""How the processes of a run agree about files, through the store that started them.

Not by collectives: gloo gives up where one rank comes half a minute after another, and a checkpoint may take longer.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from itertools import count
from typing import Any

import paddle

# Seconds between two looks at how many have given theirs; a look takes the store 0.05 s.
_POLL = 0.05

# The same in all ranks, as long as all ask in the same order, as with collectives.
_numbers = count()


def gather_texts(text: str, *, patience: float = math.inf) -> list[str]:
    """Gather a text of each rank in all of them; returns once all have given theirs.

    Args:
        text: of this rank.
        patience: seconds to wait for the others.

    Returns:
        The texts, by rank.

    Raises:
        OSError: the ranks have not come together, or some have not given theirs in time.
        RuntimeError: the store is gone, and with it the first rank.
    """
    world = paddle.distributed.get_world_size()
    if world <= 1:
        return [text]
    store, place = _store(), f"paddlemix/{next(_numbers)}"
    try:
        store.set(f"{place}/{paddle.distributed.get_rank()}", text.encode())
        _wait_for(store, f"{place}/given", world, patience)
        texts = [bytes(store.get(f"{place}/{rank}")).decode() for rank in range(world)]
        _wait_until_read(store, f"{place}/read", world)
    except ValueError as error:  # Paddle's word for whatever is wrong with a connection
        raise RuntimeError("the store that rank 0 keeps for all ranks cannot be reached") from error
    return texts


def _store() -> Any:
    """Return Paddle's store; at the first call the first rank waits for all others, a quarter of an hour at most."""
    try:
        return paddle.base.core.create_or_get_global_tcp_store()
    except (RuntimeError, SystemError, ValueError) as error:
        raise OSError(
            "the ranks have not come together: some have not started, have ended at once, or cannot reach the first "
            f"one. Look at their logs, on all machines. Paddle says: {str(error).strip()}"
        ) from error


def _wait_for(store: Any, counter: str, world: int, patience: float) -> None:
    """Count this rank, and wait until all are; asking for a missing key would wait for a quarter of an hour at most."""
    deadline = time.monotonic() + patience
    came = store.add(counter, 1)
    while came < world:
        if time.monotonic() > deadline:
            raise OSError(
                f"{came} of {world} ranks have come in {patience:.0f} s. Look at the logs of the others, on their "
                "machines: they have not started, or have ended."
            )
        time.sleep(_POLL)
        came = store.add(counter, 0)


def _wait_until_read(store: Any, counter: str, world: int) -> None:
    """Keep the first rank, which holds the store, from ending on what it reads before the others have read it."""
    read = store.add(counter, 1)
    while read < world and paddle.distributed.get_rank() == 0:
        time.sleep(_POLL)
        read = store.add(counter, 0)


def wait_for_all() -> None:
    """Return once all ranks are here: in front of a collective, behind work that takes some ranks longer."""
    gather_texts("")


def from_first(decide: Callable[[], str]) -> str:
    """Return what the first rank decides; the others wait for it.

    Args:
        decide: called in the first rank alone.

    Returns:
        Its text, in all ranks.

    Raises:
        ValueError: in the other ranks, where `decide` raised in the first.
    """
    if paddle.distributed.get_rank() > 0:
        outcome, text = gather_texts("")[0].split("\n", 1)
        if outcome == "error":
            raise ValueError(text)
        return text
    try:
        text = decide()
    except (OSError, ValueError) as error:
        gather_texts(f"error\n{error}")
        raise
    gather_texts(f"decided\n{text}")
    return text


def only_first(act: Callable[[], object]) -> None:
    """Let the first rank do something that the others wait for, and fail where it fails.

    Args:
        act: called in the first rank alone.

    Raises:
        ValueError: in the other ranks, where `act` raised in the first.
    """
    from_first(lambda: str(act()))
