"""How a Qwen-VL is split over ranks that compute every layer together."""

from __future__ import annotations

from paddlemix.models.qwen_vl.config import QWenConfig
from paddlemix.models.tensor_parallel import SplitPlan


def split_plan(config: QWenConfig) -> SplitPlan:
    """Split everything but the norms, the patch embedding, and the resampler, which is under 1 % of the model."""
    visual = config.visual
    return SplitPlan.around(
        config.decoder_shape,
        "transformer",
        columns=(
            # Query, key and value lie side by side head by head, so a rank's heads are one piece.
            "transformer.visual.transformer.resblocks.*.attn.in_proj",
            "transformer.visual.transformer.resblocks.*.mlp.c_fc",
        ),
        fused=(),
        rows=(
            "transformer.visual.transformer.resblocks.*.attn.out_proj",
            "transformer.visual.transformer.resblocks.*.mlp.c_proj",
        ),
        shared_out={
            "num_attention_heads": config.num_attention_heads,
            "intermediate_size / 2": config.mlp_size,
            "vocab_size": config.vocab_size,
            "visual.heads": visual.heads,
            "visual.width * mlp_ratio": int(visual.width * visual.mlp_ratio),
        },
    )
