"""A checkpoint's config.json, as it is read before anything is known of the model; needs no Paddle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from paddlemix.files import read_json_object
from paddlemix.names import CONFIG_FILE


def read_config(folder: Path) -> dict[str, Any]:
    """Read the values of `folder`'s config.json.

    Args:
        folder: of a checkpoint.

    Returns:
        The JSON object.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is not a JSON object.
    """
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder}: no {CONFIG_FILE}; `model_name_or_path` must name a folder that holds a model."
        )
    return read_json_object(path)
