"""A config file, read by its name's ending."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic.fields import FieldInfo

from paddlemix.configuration.reading.json_file import JsonFile
from paddlemix.configuration.reading.source import Source
from paddlemix.configuration.reading.yaml_file import YamlFile

_YAML_ENDINGS = (".yaml", ".yml")


def read_config_file(path: str, known: Mapping[str, FieldInfo]) -> Source:
    """Read a config file: YAML where its name ends in .yaml or .yml, else JSON.

    Args:
        path: the file.
        known: the keys that may stand in it.

    Returns:
        Its raw values, which know their lines.

    Raises:
        ConfigError: it cannot be read, or holds no keys.
    """
    return YamlFile(path, known) if _ending(path) in _YAML_ENDINGS else JsonFile(path)


def is_config_file(name: str) -> bool:
    """Tell whether a name is one of a config file, and not of a model."""
    return _ending(name) in (".json", *_YAML_ENDINGS)


def _ending(name: str) -> str:
    return Path(name).suffix.lower()
