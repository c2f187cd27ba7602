"""The model families, and which one a checkpoint belongs to: config.json says it, never the folder's name."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from paddlemix.bounded_json import shown
from paddlemix.contract import ModelConfig
from paddlemix.models.config_bounds import NAMES, check_kinds
from paddlemix.models.config_file import naming, read_config
from paddlemix.models.family import Family
from paddlemix.names import CONFIG_FILE
from paddlemix.value_kinds import TEXT

# A new family is its folder, and a line here.
_FOLDERS = (
    "qwen2_vl",
    "qwen2_5_vl",
    "qwen_vl",
)
FAMILIES: tuple[Family, ...] = tuple(import_module(f"paddlemix.models.{name}.family").FAMILY for name in _FOLDERS)


def find_family(folder: Path) -> Family:
    """Find the family of the checkpoint in `folder`.

    Args:
        folder: holds config.json.

    Returns:
        The first family whose architecture it names; where it names none, that of its `model_type`.

    Raises:
        FileNotFoundError: there is no config.json.
        ValueError: it names no family that is known here.
    """
    values = read_config(folder)
    try:
        check_kinds(values, {"architectures": NAMES, "model_type": TEXT})
    except ValueError as error:
        raise naming(error, folder / CONFIG_FILE) from error
    architectures, model_type = values.get("architectures") or [], values.get("model_type")
    for family in FAMILIES:
        if family.architecture in architectures or (not architectures and family.model_type == model_type):
            return family
    whole = next((one.architecture for one in FAMILIES if model_type in (one.model_type, *_parts_of(one))), None)
    way_out = f" Give a whole {whole}, saved with that class; this is a part of one, or has another head."
    known = ", ".join(f"{family.architecture} ({family.model_type})" for family in FAMILIES)
    raise ValueError(
        f"{folder / CONFIG_FILE}: `architectures` {shown(architectures)} and `model_type` {shown(model_type)} name no "
        f"model known here. Known: {known}.{way_out if whole else ''}"
    )


def _parts_of(family: Family) -> tuple[str, ...]:
    """Name the `model_type`s that transformers gives to parts of a family's models that are saved alone."""
    return f"{family.model_type}_text", f"{family.model_type}_vision"


def family_of(config: ModelConfig) -> Family:
    """Find the family of a model that is loaded.

    Args:
        config: the model's.

    Returns:
        The family of its `model_type`.
    """
    (family,) = (one for one in FAMILIES if one.model_type == config.model_type)
    return family
