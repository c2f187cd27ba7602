"""What Qwen-VL, the first one, says of itself."""

from __future__ import annotations

from paddlemix.models.family import Family

FAMILY = Family(
    package="paddlemix.models.qwen_vl",
    model_type="qwen",
    architecture="QWenLMHeadModel",
    config="QWenConfig",
    processor="QwenVLProcessor",
    tokenizer="paddlemix.models.qwen_vl.tokenizer:QwenTokenizer",
    vision_globs=(
        "transformer.visual.conv1.*",
        "transformer.visual.positional_embedding",
        "transformer.visual.ln_pre.*",
        "transformer.visual.transformer.*",
        "transformer.visual.ln_post.*",
        "transformer.visual.proj",
    ),
    aligner_globs=("transformer.visual.attn_pool.*",),
    language_globs=("transformer.wte.*", "transformer.h.*", "transformer.ln_f.*", "lm_head.*"),
    published={"Qwen/Qwen-VL": {}},
    dialogue="paddlemix.models.qwen_vl.chat.dialogue:QwenVLDialogue",
)
