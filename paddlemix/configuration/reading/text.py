"""The text of a config file, and what every config has to hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from paddlemix.configuration.problems import ConfigError, Place, Problem
from paddlemix.configuration.reading.strict_json import short


def read_text(path: str) -> str:
    """Read a config file.

    Args:
        path: the file.

    Returns:
        What it holds, without a byte order mark.

    Raises:
        ConfigError: it cannot be read, or is not UTF-8.
    """
    try:
        return Path(path).read_bytes().decode("utf-8-sig")
    except OSError as error:
        text = f"cannot be read: {error.strerror}. Expected the path of a config, in JSON or YAML."
    except UnicodeDecodeError as error:
        text = f"is not UTF-8: byte {error.start} is wrong. Save it as UTF-8."
    raise ConfigError([Problem(Place(path), text)])


def required_object(document: Any, path: str, shape: str) -> dict[str, Any]:
    """Refuse a document that holds no keys.

    Args:
        document: parsed.
        path: its file.
        shape: how an object is written there.

    Returns:
        The document.

    Raises:
        ConfigError: it is no object.
    """
    if not isinstance(document, dict):
        raise ConfigError([Problem(Place(path, 1), f"holds {short(document)}; expected an object: {shape}.")])
    return document
