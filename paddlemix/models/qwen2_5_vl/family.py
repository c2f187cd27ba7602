"""What Qwen2.5-VL says of itself."""

from __future__ import annotations

from paddlemix.models.family import Family

FAMILY = Family(
    package="paddlemix.models.qwen2_5_vl",
    model_type="qwen2_5_vl",
    architecture="Qwen2_5_VLForConditionalGeneration",
    config="Qwen25VLConfig",
    processor="Qwen25VLProcessor",
    tokenizer="paddlemix.models.qwen2_vl.tokenizer:Qwen2Tokenizer",
    vision_globs=("visual.patch_embed.*", "visual.blocks.*"),
    aligner_globs=("visual.merger.*",),
    language_globs=("model.*", "lm_head.*"),
    published={
        "Qwen/Qwen2.5-VL-3B": {
            "hidden_size": 2048,
            "intermediate_size": 11008,
            "num_attention_heads": 16,
            "num_key_value_heads": 2,
            "num_hidden_layers": 36,
            "vocab_size": 151936,
            "tie_word_embeddings": True,
        },
        "Qwen/Qwen2.5-VL-7B": {},
        "Qwen/Qwen2.5-VL-32B": {
            "hidden_size": 5120,
            "intermediate_size": 27648,
            "num_attention_heads": 40,
            "num_key_value_heads": 8,
            "num_hidden_layers": 64,
            "vision_config": {"intermediate_size": 3456},
        },
        "Qwen/Qwen2.5-VL-72B": {
            "hidden_size": 8192,
            "intermediate_size": 29568,
            "num_attention_heads": 64,
            "num_key_value_heads": 8,
            "num_hidden_layers": 80,
            "vision_config": {"intermediate_size": 3456},
        },
    },
)
