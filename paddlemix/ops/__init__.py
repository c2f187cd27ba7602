"""The mathematics that models share.

Every op is one public function; a model calls it and does not know how it is computed: by the libraries that
`external_ops` builds, in float32 on the CPU and in three dtypes on GPUs, or in its readable form.
`python -m paddlemix.ops` tells which.

Ops on tensors are loaded when one is asked for, and Paddle with them: data workers ask for those on images alone.
"""

from functools import cache
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from paddlemix.ops.images import patchify, resize_bicubic

if TYPE_CHECKING:
    from paddlemix.ops.tensors import *  # noqa: F403

__all__ = ["patchify", "resize_bicubic"]


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(_tensors(), name)


@cache  # a token of an answer asks for ops 26 times, and importing anew takes 20 us each
def _tensors() -> ModuleType:
    return import_module("paddlemix.ops.tensors")
