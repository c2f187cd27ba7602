"""A checkpoint's config.json, as it is read before anything is known of the model; needs no Paddle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from paddlemix.foreign.explain import explain, refuse_pointer
from paddlemix.names import CONFIG_FILE


def read_config(folder: Path) -> dict[str, Any]:
    """Read the values of `folder`'s config.json.

    Args:
        folder: of a checkpoint.

    Returns:
        The JSON object.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is not a JSON object, or a pointer of Git LFS.
    """
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder}: no {CONFIG_FILE}; `model_name_or_path` must name a folder that holds a model.{explain(folder)}"
        )
    refuse_pointer(path)
    try:
        values = json.loads(path.read_text("utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}:{error.lineno}: not valid JSON: {error.msg}.") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path}: a JSON object was expected, not a {type(values).__name__}.")
    return values
