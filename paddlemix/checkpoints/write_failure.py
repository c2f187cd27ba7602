"""Recognising a full disk, or one that is read only, whichever library wrote to it."""

from __future__ import annotations

import errno
import re

from safetensors import SafetensorError

# What libraries in Rust (tokenizers, safetensors) say in exceptions whose type says nothing.
_RUST = re.compile(r"os error (\d+)")


def write_failure(error: Exception) -> str | None:
    """Tell why writing failed.

    Args:
        error: that a writer raised.

    Returns:
        The reason; None if the error is not about writing.
    """
    if isinstance(error, (OSError, SafetensorError)):
        return str(error)
    match = _RUST.search(str(error))
    return str(error) if match and int(match[1]) in errno.errorcode else None
