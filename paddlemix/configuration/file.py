"""From a config file and a command line to checked values; everything that is wrong is reported at once.

A tool calls `read_command_line`, `check_degrees`, `check_output_dir`, `build_training_arguments` and, once all else is
found to be right, `clear_output_dir`, in this order.
"""

from __future__ import annotations

import dataclasses
import glob
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paddlemix._environment import data_workers, gpu_is_usable, usable_cores
from paddlemix.configuration.arguments import (
    DataArguments,
    DatasetArguments,
    DatasetItem,
    FinetuneConfig,
    ModelArguments,
)
from paddlemix.configuration.check import check_values
from paddlemix.configuration.degrees import check_degrees
from paddlemix.configuration.foreign.table import readable_keys
from paddlemix.configuration.foreign.translated import Translated
from paddlemix.configuration.groups import FREEZE_SEEING
from paddlemix.configuration.help import USAGE, help_text
from paddlemix.configuration.intervals import STAND_INS, has_shares
from paddlemix.configuration.keys import paddlenlp_keys
from paddlemix.configuration.output_dir import check_output_dir, clear_output_dir
from paddlemix.configuration.problems import ConfigError, Place, Problem
from paddlemix.configuration.reading.config_file import read_config_file
from paddlemix.configuration.reading.flags import Flags
from paddlemix.configuration.reading.source import Given, Source
from paddlemix.configuration.rules import (
    SHARES_GRADIENTS,
    Rule,
    adapts_language_alone,
    adds_in_float32,
    computes_in_half,
    find_broken_rules,
    loses_gradients,
    recomputes,
)
from paddlemix.files import read_bounded

if TYPE_CHECKING:
    from paddlenlp.trainer import TrainingArguments

logger = logging.getLogger(__name__)

__all__ = [
    "ConfigError",
    "build_training_arguments",
    "check_degrees",
    "check_output_dir",
    "check_sources",
    "clear_output_dir",
    "load_config",
    "read_command_line",
]


def read_command_line(arguments: Sequence[str], *, has_gpu: bool, before_ampere: bool = False) -> FinetuneConfig:
    """Read `CONFIG.json [--key value ...]`; `--help` writes the keys to standard output and ends the program.

    Args:
        arguments: the command line without the program's name.
        has_gpu: whether Paddle can use a GPU here.
        before_ampere: whether that GPU is one of compute capability below 8.0, which has no bfloat16.

    Returns:
        The config, every value checked.

    Raises:
        ConfigError: something about the config is wrong; all of it is listed.
        SystemExit: help was asked for.
    """
    if {"--help", "-h"} & set(arguments):
        sys.stdout.write(help_text())
        raise SystemExit(0)
    if not arguments or arguments[0].startswith("-"):
        raise ConfigError([Problem(Place("command line"), f"expected a config file first. {USAGE}")])
    return load_config(arguments[0], arguments[1:], has_gpu=has_gpu, before_ampere=before_ampere)


def load_config(path: str, flags: Sequence[str] = (), *, has_gpu: bool, before_ampere: bool = False) -> FinetuneConfig:
    """Read a config file, let command line flags override it, and check everything.

    Args:
        path: the file, in JSON, or in YAML where its name ends in .yaml or .yml.
        flags: `--key value` and `--key=value` words.
        has_gpu: whether Paddle can use a GPU here.
        before_ampere: whether that GPU is one of compute capability below 8.0, which has no bfloat16.

    Returns:
        The config, every value checked.

    Raises:
        ConfigError: something is wrong; all of it is listed.
    """
    known = readable_keys()
    sources = read_config_file(path, known), Flags(flags, known)
    return check_sources(*sources, name=path, has_gpu=has_gpu, before_ampere=before_ampere)


def check_sources(*sources: Source, name: str, has_gpu: bool, before_ampere: bool = False) -> FinetuneConfig:
    """Join what several sources give for the keys, the last one taking precedence, and check everything.

    Args:
        *sources: a file, a command line.
        name: stands in errors about keys that were not given; record files are looked for beside it too.
        has_gpu: whether Paddle can use a GPU here.
        before_ampere: whether that GPU is one of compute capability below 8.0, which has no bfloat16.

    Returns:
        The config, every value checked.

    Raises:
        ConfigError: something is wrong; all of it is listed.
    """
    translated = [Translated(source) for source in sources]
    for note in (note for source in translated for note in source.notes):
        logger.info("%s", note)
    given = Given.from_sources(*translated)
    values, problems = check_values(given, name)
    rules = find_broken_rules(values, given.values, has_gpu=has_gpu, before_ampere=before_ampere)
    problems += _rule_problems(rules, values, given, name)
    problems += [problem for source in translated for problem in source.problems]
    if problems:
        raise ConfigError(problems)
    for note in _notes_on_adapters(values, given):
        logger.info("%s", note)
    if loses_gradients(values):
        key, why, way_out = (
            ("amp_master_grad", "is false", "Take the key out")
            if computes_in_half(values)
            else ("dtype", "is set while `bf16` is false", 'Set "bf16": true')
        )
        logger.warning(
            "%s: `%s` %s, so the gradients of %d forward passes are added up in half precision, in which the last of "
            "them may be lost. %s to add them up in float32.",
            *(given.place((key,)), key, why, values["gradient_accumulation_steps"], way_out),
        )
    return _into_groups(values, given, name)


def _notes_on_adapters(values: dict[str, Any], given: Given) -> Iterator[str]:
    """Tell what switches of the vision tower and the aligner, where they are given, mean to a run of adapters."""
    if not values["lora"] or not adapts_language_alone(values["lora_target_modules"]):
        return
    for key in (key for key in FREEZE_SEEING if key in given.values):
        ways_out = "" if values[key] else "; to put some on others, name their layers in `lora_target_modules`"
        yield f"{given.place((key,))}: `{key}`: adapters are on layers of the language model alone{ways_out}."


def build_training_arguments(config: FinetuneConfig) -> TrainingArguments:
    """Build PaddleNLP's TrainingArguments, which selects the device and joins the group of processes.

    Args:
        config: a checked config.

    Returns:
        The arguments; intervals that are shares of all steps are stand-ins until these are counted. `device` is the
        GPU where Paddle can use one and `no_cuda` is false, else the CPU, unless the config names it.

    Raises:
        ValueError: PaddleNLP refuses a combination of values that the config's checks let through.
    """
    from paddlenlp.utils.log import logger  # takes seconds, so only once it is needed

    from paddlemix.configuration.training_arguments import SFTTrainingArguments

    # At its own level PaddleNLP lists every argument twice and each file it touches.
    logger.set_level("WARNING")
    values = {name: config.training[name] for name in paddlenlp_keys()}
    if has_shares(values):
        values |= STAND_INS
    # Data parallelism has to know of either: gradients come when blocks are computed again.
    values["recompute"] = recomputes(config.training, "vit") or recomputes(config.training, "llm")
    values["amp_master_grad"] = adds_in_float32(config.precision)
    if values["dataloader_num_workers"] is None:
        values["dataloader_num_workers"] = data_workers(os.environ, usable_cores())
    if values["release_grads"] is None:
        values["release_grads"] = values["sharding"].strip() not in SHARES_GRADIENTS
    takes_gpu = gpu_is_usable() and not values["no_cuda"]
    values["device"] = values["device"] or ("gpu" if takes_gpu else "cpu")
    return SFTTrainingArguments(**values)


def _rule_problems(rules: list[Rule], values: dict[str, Any], given: Given, path: str) -> list[Problem]:
    problems = []
    for rule in rules:
        places = [given.place((key,)) for key in rule.keys if key in given.values]
        problems.append(Problem(places[0] if places else Place(path), rule.sentence.format_map(values)))
    return problems


def _into_groups(values: dict[str, Any], given: Given, path: str) -> FinetuneConfig:
    data = DataArguments(**_take(values, DataArguments))
    return FinetuneConfig(
        model=_with_listed_tokens(ModelArguments(**_take(values, ModelArguments)), Path(path).parent),
        data=dataclasses.replace(data, dataset=_resolve_files(data.dataset, Path(path).parent)),
        training=values,
        source=path,
        places={name: given.place((name,)) for name in given.values},
    )


def _take(values: dict[str, Any], group: type) -> dict[str, Any]:
    return {field.name: values.pop(field.name) for field in dataclasses.fields(group)}


def _with_listed_tokens(model: ModelArguments, folder: Path) -> ModelArguments:
    """Take the tokens of `new_tokens` out of the file that it names, so that a run is known by them."""
    if not isinstance(model.new_tokens, str):
        return model
    file = Path(_resolve(model.new_tokens, folder)).expanduser()
    if not file.is_file():
        raise FileNotFoundError(f"`new_tokens` is {model.new_tokens}, which is no file; expected a list, or a file.")
    try:
        lines = [line.strip() for line in read_bounded(file).decode("utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise ValueError(f"`new_tokens`: {file} is not UTF-8: byte {error.start} is wrong. Save it as UTF-8.") from None
    return dataclasses.replace(model, new_tokens=[line for line in lines if line])


def _resolve_files(dataset: DatasetArguments, folder: Path) -> DatasetArguments:
    return DatasetArguments(
        train=[_resolve_item(item, folder) for item in dataset.train],
        eval=[_resolve_item(item, folder) for item in dataset.eval],
    )


def _resolve_item(item: DatasetItem, folder: Path) -> DatasetItem:
    return dataclasses.replace(
        item,
        data_files=[_resolve(name, folder) for name in item.files],
        image_root=item.image_root and _resolve(item.image_root, folder),
    )


def _resolve(name: str, folder: Path) -> str:
    """Prefix a name with the config's folder if it is only there; who opens it reports a file that is nowhere."""
    if Path(name).exists() or _matches(name):
        return name
    if (folder / name).exists():
        return str(folder / name)
    pattern = str(Path(glob.escape(str(folder))) / name)
    return pattern if _matches(pattern) else name


def _matches(pattern: str) -> bool:
    return any(glob.iglob(pattern, recursive=True))
