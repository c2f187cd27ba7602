"""What users read about the keys: the text of --help and the tables of docs/config.md."""

from __future__ import annotations

import json
from collections.abc import Mapping
from textwrap import fill

from pydantic.fields import FieldInfo

from paddlemix.configuration.arguments import (
    DataArguments,
    DatasetArguments,
    DatasetItem,
    MediaArguments,
    ModelArguments,
    TrainingKeys,
)
from paddlemix.configuration.keys import expectation, own_keys, paddlenlp_keys

USAGE = "Usage: python paddlemix/tools/supervised_finetune.py CONFIG.json [--key value ...]"

_EXAMPLE = """\
{
  "model_name_or_path": "Qwen/Qwen2-VL-2B-Instruct",
  "freeze_vit": true,
  "dataset": {
    "train": [{"name": "chatml_dataset", "data_files": "train.json"}],
    "eval": [{"name": "chatml_dataset", "data_files": "val.json"}]
  },
  "output_dir": "checkpoints/run1",
  "num_train_epochs": 3,
  "learning_rate": 1e-5,
  "bf16": true,
  "do_train": true,
  "evaluation_strategy": "epoch"
}"""


def help_text() -> str:
    """Write the text of --help."""
    return "\n".join(
        [
            USAGE,
            "",
            "Each --key value (or --key=value) overrides the file; lists and objects are given as JSON; null means",
            "the default. CONFIG.json may be YAML as well (config.yaml); it holds, for example:",
            "",
            _EXAMPLE,
            "",
            *all_keys(),
        ]
    )


def all_keys() -> list[str]:
    """List every key of a config, in lines."""
    passed_on = [name for name in paddlenlp_keys() if name not in own_keys(TrainingKeys)]
    return [
        "Keys:",
        *key_lines(own_keys(ModelArguments) | own_keys(DataArguments) | own_keys(TrainingKeys)),
        "",
        'Keys of each item of "dataset": {"train": [...], "eval": [...]}:',
        *key_lines(own_keys(DatasetItem)),
        "",
        "Further keys, passed on to PaddleNLP's TrainingArguments:",
        fill(", ".join(passed_on), 100, initial_indent="  ", subsequent_indent="  "),
        "",
    ]


def tables() -> str:
    """Write the Markdown tables of all keys that have a description of their own."""
    media = own_keys(MediaArguments)
    groups = {
        "Model": own_keys(ModelArguments),
        "Data": {name: key for name, key in own_keys(DataArguments).items() if name not in media},
        "Images and videos": media,
        "`dataset`": own_keys(DatasetArguments),
        "Each item of `dataset.train` and `dataset.eval`": own_keys(DatasetItem),
        "Training": own_keys(TrainingKeys),
    }
    return "\n\n".join(f"## {title}\n\n{_table(keys)}" for title, keys in groups.items()) + "\n"


def changed_defaults() -> str:
    """Write the Markdown table of the defaults that differ from PaddleNLP's."""
    rows = [
        f"| `{name}` | {_default(key)} | {_default(paddlenlp_keys()[name])} |"
        for name, key in own_keys(TrainingKeys).items()
        if name in paddlenlp_keys() and key.default != paddlenlp_keys()[name].default
    ]
    return "\n".join(["| key | default here | PaddleNLP's |", "|---|---|---|", *rows]) + "\n"


def key_lines(keys: Mapping[str, FieldInfo]) -> list[str]:
    """Write a line for each key: what it is for, what it expects, its default."""
    return [
        f"  {name}: {key.description} Expects {expectation(key)}; "
        f"{'' if key.is_required() else 'default '}{_default(key)}."
        for name, key in keys.items()
    ]


def _table(keys: Mapping[str, FieldInfo]) -> str:
    rows = [f"| `{name}` | {expectation(key)} | {_default(key)} | {key.description} |" for name, key in keys.items()]
    return "\n".join(["| key | expects | default | meaning |", "|---|---|---|---|", *rows])


def _default(key: FieldInfo) -> str:
    if key.is_required():
        return "required"
    default = key.get_default(call_default_factory=True, validated_data={})
    return f"`{json.dumps(default, default=vars)}`"
