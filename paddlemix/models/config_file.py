"""A checkpoint's config.json, as it is read before anything is known of the model; needs no Paddle."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from paddlemix.files import read_json_object
from paddlemix.foreign.explain import explain
from paddlemix.foreign.invented_ids import without_invented_ids
from paddlemix.models.config_bounds import section
from paddlemix.names import CONFIG_FILE

ConfigT = TypeVar("ConfigT")


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


def read_section(folder: Path, name: str) -> Mapping[str, Any]:
    """Read a section of `folder`'s config.json.

    Args:
        folder: of a checkpoint, with a config.json or without.
        name: of the section.

    Returns:
        Its values; none where file or section are missing.

    Raises:
        ValueError: the file is no JSON object, or the section none.
    """
    path = folder / CONFIG_FILE
    try:
        return section(read_json_object(path, missing_ok=True), name)
    except ValueError as error:
        raise naming(error, path) from error


def make_config(config_class: Callable[..., ConfigT], folder: Path, values: Mapping[str, Any]) -> ConfigT:
    """Make a family's config of the values of a config.json, and name the whole path in errors about them.

    Args:
        config_class: the family's.
        folder: of the checkpoint.
        values: of its config.json.

    Returns:
        The config.

    Raises:
        ValueError: a value is of another kind than its key takes, or values contradict one another.
    """
    try:
        return config_class(**values)
    except ValueError as error:
        raise naming(error, folder / CONFIG_FILE) from error


def naming(error: ValueError, path: Path) -> ValueError:
    """Name the whole path in an error about values of a config.json, which says `config.json` alone.

    Args:
        error: about them.
        path: of the file.

    Returns:
        The error to raise.
    """
    said = str(error)
    return ValueError(f"{path}{said.removeprefix(CONFIG_FILE)}") if said.startswith(f"{CONFIG_FILE}:") else error


def vocab_size_of(values: Mapping[str, Any]) -> int | None:
    """Tell how many tokens the model of a config.json has rows for; None where the file leaves it to the family.

    Args:
        values: of the file; later writers nest the language model's in `text_config`.

    Returns:
        The rows of its embedding.
    """
    return section(values, "text_config").get("vocab_size") or values.get("vocab_size")


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


def dtype_key(values: Mapping[str, Any]) -> str:
    """Name the key that says what is stored, as the config.json's writer calls it."""
    return "dtype" if "dtype" in values else "torch_dtype"
