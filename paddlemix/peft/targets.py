"""Which layers of a model an adapter is put on."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

from paddle import nn

from paddlemix.contract import Model
from paddlemix.quantization.linear import QuantizedLinear

HEAD = "lm_head"
HEAD_WEIGHT = f"{HEAD}.weight"


def linear_layers(model: nn.Layer) -> list[str]:
    """Name all linear layers, in the model's order."""
    return [name for name, layer in model.named_sublayers() if isinstance(layer, (nn.Linear, QuantizedLinear))]


def layers_with_weights(model: nn.Layer) -> list[str]:
    """Name all layers that hold parameters themselves, in the model's order."""
    return list(dict.fromkeys(name.rpartition(".")[0] for name, _ in model.named_parameters()))


def token_layers(model: Model) -> dict[str, nn.Layer]:
    """Find the layers that have numbers for each token: the embedding, and the head where it has its own; by name."""
    embedding = model.get_input_embeddings()
    return {
        name: layer for name, layer in model.named_sublayers() if layer is embedding or name.rpartition(".")[2] == HEAD
    }


def language_layers(model: nn.Layer, globs: Iterable[str]) -> list[str]:
    """Name the linear layers of the language model, but for the head, as PEFT's "all-linear" has it.

    Args:
        model: of any family.
        globs: the parameters of the family's language model.

    Returns:
        Their names.
    """
    globs = list(globs)
    return [
        name
        for name in linear_layers(model)
        if name != HEAD and any(fnmatchcase(f"{name}.weight", glob) for glob in globs)
    ]


def match_layers(key: str, patterns: Sequence[str], names: Sequence[str]) -> list[str]:
    """Find the layers that patterns name.

    Args:
        key: of the config, for errors.
        patterns: regular expressions for whole names, as PaddleNLP has them.
        names: of all layers that may be meant.

    Returns:
        The matched names, each once, in the order of `names`.

    Raises:
        ValueError: a pattern is no regular expression, or matches nothing.
    """
    compiled = [compile_pattern(key, pattern) for pattern in patterns]
    for pattern in compiled:
        if not any(pattern.fullmatch(name) for name in names):
            raise matches_nothing(key, pattern.pattern, names)
    return [name for name in names if any(pattern.fullmatch(name) for pattern in compiled)]


def shortest_endings(chosen: Collection[str], names: Sequence[str]) -> list[str]:
    """Find names' endings that stand for the chosen layers and for no other, as PEFT's `target_modules` lists them.

    Args:
        chosen: some of `names`.
        names: of all layers of any kind, dotted.

    Returns:
        For each chosen layer the shortest ending, in whole parts and no number first, that no other layer has; each
        once.
    """
    others = [f".{name}" for name in names if name not in chosen]
    endings: dict[str, None] = {}
    for name in (name for name in names if name in chosen):
        parts = name.split(".")
        starts = [start for start in reversed(range(len(parts))) if not parts[start].isdigit()]
        tails = [".".join(parts[start:]) for start in starts]
        endings[next((tail for tail in tails if not any(other.endswith(f".{tail}") for other in others)), name)] = None
    return list(endings)


def compile_pattern(key: str, pattern: str) -> re.Pattern[str]:
    """Compile a regular expression of a config.

    Args:
        key: that gives it.
        pattern: the expression.

    Returns:
        The compiled one.

    Raises:
        ValueError: it is none.
    """
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ValueError(f"`{key}`: {pattern!r} is no regular expression ({error}).") from error


def matches_nothing(key: str, pattern: str, names: Sequence[str]) -> ValueError:
    """Make the error of a pattern of a config that none of the layers `names` has."""
    kinds = sorted({name.rpartition(".")[2] for name in names})
    words = re.findall(r"[A-Za-z]\w*", pattern)
    near = get_close_matches(words[-1], kinds, n=1) if words else []
    hint = f" Did you mean `.*{near[0]}`?" if near else ""
    return ValueError(f"`{key}` matches no layer: `{pattern}`.{hint} Layers: {', '.join(kinds)}.")
