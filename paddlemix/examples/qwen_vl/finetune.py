"""Fine-tunes a Qwen-VL as command line flags say: paddlemix/tools/supervised_finetune.py without a config file.

Every key of a config is a flag (--learning_rate 1e-5); lists and objects are given as JSON, and null means the default.

Example:
    python paddlemix/examples/qwen_vl/finetune.py --model_name_or_path qwen-vl/qwen-vl-chat-7b \\
        --data_path train.json --fix_vit True --model_max_length 2048 --output_dir output_qwen_vl
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from paddlemix._environment import gpu_is_usable, is_older_than_ampere
from paddlemix.configuration.aliases import Alias, AliasedFlags, Settings
from paddlemix.configuration.arguments import FinetuneConfig
from paddlemix.configuration.file import check_sources
from paddlemix.configuration.help import all_keys, key_lines
from paddlemix.distributed.peers import watching_peers
from paddlemix.tools import supervised_finetune
from paddlemix.tools.report_errors import report_errors

SCRIPT = "finetune.py"
DEFAULTS = {"data_path": None, "fix_vit": True, "bf16": True, "do_train": True, "gradient_accumulation_steps": 16}


@watching_peers()
def main(arguments: list[str]) -> None:
    """Read the flags and do what they say."""
    gpu = {"has_gpu": gpu_is_usable(), "before_ampere": is_older_than_ampere()}
    supervised_finetune.run(read_flags(arguments, **gpu))


def read_flags(arguments: Sequence[str], *, has_gpu: bool, before_ampere: bool = False) -> FinetuneConfig:
    """Read the command line; `--help` writes all flags to standard output and ends the program.

    Args:
        arguments: the command line without the program's name.
        has_gpu: whether Paddle can use a GPU here.
        before_ampere: whether that GPU is one of compute capability below 8.0, which has no bfloat16.

    Returns:
        The config that they stand for, every value checked.

    Raises:
        ConfigError: something about them is wrong; all of it is listed.
        SystemExit: help was asked for.
    """
    if {"--help", "-h"} & set(arguments):
        sys.stdout.write(help_text())
        raise SystemExit(0)
    flags = AliasedFlags(arguments, ALIASES, DEFAULTS, SCRIPT)
    return check_sources(flags, name=SCRIPT, has_gpu=has_gpu, before_ampere=before_ampere)


def help_text() -> str:
    """Write the text of --help."""
    own = key_lines({name: alias.key for name, alias in ALIASES.items()})
    defaults = ", ".join(f"{name} {json.dumps(value)}" for name, value in DEFAULTS.items() if name not in ALIASES)
    return "\n".join([__doc__ or "", "Flags:", *own, "", f"Other defaults than below: {defaults}.", "", *all_keys()])


def _records(part: str, purpose: str) -> Alias:
    """Describe the flag of a part's record files."""

    def sets(files: str | list[str] | None, _: Mapping[str, Any]) -> Settings:
        return {("dataset", part): [{"name": "chatml_dataset", "data_files": files}]}

    return Alias(str | list[str] | None, None, f"Record files of the chatml format to {purpose} on.", sets)


def _fix_vit(value: bool, given: Mapping[str, Any]) -> Settings:
    """Freeze the tower but for its resampler, as Qwen-VL's makers did; beside adapters all of it is frozen anyway."""
    if not value or given.get("lora") is True:
        return {}
    return {("freeze_include",): ["*visual*"], ("freeze_exclude",): ["*visual.attn_pool*"]}


def _lazy_preprocess(value: bool, _: Mapping[str, Any]) -> Settings:
    if not value:
        raise ValueError(
            "`lazy_preprocess` is false, but records are always prepared when they are drawn, by "
            "`dataloader_num_workers` processes; all are checked before the first step. Take the flag out."
        )
    return {}


ALIASES = {
    "data_path": _records("train", "train"),
    "eval_data_path": _records("eval", "evaluate"),
    "model_max_length": Alias(
        int,
        2048,
        "Tokens a record may have, the 258 of each image included: `max_length`.",
        lambda value, _: {("max_length",): value},
    ),
    "fix_vit": Alias(bool, True, "Freeze the vision tower but for its resampler, `visual.attn_pool`.", _fix_vit),
    "lazy_preprocess": Alias(
        bool, True, "Prepare records when they are drawn; there is no other way.", _lazy_preprocess
    ),
}

if __name__ == "__main__":
    with report_errors():
        main(sys.argv[1:])
