"""Ops on Paddle's tensors; `paddlemix.ops` hands them on."""

from paddlemix.ops.denormals import flushed_denormals
from paddlemix.ops.tensors.activation import ACTIVATIONS, Activation, gelu, quick_gelu, swiglu
from paddlemix.ops.tensors.attention import attention, segment_attention
from paddlemix.ops.tensors.built import num_threads, set_num_threads, threads_wait_awake
from paddlemix.ops.tensors.cards.cached_attention import cached_attention, has_cached_attention, takes_row_table
from paddlemix.ops.tensors.collectives import copy_to_ranks, gather_from_ranks, sum_over_ranks
from paddlemix.ops.tensors.cross_entropy import check_targets, linear_cross_entropy, token_cross_entropy
from paddlemix.ops.tensors.decode_block import BlockWeights, HeldBlock, decode_blocks, has_decode_blocks
from paddlemix.ops.tensors.interpolate import resize_grid
from paddlemix.ops.tensors.linear import linear, set_compute_dtype
from paddlemix.ops.tensors.mask import CausalMask
from paddlemix.ops.tensors.norm import add_rms_norm, layer_norm, rms_norm
from paddlemix.ops.tensors.optimizer.adamw import AdamWTensors, adamw_step, squared_norms, takes_adamw
from paddlemix.ops.tensors.quantized.product import quantized_linear
from paddlemix.ops.tensors.quantized.weight import QuantizedWeight
from paddlemix.ops.tensors.rotary import (
    Rotary,
    apply_rotary,
    rotary_frequencies,
    rotary_steps,
    rotate_pair,
    rotate_split,
)
from paddlemix.ops.tensors.segments import CausalSegments, Segments, Visible
from paddlemix.ops.tensors.split_cross_entropy import split_linear_cross_entropy

__all__ = [
    "ACTIVATIONS",
    "Activation",
    "AdamWTensors",
    "BlockWeights",
    "CausalMask",
    "CausalSegments",
    "HeldBlock",
    "QuantizedWeight",
    "Rotary",
    "Segments",
    "Visible",
    "adamw_step",
    "add_rms_norm",
    "apply_rotary",
    "attention",
    "cached_attention",
    "check_targets",
    "copy_to_ranks",
    "decode_blocks",
    "flushed_denormals",
    "gather_from_ranks",
    "gelu",
    "has_cached_attention",
    "has_decode_blocks",
    "layer_norm",
    "linear",
    "linear_cross_entropy",
    "num_threads",
    "quantized_linear",
    "quick_gelu",
    "resize_grid",
    "rms_norm",
    "rotary_frequencies",
    "rotary_steps",
    "rotate_pair",
    "rotate_split",
    "segment_attention",
    "set_compute_dtype",
    "set_num_threads",
    "split_linear_cross_entropy",
    "squared_norms",
    "sum_over_ranks",
    "swiglu",
    "takes_adamw",
    "takes_row_table",
    "threads_wait_awake",
    "token_cross_entropy",
]
