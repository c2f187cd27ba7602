"""The kinds of adapters that each version of PEFT and transformers writes; needs peft."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

LINEAR = r".*(q_proj|down_proj|blocks\.0\.attn\.qkv|blocks\.0\.mlp\.(fc1|gate_proj)|merger\.mlp\.0)"
EMBEDDING, HEAD, CONVOLUTION = "embed_tokens", "lm_head", "patch_embed.proj"


@dataclass(frozen=True)
class Kind:
    """A kind of adapter.

    Attributes:
        base: folder of the tiny model that it is for.
        settings: of `LoraConfig`.
        rows: of the embedding, which is enlarged for it; None leaves it as it is.
        is_computed: whether its formula is of interest, not the names in its file; the newest version writes those, and
            the oldest the `OLDEST_TOO` among them.
    """

    base: str
    settings: dict[str, Any] = field(default_factory=dict)
    rows: int | None = None
    is_computed: bool = False


def _computed(base: str = "qwen2_vl_untied", rows: int | None = None, **settings: Any) -> Kind:
    return Kind(base, {"target_modules": LINEAR, **settings}, rows, is_computed=True)


KINDS = {
    "layers": Kind("qwen2_vl_untied", {"target_modules": LINEAR}),
    "layers_2_5": Kind("qwen2_5_vl_tied", {"target_modules": LINEAR}),
    "whole": Kind("qwen2_vl_untied", {"target_modules": ["q_proj"], "modules_to_save": [EMBEDDING, HEAD, "merger"]}),
    "tied_both": Kind("qwen2_vl_tied", {"target_modules": ["q_proj"], "modules_to_save": [EMBEDDING, HEAD]}),
    "tied_embedding": Kind("qwen2_vl_tied", {"target_modules": ["q_proj"], "modules_to_save": [EMBEDDING]}),
    "tied_head": Kind("qwen2_vl_tied", {"target_modules": ["q_proj"], "modules_to_save": [HEAD]}),
    "tied_ensured": _computed("qwen2_vl_tied", modules_to_save=[EMBEDDING], ensure_weight_tying=True),
    "tied_ensured_lora": _computed("qwen2_vl_tied", target_modules=["q_proj", EMBEDDING], ensure_weight_tying=True),
    "convolution": _computed(target_modules=["q_proj", CONVOLUTION]),
    "embedding": _computed(target_modules=["q_proj", EMBEDDING]),
    "embedding_tied": _computed("qwen2_vl_tied", target_modules=["q_proj", EMBEDDING]),
    "head_tied": _computed("qwen2_vl_tied", target_modules=["q_proj", HEAD]),
    "dora": _computed(use_dora=True),
    "dora_embedding": _computed(use_dora=True, target_modules=["q_proj", EMBEDDING]),
    "dora_convolution": _computed(use_dora=True, target_modules=["q_proj", CONVOLUTION]),
    "patterns": _computed(
        use_rslora=True,
        rank_pattern={"q_proj": 3, r"visual\.blocks\.\d+\.attn\.qkv": 4},
        alpha_pattern={"layers.0.mlp.down_proj": 9, "qkv": 5},
    ),
    "bias_all": _computed(bias="all"),
    "bias_lora_only": _computed(bias="lora_only"),
    "lora_bias": _computed(target_modules=["q_proj", "v_proj", "qkv"], lora_bias=True),
    "fan_in_fan_out": _computed(fan_in_fan_out=True),
    "grown": _computed(rows=46),
    "grown_tied": _computed("qwen2_vl_tied", rows=46),
    "grown_embedding": _computed(rows=46, target_modules=["q_proj", EMBEDDING], modules_to_save=[HEAD]),
    "grown_whole": _computed(rows=46, modules_to_save=[EMBEDDING, HEAD]),
    "token_rows": _computed(trainable_token_indices={EMBEDDING: [3, 5]}),
    "token_rows_tied": _computed("qwen2_vl_tied", trainable_token_indices={EMBEDDING: [3, 5]}),
}
OLDEST_TOO = ("dora", "patterns", "bias_all", "embedding", "embedding_tied", "head_tied", "grown_tied", "grown_whole")
NAMED = [name for name, kind in KINDS.items() if not kind.is_computed]
