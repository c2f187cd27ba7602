"""What others call what is trained: the model, its parts, and adapters."""

from __future__ import annotations

from paddlemix.configuration.foreign.rows import ForeignKey, chosen, inverse, never, otherwise, passed_over, same

_ONE_RATE = "`vision_learning_rate` and `aligner_learning_rate` are the rates of single parts."
_BY_NAME = (
    '`freeze_include` and `freeze_exclude` take patterns of parameters\' names: ["model.embed*"] for a prefix, and '
    '["*visual*"] for what a regular expression looks for.'
)
_ONE_FORM = "Adapters are LoRA, `rslora`, DoRA (`lora_dora`) or LoRA+ (`lora_plus_scale`): take the key out."
_ROUNDED = '`"quantize"` rounds frozen weights while they are read: to "nf4", "int8" or "int4".'
_LORA = {"lora": {"lora": True}, "full": {"lora": False}}

MODEL: list[ForeignKey] = [
    *same("model model_id_or_path", "S", "model_name_or_path"),
    *same("torch_dtype", "TS", "dtype", {f"torch.{name}": name for name in ("float32", "bfloat16", "float16")}),
    *otherwise("dtype", "T", "Left out, it follows `bf16` and `fp16`."),
    *same("adapters adapter_name_or_path resume_from_adapter ckpt_dir", "LS", "lora_path", commas=True),
    *never("template", "LS", "The chat template is the checkpoint's own: take the key out."),
    *never(
        "model_type model_arch",
        "S",
        "The checkpoint's config.json says which family it is of: take the key out.",
    ),
    *never(
        "model_revision revision",
        "LS",
        "The newest revision is fetched; give a local folder as `model_name_or_path` for another one.",
        "main",
        "master",
    ),
    *never(
        "cache_dir",
        "L",
        "The environment variable HF_HOME names the folder that holds what is fetched: set it, and take the key out.",
    ),
    *never(
        "use_hf",
        "S",
        "Models come from the Hugging Face hub, or the mirror that HF_ENDPOINT names; give a local folder as "
        "`model_name_or_path` for another one.",
        True,
        1,
    ),
    *never(
        "hf_hub_token hub_token token",
        "TLS",
        "The environment variable HF_TOKEN holds the token: take the key out.",
        "<HUB_TOKEN>",  # what transformers writes in place of one
    ),
    *passed_over("trust_remote_code", "TRLS", "No code that comes with a checkpoint is run."),
    *passed_over(
        "use_fast_tokenizer low_cpu_mem_usage check_model print_param_status", "LS", "There is one way to do it."
    ),
    *passed_over(
        "infer_backend infer_dtype use_kv_cache offload_folder stream stop_words logprobs",
        "LS",
        "It is about answers after training, for which paddlemix/tools/predict.py and chat.py have flags.",
    ),
    *never(
        "train_from_scratch", "L", "Training begins with the weights of `model_name_or_path`: take the key out.", False
    ),
    *never("moe_aux_loss_coef router_aux_loss_coef", "LS", "No family has experts: take the key out.", 0),
    *never(
        "split_special_tokens",
        "L",
        "Control tokens that texts spell are text unless `allow_control_tokens` is true: take the key out.",
        True,
    ),
    *never(
        "flash_attn attn_impl attn_implementation use_flash_attention use_flash_attn",
        "TRLSM",
        "Attention is computed by the fastest kernels of this machine that give the same results: take the key out.",
        "auto",
    ),
    *chosen("quantization_bit quant_bits", "LS", {4: {"quantize": "nf4"}, 8: {"quantize": "int8"}}, _ROUNDED),
    *chosen("load_in_4bit", "RLS", {True: {"quantize": "nf4"}}, _ROUNDED, idle=(False,)),
    *chosen("load_in_8bit", "RLS", {True: {"quantize": "int8"}}, _ROUNDED, idle=(False,)),
    *chosen(
        "weight_quantize_algo",
        "M",
        {
            "nf4": {"quantize": "nf4"},
            "weight_only_int8": {"quantize": "int8"},
            "weight_only_int4": {"quantize": "int4"},
        },
        _ROUNDED,
        idle=("none",),
    ),
    *never("quant_method quantization_method", "LS", _ROUNDED, "bnb", "bitsandbytes", "BNB"),
    *never("bnb_4bit_quant_type", "RLS", _ROUNDED, "nf4"),
    *passed_over(
        "double_quantization bnb_4bit_use_double_quant bnb_4bit_compute_dtype bnb_4bit_quant_storage",
        "RLS",
        "Scales are float32, and products are of the activations' dtype.",
    ),
    *never(
        "new_special_tokens add_tokens add_special_tokens",
        "LS",
        "`new_tokens` lists tokens that are added to the vocabulary.",
        [],
        "",
    ),
    *passed_over("resize_vocab", "L", "The embedding has a row for every token."),
    *never("rope_scaling", "LS", "Positions are counted as the checkpoint's config.json says: take the key out."),
    *never(
        "device_map max_memory",
        "TS",
        "A card holds the whole model, or `sharding` or `tensor_parallel_degree` cuts it: take the key out.",
    ),
]

PARTS: list[ForeignKey] = [
    *same("freeze_vision_tower freeze_vision", "LV", "freeze_vit"),
    *same("freeze_multi_modal_projector freeze_merger freeze_mm_mlp_adapter", "LV", "freeze_aligner"),
    *same("freeze_language_model freeze_backbone", "LV", "freeze_llm"),
    *inverse("tune_mm_vision", "V", "freeze_vit"),
    *inverse("tune_mm_mlp", "V", "freeze_aligner"),
    *inverse("tune_mm_llm", "V", "freeze_llm"),
    *chosen(
        "train_mm_proj_only tune_mm_mlp_adapter",
        "LV",
        {True: {"freeze_vit": True, "freeze_llm": True, "freeze_aligner": False}},
        idle=(False,),
    ),
    *never("freeze_parameters freeze_parameters_regex", "S", _BY_NAME, []),
    *never(
        "trainable_parameters trainable_parameters_regex freeze_trainable_layers freeze_trainable_modules "
        "freeze_extra_modules",
        "LS",
        _BY_NAME,
        [],
        "",
    ),
    *never("freeze_parameters_ratio", "S", _BY_NAME, 0),
    *same("vit_lr vit_learning_rate vision_lr vision_tower_lr mm_vision_tower_lr", "SV", "vision_learning_rate"),
    *same("aligner_lr merger_lr mm_projector_lr projector_lr", "SV", "aligner_learning_rate"),
    *never("embedding_lr head_lr", "V", _ONE_RATE),
]

ADAPTERS: list[ForeignKey] = [
    *chosen(
        "finetuning_type train_type tuner_type sft_type",
        "LS",
        _LORA,
        'Set `"lora": true` for adapters, or `"lora": false` to train the weights, of which the `freeze_*` keys name '
        "what is left out.",
        note=("full", "All is trained that no `freeze_*` key names, the vision tower too."),
    ),
    *same("use_peft use_lora lora_enable", "RV", "lora"),
    *same("lora_r r", "RPV", "lora_rank"),
    *same("use_rslora", "PLS", "rslora", idle=(False,)),
    *same("loraplus_lr_ratio lorap_lr_ratio", "LS", "lora_plus_scale"),
    *same("lora_target", "L", "lora_target_modules", {"all": "all-linear"}),
    *same("target_modules target_regex lora_target_regex", "PS", "lora_target_modules"),
    *same("modules_to_save additional_target", "PLS", "lora_modules_to_save"),
    *never(
        "loraplus_lr_embedding lorap_emb_lr", "LS", "`lora_plus_scale` is the one factor of LoRA+: take the key out."
    ),
    *same("use_dora", "PLS", "lora_dora", idle=(False,)),
    *same("rank_pattern", "PS", "lora_rank_pattern", idle=({},)),
    *same("alpha_pattern", "PS", "lora_alpha_pattern", idle=({},)),
    *same("bias", "PS", "lora_bias", idle=("none",)),
    *otherwise(
        "lora_bias", "P", "PEFT's switch of this name is for biases of products, which adapters do not have here."
    ),
    *never("pissa_init pissa_convert pissa use_mora use_qalora use_bdlora lokr vera", "PLM", _ONE_FORM, False),
    *never(
        "init_lora_weights init_weights",
        "PS",
        "Adapters begin as PEFT's do by default: take the key out.",
        True,
        "true",
    ),
    *never(
        "exclude_modules target_parameters layers_to_transform layers_pattern",
        "PS",
        "`lora_target_modules` takes regular expressions for whole names of layers, such as "
        r'["model\\.layers\\.[0-7]\\..*_proj"].',
        [],
    ),
    *same("base_model_name_or_path", "P", "model_name_or_path"),
    *passed_over("peft_type peft_version auto_mapping inference_mode tuner_backend", "PS", "Adapters are PEFT's LoRA."),
    *never(
        "fan_in_fan_out ensure_weight_tying layer_replication megatron_config megatron_core trainable_token_indices "
        "loftq_config eva_config corda_config lora_ga_config alora_invocation_tokens arrow_config runtime_config",
        "P",
        _ONE_FORM,
        False,
        {},
        [],
    ),
    *never("lora_dtype", "S", "Adapters are held in the precision of the weights, see `dtype`: take the key out."),
    *never(
        "task_type lora_task_type",
        "RPS",
        "What is trained is the next token: take the key out.",
        "CAUSAL_LM",
        "causal_lm",
    ),
    *never(
        "use_llama_pro use_galore use_apollo use_badam use_unsloth use_unsloth_gc shift_attn mixture_of_depths "
        "galore_target galore_rank apollo_rank lisa_activated_layers oft_rank oft_block_size oft_target optimizer",
        "LS",
        "That is not available: take the key out; `lora` and `recompute` save memory.",
        False,
        0,
    ),
    *chosen("use_adam_mini", "L", {True: {"optim": "adamw_mini"}}, idle=(False,)),
    *never("use_muon", "LS", "`optim` names the optimizer; Muon is not among them.", False),
]
