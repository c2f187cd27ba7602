"""Checks whether the processes that were started can share the work as a config says."""

from __future__ import annotations

import math
import os

from paddlemix.configuration.arguments import FinetuneConfig
from paddlemix.configuration.problems import ConfigError, Problem
from paddlemix.configuration.rules import SHARES_GRADIENTS, adds_in_float32
from paddlemix.peft.folders import find_folders

DEGREES = ("tensor_parallel_degree", "sharding_parallel_degree")


def check_degrees(config: FinetuneConfig) -> None:
    """Refuse degrees that do not fit the number of processes or the model. Call it before anything is written.

    Args:
        config: a checked config.

    Raises:
        ConfigError: the processes cannot be grouped so, or the model cannot be split so.
        OSError: there is no such model.
    """
    _check_processes(config)
    if config.training["tensor_parallel_degree"] > 1:
        _check_model(config)


def _check_processes(config: FinetuneConfig) -> None:
    degrees = {key: config.training[key] for key in DEGREES if config.training[key] > 1}
    processes, needed = int(os.environ.get("PADDLE_TRAINERS_NUM", "1")), math.prod(degrees.values())
    if processes % needed == 0:
        _check_added_gradients(config, pairs=processes > needed)
        return
    product = " times ".join(f"`{key}` ({degree})" for key, degree in degrees.items())
    product += f" is {needed}, which" if len(degrees) > 1 else ""
    text = (
        f"{product} does not divide the number of processes, which is {processes}. Start the run by `python -m "
        f"paddle.distributed.launch` on {needed} cards or a multiple of that, or lower the degree."
    )
    raise ConfigError([Problem(config.place(next(iter(degrees))), text)])


def _check_added_gradients(config: FinetuneConfig, *, pairs: bool) -> None:
    """Refuse what PaddleNLP asserts once the model is loaded: groups that share gradients, and float32 sums of them."""
    training = config.training
    degree, sharding = training["sharding_parallel_degree"], training["sharding"].strip()
    if not (pairs and degree > 1 and sharding in SHARES_GRADIENTS and adds_in_float32(config.precision)):
        return
    text = (
        f'`sharding_parallel_degree` is {degree} while `sharding` is "{sharding}" on more cards than that, where '
        "gradients cannot be added up in float32 (`amp_master_grad`). Take `sharding_parallel_degree` out, set "
        '`sharding` to "stage1"'
        + ("." if training["fp16"] else ", or `amp_master_grad` to false, which adds them up in bfloat16.")
    )
    raise ConfigError([Problem(config.place("sharding_parallel_degree"), text)])


def _check_model(config: FinetuneConfig) -> None:
    from paddlemix.models.config_file import make_config, read_config
    from paddlemix.models.registry import find_family

    folder = find_folders(config.model.model_name_or_path).model
    family = find_family(folder)
    plan = family.model_class.split_plan(make_config(family.config_class, folder, read_config(folder)))
    try:
        plan.check(config.training["tensor_parallel_degree"])
    except ValueError as error:
        raise ConfigError([Problem(config.place("tensor_parallel_degree"), str(error))]) from None
