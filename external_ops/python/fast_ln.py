"""Norms under the name and with the results that PaddleNLP and PaddleMIX import."""

from fused_ln import fused_ln as fast_ln
from fused_ln import fused_rms_norm as fast_rms_norm

__all__ = ["fast_ln", "fast_rms_norm"]
