"""Which parameters are trained: globs over parameter names."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from paddle import nn

from paddlemix.peft.layers import LoRALinear
from paddlemix.quantization.linear import QuantizedLinear
from paddlemix.weights.share import whole_shape


@dataclass(frozen=True)
class ModuleCount:
    """Numbers of one top module: how many are trained, how many frozen, and of these how many held as codes."""

    module: str
    trained: int
    frozen: int
    coded: int = 0


def freeze(model: nn.Layer, include: Iterable[str] | None, exclude: Iterable[str] | None) -> None:
    """Freeze the parameters that the globs name.

    With `include`, what it matches and `exclude` does not is frozen; with `exclude` alone, all but what it matches.

    Args:
        model: its parameters' `stop_gradient` is set.
        include: globs such as "*visual*"; None or empty for none.
        exclude: globs of what is trained after all.

    Raises:
        ValueError: a glob matches nothing, or nothing is left to train.
    """
    include, exclude = list(include or []), list(exclude or [])
    if not (include or exclude):
        return
    names = [name for name, _ in model.named_parameters()]
    _check_matches("freeze_include", include, names)
    _check_matches("freeze_exclude", exclude, names)
    for name, parameter in model.named_parameters():
        parameter.stop_gradient = matches(name, include or ["*"]) and not matches(name, exclude)
    if all(parameter.stop_gradient for parameter in model.parameters()):
        raise ValueError(f"`freeze_include` {include} freezes everything; name what to train in `freeze_exclude`.")


def count_by_module(model: nn.Layer, depth: int = 2) -> list[ModuleCount]:
    """Count what is trained and frozen by the first `depth` parts of the parameters' names, in the model's order.

    Those that other ranks hold of a model that is split count too, and the numbers that codes stand for.
    """
    trained: Counter[str] = Counter()
    frozen: Counter[str] = Counter()
    coded: Counter[str] = Counter()
    for name, parameter in model.named_parameters():
        (frozen if parameter.stop_gradient else trained)[_module(name, depth)] += math.prod(whole_shape(parameter))
    for name, layer in model.named_sublayers():
        base = layer.base if isinstance(layer, LoRALinear) else layer
        if isinstance(base, QuantizedLinear):
            coded[_module(name, depth)] += math.prod(base.sizes)
    modules = dict.fromkeys((*(_module(name, depth) for name, _ in model.named_parameters()), *coded))
    return [ModuleCount(one, trained[one], frozen[one] + coded[one], coded[one]) for one in modules]


def _module(name: str, depth: int) -> str:
    return ".".join(name.split(".")[:depth])


def any_matches(model: nn.Layer, glob: str) -> bool:
    """Tell whether a model has a parameter whose whole name the glob matches."""
    return any(fnmatchcase(name, glob) for name, _ in model.named_parameters())


def matches(name: str, globs: Iterable[str]) -> bool:
    """Tell whether any of the globs matches the whole name."""
    return any(fnmatchcase(name, glob) for glob in globs)


def _check_matches(key: str, globs: Iterable[str], names: list[str]) -> None:
    unmatched = [glob for glob in globs if not any(fnmatchcase(name, glob) for name in names)]
    if unmatched:
        modules = ", ".join(dict.fromkeys(".".join(name.split(".")[:2]) for name in names))
        raise ValueError(f"`{key}` {unmatched} matches no parameter. The modules are: {modules}.")
