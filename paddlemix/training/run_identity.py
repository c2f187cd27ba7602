"""Which keys of a config make a run another run, see `checkpoints.identity`."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Any

from paddlemix.checkpoints.identity import IdentityKeys
from paddlemix.configuration.arguments import DataArguments, FinetuneConfig, ModelArguments

# What a resumed run must share with the one it goes on with.
MODEL_KEYS = (
    *(one.name for one in fields(ModelArguments) if one.name != "model_name_or_path"),
    *("bf16", "fp16", "fp16_opt_level", "optim"),
)
SAMPLE_KEYS = (
    *(one.name for one in fields(DataArguments) if one.name not in ("dataset", "on_bad_record")),
    *("seed", "dataloader_drop_last", "dataset.train"),
)
# What it may change as long as the same records are drawn together: files may be moved, and a global batch cut anew.
DRAW_KEYS = (
    "dataset.train.data_files",
    "on_bad_record",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "cards",
)
# What it may change; the run then goes on with the new values.
FREE_KEYS = (
    *("learning_rate", "vision_learning_rate", "aligner_learning_rate", "lr_scheduler_type"),
    *("warmup_ratio", "warmup_steps", "num_train_epochs", "max_steps"),
    *("weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon", "max_grad_norm", "model_name_or_path"),
)
KNOWN_KEYS = IdentityKeys(model=MODEL_KEYS, samples=SAMPLE_KEYS, draws=DRAW_KEYS, free=FREE_KEYS)
_FILES = ("data_files", "image_root")


def identity_keys(config: FinetuneConfig) -> dict[str, Any]:
    """Return the values of `KNOWN_KEYS`, by key; `dataset.train` without its files, which may move."""
    sets = [asdict(one) for one in config.data.dataset.train]
    values = {
        **asdict(config.model),
        **asdict(config.data),
        **config.training,
        "dataset.train": [{name: value for name, value in one.items() if name not in _FILES} for one in sets],
        "dataset.train.data_files": [{name: one[name] for name in _FILES} for one in sets],
    }
    return {name: values[name] for name in KNOWN_KEYS.all if name in values}
