"""What preprocessor files of checkpoints have in common, whatever the family: JSON of settings, and CLIP's colours."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

# Mean and deviation of red, green and blue in 0..1, over the images that CLIP was trained on.
# Source: Radford et al., "Learning transferable visual models from natural language supervision", 2021,
# arXiv:2103.00020, and its published code.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def read_settings(path: Path) -> dict[str, Any]:
    """Read a file of settings; a checkpoint without it says nothing."""
    return json.loads(path.read_text("utf-8")) if path.is_file() else {}


def known_settings(values: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Choose settings by name.

    Args:
        values: of a file. None counts as not set.
        names: the fields of a frozen dataclass.

    Returns:
        Those that are set; lists are tuples, so that they can be hashed.
    """
    found = {name: values.get(name) for name in names}
    return {
        name: tuple(value) if isinstance(value, list) else value for name, value in found.items() if value is not None
    }
