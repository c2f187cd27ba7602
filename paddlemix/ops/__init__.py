"""The mathematics that models share.

Every op is one public function; a model calls it and does not know how it is computed: by the libraries that
`external_ops` builds, in float32 on the CPU and in three dtypes on GPUs, or in its readable form.
`python -m paddlemix.ops` tells which.
"""

from paddlemix.ops.activation import ACTIVATIONS, Activation, gelu, quick_gelu, swiglu
from paddlemix.ops.attention import attention, segment_attention
from paddlemix.ops.built import awake_threads, num_threads, set_num_threads
from paddlemix.ops.collectives import copy_to_ranks, gather_from_ranks, sum_over_ranks
from paddlemix.ops.cross_entropy import IGNORED_TARGET, linear_cross_entropy, token_cross_entropy
from paddlemix.ops.decode_block import BlockWeights, decode_block, has_decode_block
from paddlemix.ops.interpolate import resize_grid
from paddlemix.ops.linear import linear, set_compute_dtype
from paddlemix.ops.mask import CausalMask
from paddlemix.ops.norm import add_rms_norm, layer_norm, rms_norm
from paddlemix.ops.rotary import Rotary, apply_rotary, rotary_frequencies, rotate_pair, rotate_split
from paddlemix.ops.segments import CausalSegments, Visible
from paddlemix.ops.split_cross_entropy import split_linear_cross_entropy
from paddlemix.picture_ops import patchify, resize_bicubic

__all__ = [
    "ACTIVATIONS",
    "IGNORED_TARGET",
    "Activation",
    "BlockWeights",
    "CausalMask",
    "CausalSegments",
    "Rotary",
    "Visible",
    "add_rms_norm",
    "apply_rotary",
    "attention",
    "awake_threads",
    "copy_to_ranks",
    "decode_block",
    "gather_from_ranks",
    "gelu",
    "has_decode_block",
    "layer_norm",
    "linear",
    "linear_cross_entropy",
    "num_threads",
    "patchify",
    "quick_gelu",
    "resize_bicubic",
    "resize_grid",
    "rms_norm",
    "rotary_frequencies",
    "rotate_pair",
    "rotate_split",
    "segment_attention",
    "set_compute_dtype",
    "set_num_threads",
    "split_linear_cross_entropy",
    "sum_over_ranks",
    "swiglu",
    "token_cross_entropy",
]
