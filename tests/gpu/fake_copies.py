"""Lets the CPU stand in for a card that batches are copied to."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

import paddle

# The modules that see the card.
SEEING = ("paddlemix.handover", "paddlemix.datasets.loading")


def install(patch: Callable[[Any, str, Any], None]) -> list[tuple[str, str]]:
    """Let tensors seem to be made on a card.

    Args:
        patch: sets an attribute of an object.

    Returns:
        What will have been copied: "pinned" or "copied", and the name of the thread that asked for it.
    """
    copies: list[tuple[str, str]] = []
    to_tensor, real_device, cpu = paddle.to_tensor, paddle.get_device, paddle.CPUPlace()
    pinned = object()

    def note(kind: str) -> None:
        copies.append((kind, threading.current_thread().name))

    def make(data: Any, *arguments: Any, place: Any = None, **options: Any) -> paddle.Tensor:
        if place is pinned:
            note("pinned")
            place = cpu
        return to_tensor(data, *arguments, place=place, **options)

    def cuda(tensor: paddle.Tensor, device_id: int | None = None, blocking: bool = True) -> paddle.Tensor:
        note("waited for" if blocking else "copied")
        return tensor.clone()

    def get_device() -> str:
        is_asked_here = sys._getframe(1).f_globals["__name__"].startswith(SEEING)
        return "gpu:0" if is_asked_here else real_device()

    patch(paddle, "get_device", get_device)
    patch(paddle, "set_device", lambda device: None)
    patch(paddle, "CUDAPinnedPlace", lambda: pinned)
    patch(paddle, "to_tensor", make)
    patch(paddle.Tensor, "cuda", cuda)
    return copies
