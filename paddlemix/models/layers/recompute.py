"""Blocks that keep nothing but their input for the backward pass, and compute again what else it needs.

Source: Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016.
"""

from __future__ import annotations

from typing import Any

import paddle
from paddle import nn
from paddle.distributed.fleet.utils import recompute as run_twice


def run_block(block: nn.Layer, x: paddle.Tensor, *rest: Any, recompute: bool) -> paddle.Tensor:
    """Compute `block(x, *rest)`, and once more in the backward pass; dropout draws the same both times.

    Of the small shape in benchmarks/qwen2_vl_cpu.py a step's activations take 581 MiB by Paddle's own count, 352 with
    the decoder computed twice, 340 with the tower, 111 with both.

    On the CPU gradients of a decoder are the same bit by bit. Those of towers differ by 3e-6 with the built ops, which
    join linear layers and activations where no gradient is asked for, as in the first pass, and round otherwise.

    Args:
        block: of a tower or a decoder.
        x: float[..., size], the one input that gradients flow back to.
        *rest: the other inputs.
        recompute: whether to compute twice, where there are gradients to compute at all.

    Returns:
        float[..., size].
    """
    if not (recompute and block.training and paddle.is_grad_enabled()):
        return block(x, *rest)
    if x.stop_gradient:
        if all(parameter.stop_gradient for parameter in block.parameters()):
            return block(x, *rest)
        # Paddle's recompute has a backward pass only where an input asks for a gradient. Patches do not, nor do the
        # embeddings of a frozen table, but the block's own parameters need one.
        x = x.detach()
        x.stop_gradient = False
    return run_twice(lambda states: block(states, *rest), x)
