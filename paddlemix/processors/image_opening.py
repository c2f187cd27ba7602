"""How a processor opens images: as an argument says, or else the environment, the checkpoint, the default."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from paddlemix.files import read_json_object, write_json
from paddlemix.media.opening import DEFAULT_OPENING, ImageOpening
from paddlemix.names import PREPROCESSOR_FILE
from paddlemix.processors.preprocessor import stored_settings
from paddlemix.processors.settings import OPENING_VARIABLES, MediaSettings, log_once

# In the file of images beside the family's own settings; transformers ignores what it does not know there.
_RANGE_KEY = "image_range"


def given_opening(arguments: MediaSettings, folder: Path, environment: Mapping[str, str] = os.environ) -> ImageOpening:
    """Read how images are to be opened.

    What a model saw in training it should see when it is asked, so the range is of the checkpoint too. The limit of
    pixels is of whoever runs it: it keeps a machine's memory.

    Args:
        arguments: take precedence over the environment; those of sizes are ignored.
        folder: of the checkpoint.
        environment: takes precedence over the checkpoint; variables that are blank count as not set.

    Returns:
        The choice.

    Raises:
        ValueError: a value is none of those that a setting may have.
    """
    values: dict[str, Any] = {_RANGE_KEY: stored_settings(folder, PREPROCESSOR_FILE).values.get(_RANGE_KEY)}
    values |= {
        name: _whole_number_or_text(found)
        for name, (variable,) in OPENING_VARIABLES.items()
        if (found := environment.get(variable, "").strip())
    }
    values |= {name: value for name, value in arguments.items() if name in OPENING_VARIABLES and value is not None}
    opening = ImageOpening(
        range=values.get("image_range") or DEFAULT_OPENING.range,
        pixel_limit=values.get("image_pixel_limit", DEFAULT_OPENING.pixel_limit),
    )
    if opening != DEFAULT_OPENING:
        log_once(
            f"images: of more than 8 bits shown by `image_range` {opening.range}; at most {opening.pixel_limit} pixels"
        )
    return opening


def sizing_settings(arguments: MediaSettings) -> MediaSettings:
    """Leave out the arguments that say how images are opened, which every family takes."""
    return cast(MediaSettings, {name: value for name, value in arguments.items() if name not in OPENING_VARIABLES})


def save_opening(opening: ImageOpening, folder: Path) -> None:
    """Add to a checkpoint's settings of images how they are opened, where that is not as usual.

    Args:
        opening: the choice.
        folder: of the checkpoint; the file of its settings has just been written.
    """
    if opening.range != DEFAULT_OPENING.range:
        file = folder / PREPROCESSOR_FILE
        write_json(file, {**read_json_object(file, missing_ok=True), _RANGE_KEY: opening.range})


def _whole_number_or_text(text: str) -> int | str:
    try:
        return int(text)
    except ValueError:
        return text
