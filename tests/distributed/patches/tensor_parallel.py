"""What Paddle 3.3.1 does for tensor parallelism on GPUs only although the CPU can."""

from __future__ import annotations

from typing import Any

import paddle
from paddle.distributed.fleet.meta_parallel import tensor_parallel
from paddle.distributed.fleet.utils import hybrid_parallel_util


def install() -> None:
    """Let a model's inputs be handed round within a group, as on GPUs."""
    tensor_parallel.broadcast_input_data = _broadcast_inputs


def _broadcast_inputs(hcg: Any, *inputs: Any, **named: Any) -> None:
    place = paddle.CPUPlace()
    hybrid_parallel_util._broadcast_nested_data(hcg, "cpu", place, inputs)
    hybrid_parallel_util._broadcast_nested_data(hcg, "cpu", place, named)
