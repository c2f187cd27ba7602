"""How a Qwen2-VL is split over ranks that compute every layer together."""

from __future__ import annotations

from collections.abc import Sequence

from paddlemix.models.qwen2_vl.config import Qwen2VLConfig
from paddlemix.models.tensor_parallel import SplitPlan


def split_plan(config: Qwen2VLConfig) -> SplitPlan:
    """Split everything but the norms and the patch embedding."""
    return plan_with_mlp(config, inner=("fc1",), outer="fc2", inner_key="vision_config.embed_dim * mlp_ratio")


def plan_with_mlp(config: Qwen2VLConfig, *, inner: Sequence[str], outer: str, inner_key: str) -> SplitPlan:
    """Split everything but the norms and the patch embedding of a model whose tower has MLPs of these layers.

    Args:
        config: of the family or a kin.
        inner: the MLP's layers to its inner width.
        outer: the layer back.
        inner_key: what config.json calls the inner width.

    Returns:
        The plan.
    """
    vision = config.vision_config
    return SplitPlan.around(
        config.decoder_shape,
        "model",
        columns=(*(f"visual.blocks.*.mlp.{name}" for name in inner), "visual.merger.mlp.0"),
        fused=("visual.blocks.*.attn.qkv",),
        rows=("visual.blocks.*.attn.proj", f"visual.blocks.*.mlp.{outer}", "visual.merger.mlp.2"),
        shared_out={
            "num_attention_heads": config.num_attention_heads,
            "num_key_value_heads": config.num_key_value_heads,
            "intermediate_size": config.intermediate_size,
            "vocab_size": config.vocab_size,
            "vision_config.num_heads": vision.num_heads,
            inner_key: vision.inner_size,
        },
    )
