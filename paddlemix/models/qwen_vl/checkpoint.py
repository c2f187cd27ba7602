"""How Qwen-VL's parameters lie on disk: the published names, which are those here, and PyTorch's shapes."""

from __future__ import annotations

from paddlemix.models.qwen_vl.config import QWenConfig
from paddlemix.weights.layout import WeightLayout

VISUAL = "transformer.visual."


def weight_layout(config: QWenConfig) -> WeightLayout:
    """Return the layout of a checkpoint of this shape."""
    patch = config.visual.patch_size
    tables = ("positional_embedding", "proj", "attn_pool.query", "attn_pool.pos_embed")
    return WeightLayout(
        # As PaddleMIX's own model calls them, its tower with and without a layer for the transformer.
        renamed=(("visual.vit.", VISUAL), ("visual.", VISUAL), ("transformer.llm.", "transformer.")),
        convolution_kernels={f"{VISUAL}conv1.weight": (3, patch, patch)},
        not_transposed=("transformer.wte.weight", *(VISUAL + name for name in tables)),
    )
