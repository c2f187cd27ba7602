"""Keys that mean something together. Where a class of arguments is a group, a key added to it belongs to it at once."""

from __future__ import annotations

from dataclasses import fields

from paddlemix.configuration.arguments import DataArguments, ModelArguments

_MODEL = tuple(one.name for one in fields(ModelArguments))
_DATA = tuple(one.name for one in fields(DataArguments))

# What a resumed run must share with the one it goes on with: how the model is trained, and what a sample is.
MODEL_KEYS = (
    *(name for name in _MODEL if name != "model_name_or_path"),
    *("bf16", "fp16", "fp16_opt_level", "optim"),
)
SAMPLE_KEYS = (
    *(name for name in _DATA if name not in ("dataset", "on_bad_record", "check_media", "refetch")),
    *("seed", "dataloader_drop_last", "dataset.train"),
)
# What it may change as long as the same records are drawn together: files may be moved, and a global batch cut anew.
DRAW_KEYS = (
    "dataset.train.data_files",
    "on_bad_record",
    "check_media",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "cards",
)
# What it may change; the run then goes on with the new values.
FREE_KEYS = (
    *("learning_rate", "vision_learning_rate", "aligner_learning_rate", "lr_scheduler_type"),
    *("warmup_ratio", "warmup_steps", "num_train_epochs", "max_steps"),
    *("weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon", "max_grad_norm", "model_name_or_path"),
    *("amp_master_grad", "scale_loss", "refetch"),
)

# What has no effect unless another key is true, or set.
GIVEN_SWITCHES = ("new_tokens", "quantize")
NEEDS = {
    "lora": tuple(name for name in _MODEL if name.startswith("lora_") or name in ("rslora", "create_new_adapter")),
    "mixtoken": ("mixtoken_window",),
    "quantize": ("quantize_vision",),
    "new_tokens": ("new_tokens_init", "new_tokens_multiple"),
    "predict_with_generate": ("max_new_tokens",),
}
# What says which shape a run's adapter has.
ADAPTER_KEYS = (
    *("lora_rank", "lora_alpha", "lora_rank_pattern", "lora_alpha_pattern", "rslora", "lora_dora", "lora_bias"),
    *("lora_target_modules", "lora_modules_to_save", "new_tokens"),
)
FREEZE_KEYS = tuple(name for name in _MODEL if name.startswith("freeze_"))
# The switches of what sees, which gets no adapters where `lora_target_modules` names none of its layers.
FREEZE_SEEING = ("freeze_vit", "freeze_aligner")
FREEZE_SWITCHES = ("freeze_vit", "freeze_llm", "freeze_aligner")
# Of which at most one may be true, and of which the first may not be above the second.
EXCLUSIVE = (("bf16", "fp16"), ("bf16_full_eval", "fp16_full_eval"))
BOUNDS = (("min_pixels", "max_pixels"), ("min_frames", "max_frames"), ("video_min_pixels", "video_max_pixels"))

# What later work brings, and what needs a GPU.
DEGREES_NOT_YET = (
    "pipeline_parallel_degree",
    "sep_parallel_degree",
    "context_parallel_degree",
    "expert_parallel_degree",
    "expert_tensor_parallel_degree",
)
NOT_YET_SWITCHES = (
    "save_sharded_model",
    "load_sharded_model",
    "sequence_parallel",
    "use_expert_parallel",
    "enable_auto_parallel",
    "to_static",
    "do_predict",
    "do_export",
)
HALF_PRECISION_SWITCHES = tuple(key for pair in EXCLUSIVE for key in pair)
