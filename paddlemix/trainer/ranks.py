"""How the processes of a run agree about files, through the store that started them.

Not by collectives: gloo gives up where one rank comes half a minute after another, and a checkpoint may take longer.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

import paddle

# The same in all ranks, as long as all ask in the same order, as with collectives.
_numbers = count()


def share(text: str) -> list[str]:
    """Tell all ranks something and hear what they tell; returns once all have spoken.

    Args:
        text: of this rank.

    Returns:
        What each rank said, by rank.
    """
    world = paddle.distributed.get_world_size()
    if world <= 1:
        return [text]
    store, number = paddle.base.core.create_or_get_global_tcp_store(), next(_numbers)
    store.set(f"paddlemix/{number}/{paddle.distributed.get_rank()}", text.encode())
    return [bytes(store.get(f"paddlemix/{number}/{rank}")).decode() for rank in range(world)]


def from_first(decide: Callable[[], str]) -> str:
    """What the first rank decides; the others wait for it.

    Args:
        decide: called in the first rank alone.

    Returns:
        Its text, in all ranks.

    Raises:
        ValueError: in the other ranks, where `decide` raised in the first.
    """
    if paddle.distributed.get_rank() > 0:
        outcome, text = share("")[0].split("\n", 1)
        if outcome == "error":
            raise ValueError(text)
        return text
    try:
        text = decide()
    except (OSError, ValueError) as error:
        share(f"error\n{error}")
        raise
    share(f"decided\n{text}")
    return text
