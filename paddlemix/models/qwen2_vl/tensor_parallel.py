"""How a Qwen2-VL is split over ranks that compute every layer together."""

from __future__ import annotations

from paddlemix.models.qwen2_vl.config import Qwen2VLConfig
from paddlemix.models.tensor_parallel import SplitPlan


def split_plan(config: Qwen2VLConfig) -> SplitPlan:
    """Split everything but the norms and the patch embedding."""
    vision = config.vision_config
    return SplitPlan.around(
        config.decoder_shape,
        "model",
        columns=("visual.blocks.*.mlp.fc1", "visual.merger.mlp.0"),
        fused=("visual.blocks.*.attn.qkv",),
        rows=("visual.blocks.*.attn.proj", "visual.blocks.*.mlp.fc2", "visual.merger.mlp.2"),
        shared_out={
            "num_attention_heads": config.num_attention_heads,
            "num_key_value_heads": config.num_key_value_heads,
            "intermediate_size": config.intermediate_size,
            "vocab_size": config.vocab_size,
            "vision_config.num_heads": vision.num_heads,
            "vision_config.embed_dim * mlp_ratio": int(vision.embed_dim * vision.mlp_ratio),
        },
    )
