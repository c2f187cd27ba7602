"""How many steps of the time axis a second is, as a `vision_config` says it or leaves it out; needs no Paddle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from paddlemix.bounded_json import finite_number
from paddlemix.models.config_bounds import check_kinds
from paddlemix.value_kinds import Kind

STEPS_KEY = "tokens_per_second"
# Of every published checkpoint.
PUBLISHED_STEPS = 2
# transformers up to 4.51 leaves its own default out of the files that it writes, and every release fills it in.
UNSAID_STEPS = 4
_STEPS = Kind(lambda value: finite_number(value) and 0 <= value <= 10_000, "a number from 0 to 10000")


def steps_per_second(vision: Mapping[str, Any]) -> float:
    """Read the steps of the time axis in a second.

    Args:
        vision: the `vision_config` of a config.json; empty where there is none.

    Returns:
        A number above 0.

    Raises:
        ValueError: it says something else than a number.
    """
    check_kinds(vision, {STEPS_KEY: _STEPS}, section="vision_config.")
    return vision.get(STEPS_KEY) or (UNSAID_STEPS if vision else PUBLISHED_STEPS)
