"""What others call the course of a run: its steps, precision, memory, cards, checkpoints, evaluations and logs."""

from __future__ import annotations

from paddlemix.configuration.foreign.rows import ForeignKey, chosen, inverse, never, otherwise, passed_over, same

_DEEPSPEED = (
    '`sharding` shares out what DeepSpeed does: "stage1", "stage2" or "stage3", by its `zero_optimization.stage` (ZeRO '
    "1, 2, 3); there is no offloading."
)
_FSDP = (
    '`sharding` shares out what FSDP does: "stage3" for full_shard, "stage2" for shard_grad_op; there is no offloading.'
)
_HUB = "Nothing is uploaded; `huggingface-cli upload` uploads the folder of a model. Take the key out."
_GREEDY = (
    "An evaluation's answers take the likeliest token each time; `max_new_tokens` is their longest. Take the key out."
)
_ADAMW = (
    "adamw_torch",
    "adamw_torch_fused",
    "adamw_hf",
    "adamw_apex_fused",
    "adamw_torch_xla",
    "adamw_torch_npu_fused",
)
# What transformers writes of the settings of FSDP and of accelerate where a user has given none.
_NO_FSDP = {"min_num_params": 0, "xla": False, "xla_fsdp_v2": False, "xla_fsdp_grad_ckpt": False}
_PLAIN_ACCELERATOR = {
    "split_batches": False,
    "even_batches": True,
    "use_seedable_sampler": True,
    "non_blocking": False,
}
_OFF = "That is not available: take the key out."

STEPS: list[ForeignKey] = [
    *same("per_gpu_train_batch_size batch_size", "TS", "per_device_train_batch_size"),
    *same("per_gpu_eval_batch_size eval_batch_size", "TS", "per_device_eval_batch_size"),
    *never(
        "auto_find_batch_size",
        "T",
        "paddlemix/tools/estimate_memory.py tells what a batch takes; set `per_device_train_batch_size`.",
        False,
    ),
    *chosen("optim", "TLS", {name: {"optim": "adamw"} for name in _ADAMW}),
    *never("adafactor", "T", "`optim` names the optimizer; Adafactor is not among them.", False),
    *never(
        "optim_args optim_target_modules",
        "T",
        "`adam_beta1`, `adam_beta2`, `adam_epsilon` and `weight_decay` are the optimizer's settings.",
    ),
    ForeignKey(
        "lr_scheduler_kwargs",
        "TLS",
        members=("num_cycles", "power", "lr_end"),
        idle=frozenset({"{}"}),
        advice='Its members are keys here: `num_cycles` of "cosine", `power` and `lr_end` of "polynomial", which with '
        "`power` 1 falls in a line to `lr_end`; no scheduler has a `min_lr`.",
    ),
    *otherwise("warmup_steps", "T", "A share of all steps is `warmup_ratio`."),
    *otherwise(
        "lr_scheduler_type",
        "TLS",
        'Others have no counterpart; "polynomial" with `lr_end` falls to a rate above 0.',
    ),
    *never("max_epochs epochs num_epochs", "SV", "`num_train_epochs` is how often the records are gone through."),
    *never("warmup warmup_epochs", "V", "`warmup_steps` is a number of steps, `warmup_ratio` a share of all steps."),
    *never("data_seed", "T", "`seed` draws the records too: take the key out."),
    *never(
        "full_determinism",
        "T",
        "A run with the same `seed` and cards draws the same records; kernels may round otherwise. Take the key out; "
        "FLAGS_cudnn_deterministic=1 in the environment has those of a card add in one order.",
        False,
    ),
    *never("additional_saved_keys torch_empty_cache_steps", "T", _OFF),
    *never(
        "activation_checkpointing", "T", "`recompute` computes activations twice and does not keep them.", False, {}
    ),
    *passed_over("use_cache", "T", "Training keeps no cache of keys and values, answers always do."),
]

COMPUTATION: list[ForeignKey] = [
    *same("gradient_checkpointing grad_checkpoint", "TRLSM", "recompute"),
    *inverse("disable_gradient_checkpointing", "L", "recompute"),
    *same("vit_gradient_checkpointing", "S", "recompute_vit"),
    *never(
        "gradient_checkpointing_kwargs use_reentrant_gc",
        "TLS",
        "`recompute` has no settings: take the key out.",
        {},
        {"use_reentrant": True},
        {"use_reentrant": False},
        True,
        False,
    ),
    *never("pure_bf16", "L", 'Set `"bf16": true` and `"dtype": "bfloat16"`.', False),
    *chosen("device", "TS", {"cuda": {"device": "gpu"}}),
    *chosen("use_cpu", "T", {True: {"device": "cpu"}}, idle=(False,)),
    *never("use_mps_device use_ipex use_npu", "T", "`device` names where a run computes.", False),
    *never(
        "tf32",
        "T",
        "Paddle says how float32 is multiplied on a card: take the key out, or set `bf16` to be faster.",
        False,
    ),
    *never(
        "torch_compile torch_compile_backend torch_compile_mode torchdynamo jit_mode_eval use_liger_kernel "
        "enable_liger_kernel liger_kernel_config use_liger",
        "TRLS",
        "Fused operators are taken where they are built (`python -m paddlemix.ops` tells): take the key out.",
        False,
    ),
    *chosen(
        "half_precision_backend fp16_backend",
        "T",
        {},
        "Paddle computes in half precision: take the key out.",
        idle=("auto",),
    ),
    *never(
        "upcast_layernorm upcast_lmhead_output",
        "L",
        "Norms and the loss are computed in float32 where that matters: take the key out.",
        False,
    ),
    *chosen(
        "deepspeed",
        "TRLS",
        {
            f"{prefix}zero{stage}": {"sharding": f"stage{stage}" if stage else ""}
            for prefix in ("", "default-")
            for stage in range(4)
        },
        _DEEPSPEED,
        idle=("",),
    ),
    *never(
        "fsdp fsdp_config fsdp_min_num_params fsdp_transformer_layer_cls_to_wrap", "TLS", _FSDP, "", [], 0, {}, _NO_FSDP
    ),
    *never(
        "sequence_parallel_size ulysses_degree",
        "S",
        "Sequences are not cut over cards; `tensor_parallel_degree` splits layers.",
        1,
    ),
    *passed_over(
        "ddp_timeout", "TLS", "A run ends at once where one of its ranks is lost, and waits as long as all are there."
    ),
    *never("dataloader_in_order", "T", "Batches always come in the order in which they are drawn.", True),
    *passed_over("ddp_backend ddp_bucket_cap_mb ddp_broadcast_buffers ddp_static_graph", "TS", "Paddle has its own."),
    *passed_over(
        "dataloader_pin_memory dataloader_persistent_workers dataloader_prefetch_factor",
        "TS",
        "Batches are prepared ahead by `dataloader_num_workers` processes.",
    ),
    *never(
        "accelerator_config parallelism_config ray_scope mp_parameters tpu_num_cores tpu_metrics_debug",
        "T",
        _OFF,
        "",
        "last",
        False,
        _PLAIN_ACCELERATOR,
    ),
    *never("debug", "T", _OFF, "", []),
]

CHECKPOINTS: list[ForeignKey] = [
    *chosen("stage", "L", {}, "Supervised fine-tuning is what can be trained.", idle=("sft",)),
    *never(
        "ref_model reward_model pref_beta pref_ftx pref_loss ppo_epochs kto_chosen_weight rlhf_type",
        "LS",
        "Supervised fine-tuning is what can be trained: take the key out.",
    ),
    *never("enable_jit_checkpoint", "T", "A SIGTERM always ends a run with a checkpoint: take the key out.", False),
    *never("max_shard_size export_size", "TLS", "Weights are saved in files of up to 5 GB: take the key out."),
    *otherwise("save_strategy", "T", "`load_best_model_at_end` keeps the best checkpoint."),
    *same("save_only_model", "TLS", "ignore_save_lr_and_optim"),
    *chosen(
        "save_safetensors safe_serialization",
        "TS",
        {},
        "Weights are always saved as safetensors: take the key out.",
        idle=(True,),
    ),
    *never(
        "resume_only_model", "S", "Name the checkpoint as `model_name_or_path` to begin with its weights alone.", False
    ),
    *passed_over("restore_callback_states_from_checkpoint", "T", "A run goes on with all of its states."),
    *never(
        "add_version create_checkpoint_symlink",
        "S",
        "`output_dir` is the run's folder as it stands: take the key out.",
        False,
    ),
    *never(
        "push_to_hub hub_model_id hub_strategy hub_private_repo hub_always_push hub_revision push_to_hub_model_id "
        "push_to_hub_organization push_to_hub_token use_swift_lora",
        "TS",
        _HUB,
        False,
        "every_save",
        "<PUSH_TO_HUB_TOKEN>",
    ),
    *never(
        "export_dir export_device export_legacy_format export_hub_model_id export_quantization_bit "
        "export_quantization_dataset merge_lora",
        "LS",
        "paddlemix/tools/merge_lora_params.py merges an adapter into its base: take the key out.",
        False,
    ),
]

EVALUATION: list[ForeignKey] = [
    *same("early_stopping_steps early_stop_interval", "LS", "early_stopping_patience"),
    *never("eval_limit", "S", "`max_evaluate_steps` is how many batches are evaluated at most."),
    *never("eval_on_each_dataset", "L", "The loss is one of all sets: take the key out.", False),
    *same("eval_strategy", "TRLS", "evaluation_strategy"),
    *never(
        "eval_on_start",
        "T",
        "paddlemix/tools/evaluate.py scores a model before it is trained: take the key out.",
        False,
    ),
    *never("eval_delay", "T", "Evaluations begin with the first `eval_steps`: take the key out.", 0),
    *never(
        "num_beams generation_num_beams eval_num_beams generation_max_length generation_config do_sample temperature "
        "top_p top_k repetition_penalty",
        "TLS",
        _GREEDY,
        False,
        0,
        1,
    ),
    *never(
        "include_for_metrics include_inputs_for_metrics batch_eval_metrics eval_use_gather_object "
        "use_legacy_prediction_loop compute_accuracy metric acc_strategy eval_metric",
        "TLS",
        "`predict_with_generate` scores the model's answers, by the formats of the sets. Take the key out.",
        False,
        [],
        "token",
    ),
    *chosen("eval_do_concat_batches", "T", {}, "Losses are added up batch by batch: take the key out.", idle=(True,)),
]

LOGS: list[ForeignKey] = [
    ForeignKey(
        "report_to",
        "TLS",
        settings={"[]": {"report_to": "none"}},
        advice="Curves are logged with VisualDL only; `trainer_log.json` has all numbers.",
    ),
    *chosen("plot_loss", "L", {}, "`loss.png` in `output_dir` is always drawn: take the key out.", idle=(True,)),
    *passed_over("log_level log_level_replica", "T", "What is in effect, and what is wrong, is always told."),
    *passed_over(
        "include_tokens_per_second include_num_input_tokens_seen include_effective_tokens_per_second",
        "TL",
        "Every log has the speed in records and tokens.",
    ),
    *passed_over("logging_nan_inf_filter", "T", "A loss that is no number ends the run."),
    *never(
        "swanlab_project use_swanlab swanlab_mode project trackio_space_id wandb_project",
        "TLS",
        'Curves are logged with VisualDL: `report_to` is "visualdl" or "none".',
        False,
        "huggingface",
        "trackio",
        "cloud",
    ),
]
