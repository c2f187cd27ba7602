"""Learning rates of the vision tower and the aligner of their own; all fall by the same schedule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import paddle
from paddle import nn

from paddlemix.models.registry import Family
from paddlemix.peft.lora_model import MixLoRAModel
from paddlemix.training.freezing import matches

# Which globs of a family each key is about, and its name in a sentence.
KEYS = {
    "vision_learning_rate": ("vision_globs", "the vision tower"),
    "aligner_learning_rate": ("aligner_globs", "the aligner"),
}


def set_module_rates(model: nn.Layer, family: Family, training: Mapping[str, Any]) -> dict[str, float]:
    """Give the parameters of the tower and the aligner the rates that the config asks for.

    Paddle's optimizers multiply their learning rate with each parameter's own factor. LoRA+ does the same, and the two
    factors multiply.

    Args:
        model: frozen, or with adapters, as it is going to be trained; called once on it.
        family: the model's.
        training: the keys of `KEYS`, None for those without a rate of their own, and `learning_rate`.

    Returns:
        By each key that is set its rate as a multiple of `learning_rate`.

    Raises:
        ValueError: a key is set, but nothing of its part is trained.
    """
    factors = {key: training[key] / training["learning_rate"] for key in KEYS if training[key] is not None}
    for key, factor in factors.items():
        attribute, part = KEYS[key]
        globs = getattr(family, attribute)
        trained = [one for name, one in _own_parameters(model) if not one.stop_gradient and matches(name, globs)]
        if not trained:
            raise ValueError(
                f"`{key}` is {training[key]:g}, but nothing of {part} is trained. Take the key out, or train some of "
                f"its parameters ({', '.join(globs)}): see the `freeze_*` keys, or `lora_target_modules`."
            )
        for parameter in trained:
            own = parameter.optimize_attr
            parameter.optimize_attr = {**own, "learning_rate": own["learning_rate"] * factor}
    return factors


def factors_by_module(model: nn.Layer, depth: int = 2) -> dict[str, list[float]]:
    """List what the learning rate is multiplied by for trained parameters, each number once, by module in their order.

    Args:
        model: to train.
        depth: parts of a parameter's name that make a module.

    Returns:
        Ascending factors; modules that are frozen are left out.
    """
    found: dict[str, set[float]] = {}
    for name, parameter in _own_parameters(model):
        if not parameter.stop_gradient:
            module = ".".join(name.split(".")[:depth])
            found.setdefault(module, set()).add(parameter.optimize_attr["learning_rate"])
    return {module: sorted(factors) for module, factors in found.items()}


def _own_parameters(model: nn.Layer) -> list[tuple[str, paddle.Tensor]]:
    """Return parameters by the names that the family knows; adapters are around the model."""
    return list((model.model if isinstance(model, MixLoRAModel) else model).named_parameters())
