"""How Qwen2-VL's parameters lie on disk: the published names, and PyTorch's shapes."""

from __future__ import annotations

from paddlemix.models.qwen2_vl.config import Qwen2VLConfig
from paddlemix.weights.layout import WeightLayout


def weight_layout(config: Qwen2VLConfig) -> WeightLayout:
    """Return the layout of a checkpoint of this shape."""
    vision = config.vision_config
    kernel = (vision.in_channels, vision.temporal_patch_size, vision.patch_size, vision.patch_size)
    return WeightLayout(
        # Later writers nest the parts under `model.`; the published files do not.
        renamed=(("model.visual.", "visual."), ("model.language_model.", "model.")),
        convolution_kernels={"visual.patch_embed.proj.weight": kernel},
        not_transposed=("model.embed_tokens.weight",),
        # Files of a tied model may hold the head as well.
        optional={"lm_head.weight": "model.embed_tokens.weight"} if config.tie_word_embeddings else {},
        in_memory=(("visual.", "model.visual."), ("model.", "model.language_model.")),
    )
