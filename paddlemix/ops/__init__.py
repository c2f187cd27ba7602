"""The mathematics that models share, each op in its readable form.

Every op is one public function; a model calls it and does not know how it is computed.
"""

from paddlemix.ops.activation import quick_gelu, swiglu
from paddlemix.ops.attention import attention, segment_attention
from paddlemix.ops.cross_entropy import token_cross_entropy
from paddlemix.ops.norm import rms_norm
from paddlemix.ops.rotary import apply_rotary, rotary_frequencies
from paddlemix.ops.segments import CausalSegments

__all__ = [
    "CausalSegments",
    "apply_rotary",
    "attention",
    "quick_gelu",
    "rms_norm",
    "rotary_frequencies",
    "segment_attention",
    "swiglu",
    "token_cross_entropy",
]
