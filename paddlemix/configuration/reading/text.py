"""The text of a config file, and what every config has to hold."""

from __future__ import annotations

import os
import stat
from typing import Any

from paddlemix.configuration.problems import ConfigError, Place, Problem
from paddlemix.configuration.reading.strict_json import short

# Bytes of the largest config: lists of files and of new tokens, which may lie in files of their own, are shorter.
_MAX_BYTES = 1 << 20


def read_text(path: str) -> str:
    """Read a config file.

    Args:
        path: the file.

    Returns:
        What it holds, without a byte order mark.

    Raises:
        ConfigError: it cannot be read, is larger than any config, or is not UTF-8.
    """
    try:
        _refuse_named_pipe(path)
        with open(path, "rb") as file:  # of a device as much as of a file: it may have no end
            content = file.read(_MAX_BYTES + 1)
        if len(content) <= _MAX_BYTES:
            return content.decode("utf-8-sig")
        text = (
            f"has more than {_MAX_BYTES >> 20} MiB, and no config needs so much. Expected the path of a config, in "
            "JSON or YAML."
        )
    except _NamedPipeError:
        text = "is a named pipe, whose reader may wait for ever. Expected the path of a config, in JSON or YAML."
    except OSError as error:
        text = f"cannot be read: {error.strerror}. Expected the path of a config, in JSON or YAML."
    except UnicodeDecodeError as error:
        text = f"is not UTF-8: byte {error.start} is wrong. Save it as UTF-8."
    raise ConfigError([Problem(Place(path), text)])


class _NamedPipeError(Exception):
    """A pipe that has a name; those of a shell, as `<(...)` makes them, have none, and somebody writes to them."""


def _refuse_named_pipe(path: str) -> None:
    if stat.S_ISFIFO(os.stat(path).st_mode) and os.path.exists(os.path.realpath(path)):
        raise _NamedPipeError


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
