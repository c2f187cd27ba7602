"""How `rope_scaling` of a config.json changes the frequencies of rotary positions, with M-RoPE's sections or without.

Source: Peng et al., "YaRN: Efficient Context Window Extension of Large Language Models", 2023, arXiv:2309.00071; the
numbers are those of transformers 4.57.6, rounded where it rounds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from paddlemix.bounded_json import shown
from paddlemix.ops import rotary_frequencies, rotary_steps

# Rotary positions as they are; "mrope" says only that there are sections.
PLAIN = ("default", "mrope")
YARN = "yarn"


class ScaledFrequencies(NamedTuple):
    """How positions turn pairs.

    Attributes:
        per_step: float32[D / 2], radians that each pair turns for one step of position.
        length: by which cosines and sines are multiplied.
    """

    per_step: np.ndarray
    length: float


@dataclass(frozen=True)
class Yarn:
    """YaRN's numbers.

    Attributes:
        factor: how many times as long a context gets.
        original_length: tokens of the context that the model was trained on.
        length: by which cosines and sines are multiplied.
        beta_fast: pairs that turn more often than this within the original context keep their frequency.
        beta_slow: pairs that turn less often than this are slowed down by `factor`.
        truncate: whether the pairs at these bounds are whole numbers.
    """

    factor: float
    original_length: int
    length: float
    beta_fast: float = 32
    beta_slow: float = 1
    truncate: bool = True

    @classmethod
    def from_published(cls, scaling: Mapping[str, Any], *, context: int) -> Yarn:
        """Read a `rope_scaling`.

        Args:
            scaling: of the file.
            context: its `max_position_embeddings`, the original length where `scaling` names none.

        Returns:
            The numbers.

        Raises:
            ValueError: a number is missing or makes no sense.
        """
        for name in ("factor", "original_max_position_embeddings", "attention_factor", "beta_fast", "beta_slow"):
            _check_number(name, scaling.get(name), least=1 if name == "factor" else 0)
        if scaling.get("factor") is None:
            raise ValueError("config.json: `rope_scaling` is of the type yarn without a `factor`; name it.")
        values = {name: scaling[name] for name in ("beta_fast", "beta_slow", "truncate") if name in scaling}
        original = scaling.get("original_max_position_embeddings") or context
        return cls(scaling["factor"], original, _length(scaling), **values)

    def frequencies(self, base: float, size: int) -> np.ndarray:
        """Compute the radians that each pair turns for one step of position.

        Args:
            base: of the rotary positions, `rope_theta`.
            size: numbers of a head.

        Returns:
            float32[size / 2].
        """
        steps = rotary_steps(base, size)
        kept, slowed = np.float32(1) / steps, np.float32(1) / (np.float32(self.factor) * steps)
        low, high = self._bounds(base, size)
        ramp = (np.arange(size // 2, dtype=np.float32) - np.float32(low)) / np.float32(high - low)
        kept_share = np.float32(1) - ramp.clip(0, 1)
        return slowed * (np.float32(1) - kept_share) + kept * kept_share

    def _bounds(self, base: float, size: int) -> tuple[float, float]:
        """Tell the last pair that keeps its frequency, and the first that is slowed down by all of `factor`."""
        low, high = (
            (size * math.log(self.original_length / (turns * 2 * math.pi))) / (2 * math.log(base))
            for turns in (self.beta_fast, self.beta_slow)
        )
        if self.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, size - 1)
        return low, high + 0.001 if low == high else high


def scaled_frequencies(scaling: Mapping[str, Any], base: float, size: int, *, context: int) -> ScaledFrequencies:
    """Compute the frequencies of a head's pairs.

    Args:
        scaling: a `rope_scaling` that `check_scaling` has let pass.
        base: `rope_theta`.
        size: numbers of a head.
        context: `max_position_embeddings`.

    Returns:
        The frequencies.
    """
    if scaling_kind(scaling) in PLAIN:
        return ScaledFrequencies(rotary_frequencies(base, size), 1.0)
    yarn = Yarn.from_published(scaling, context=context)
    return ScaledFrequencies(_kept_frequencies(yarn, base, size), yarn.length)


def scaling_kind(scaling: Mapping[str, Any]) -> str | None:
    """Name the type of a `rope_scaling`.

    Args:
        scaling: of a config.json.

    Returns:
        The type; None where there is none.

    Raises:
        ValueError: its two names for the type, of which releases of transformers read one or the other, differ.
    """
    older, newer = scaling.get("type"), scaling.get("rope_type")
    if older and newer and older != newer and not {older, newer} <= set(PLAIN):
        raise ValueError(
            f"config.json: `rope_scaling` has the `type` {shown(older)} and the `rope_type` {shown(newer)}; releases "
            "of transformers differ in which of them counts. Set both to the same."
        )
    return newer or older


def check_scaling(scaling: Mapping[str, Any], *, context: int) -> None:
    """Refuse a `rope_scaling` that is not computed.

    Args:
        scaling: of a config.json.
        context: its `max_position_embeddings`.

    Raises:
        ValueError: its type is neither plain nor YaRN's, or a number makes no sense.
    """
    kind = scaling_kind(scaling)
    if kind == YARN:
        Yarn.from_published(scaling, context=context)
    elif kind not in PLAIN:
        raise ValueError(
            f"config.json: `rope_scaling` is of the type {shown(kind)}; expected mrope, default or yarn: other ways to "
            "scale positions are not built in."
        )


def published_scaling(scaling: Mapping[str, Any]) -> dict[str, Any]:
    """Spell a `rope_scaling` as published checkpoints do, whichever release of transformers spelled it."""
    kind = "mrope" if scaling_kind(scaling) in PLAIN else scaling_kind(scaling)
    return {"type": kind, **{key: one for key, one in scaling.items() if key not in ("type", "rope_type")}}


@lru_cache(maxsize=16)
def _kept_frequencies(yarn: Yarn, base: float, size: int) -> np.ndarray:
    return yarn.frequencies(base, size)


def _length(scaling: Mapping[str, Any]) -> float:
    """Tell by what cosines and sines are multiplied: what the file says, or the paper's choice."""
    if scaling.get("attention_factor") is not None:
        return scaling["attention_factor"]
    factor, over, under = scaling["factor"], scaling.get("mscale"), scaling.get("mscale_all_dim")
    if over and under:
        return _lengthened(factor, over) / _lengthened(factor, under)
    return _lengthened(factor, 1)


def _lengthened(factor: float, weight: float) -> float:
    return 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0


def _check_number(name: str, value: Any, *, least: float) -> None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if value is not None and not (is_number and value >= least and value > 0):
        raise ValueError(
            f"config.json: `rope_scaling.{name}` is {shown(value)}; expected a number of at least {least}."
        )
