"""What Qwen2-VL says of itself."""

from __future__ import annotations

from paddlemix.models.family import Family

FAMILY = Family(
    package="paddlemix.models.qwen2_vl",
    model_type="qwen2_vl",
    architecture="Qwen2VLForConditionalGeneration",
    config="Qwen2VLConfig",
    processor="Qwen2VLProcessor",
    tokenizer="paddlemix.models.qwen2_vl.tokenizer:Qwen2Tokenizer",
    vision_globs=("visual.patch_embed.*", "visual.blocks.*"),
    aligner_globs=("visual.merger.*",),
    language_globs=("model.*", "lm_head.*"),
    published={
        "Qwen/Qwen2-VL-2B": {
            "hidden_size": 1536,
            "intermediate_size": 8960,
            "num_attention_heads": 12,
            "num_key_value_heads": 2,
            "num_hidden_layers": 28,
            "vocab_size": 151936,
            "tie_word_embeddings": True,
        },
        "Qwen/Qwen2-VL-7B": {},
        "Qwen/Qwen2-VL-72B": {
            "hidden_size": 8192,
            "intermediate_size": 29568,
            "num_attention_heads": 64,
            "num_key_value_heads": 8,
            "num_hidden_layers": 80,
        },
    },
)
