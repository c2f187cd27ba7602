"""A checkpoint's config.json, as it is read before anything is known of the model; needs no Paddle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paddlemix.files import read_json_object
from paddlemix.foreign.explain import explain
from paddlemix.foreign.invented_ids import without_invented_ids
from paddlemix.names import CONFIG_FILE


def read_config(folder: Path) -> dict[str, Any]:
    """Read the values of `folder`'s config.json.

    Args:
        folder: of a checkpoint.

    Returns:
        The JSON object, without ids that its writer invented.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is not a JSON object, or a pointer of Git LFS.
    """
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder}: no {CONFIG_FILE}; `model_name_or_path` must name a folder that holds a model.{explain(folder)}"
        )
    return without_invented_ids(read_json_object(path))


def vocab_size_of(values: Mapping[str, Any]) -> int | None:
    """Tell how many tokens the model of a config.json has rows for; None where the file leaves it to the family.

    Args:
        values: of the file; later writers nest the language model's in `text_config`.

    Returns:
        The rows of its embedding.
    """
    return (values.get("text_config") or {}).get("vocab_size") or values.get("vocab_size")


def with_vocab_size(values: Mapping[str, Any], rows: int) -> dict[str, Any]:
    """Say how many tokens a model has rows for, wherever the values of its config.json say so.

    Args:
        values: of the file.
        rows: of the embedding.

    Returns:
        The changed values.
    """
    nested = values.get("text_config")
    changed = {**values, "vocab_size": rows} if "vocab_size" in values or not nested else dict(values)
    return {**changed, "text_config": {**nested, "vocab_size": rows}} if nested else changed
