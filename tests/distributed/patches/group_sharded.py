"""Sharding stages 2 and 3 on the CPU, where Paddle 3.3.1 refuses them: they take it for a custom device named "cpu".

Their modules see Paddle through `Pretending`, which answers for the device; all else is Paddle's own.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import paddle
from paddle.base import core
from paddle.distributed.fleet.meta_parallel.sharding import (
    group_sharded_optimizer_stage2,
    group_sharded_stage2,
    group_sharded_stage3,
    group_sharded_storage,
    group_sharded_utils,
)
from paddle.distributed.sharding import group_sharded

MODULES = (
    group_sharded,
    group_sharded_optimizer_stage2,
    group_sharded_stage2,
    group_sharded_stage3,
    group_sharded_storage,
    group_sharded_utils,
)
ALIGNMENT = 256
# Stage 3 cuts parameters of more numbers than this; by default more than 2**20, which no tiny model has.
SEGMENT_SIZE = 512


class Pretending:
    """A module, but for some names.

    Args:
        module: what is left.
        **instead: what stands for those names.
    """

    def __init__(self, module: ModuleType, **instead: Any) -> None:
        self.__dict__.update(instead, _module=module)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


def install() -> None:
    """Let the modules see a custom device, and `Tensor.cpu` copy, as it does where there is one."""
    device = Pretending(
        paddle.device, get_device=lambda: "cpu:0", get_all_custom_device_type=lambda: ["cpu"], set_device=lambda _: None
    )
    seen = Pretending(
        paddle,
        device=device,
        get_device=device.get_device,
        set_device=device.set_device,
        CustomPlace=lambda *_: paddle.CPUPlace(),
    )
    chunks = Pretending(core.libpaddle, _get_device_min_chunk_size=lambda _: ALIGNMENT)
    for module in MODULES:
        module.paddle = seen
        if hasattr(module, "core"):
            module.core = Pretending(core, get_all_custom_device_type=lambda: ["cpu"], libpaddle=chunks)
    core.eager.Tensor.cpu = lambda tensor: tensor.clone()
    whole = group_sharded.group_sharded_parallel
    group_sharded.group_sharded_parallel = lambda *arguments, **options: whole(
        *arguments, **{"segment_size": SEGMENT_SIZE, **options}
    )
    paddle.distributed.sharding.group_sharded_parallel = group_sharded.group_sharded_parallel
