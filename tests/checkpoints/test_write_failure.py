"""Errors of writers, and errors that are none."""

from __future__ import annotations

import errno

import pytest
from safetensors import SafetensorError

from paddlemix.checkpoints.write_failure import write_failure


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        SafetensorError("Error while serializing: I/O error: File too large (os error 27)"),
        Exception("No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_is_known_from_each_library(error: Exception) -> None:
    assert "left on device" in (reason := write_failure(error) or "") or "too large" in reason


@pytest.mark.parametrize("error", [ValueError("bad"), KeyError("os"), Exception("os error 99999")])
def test_other_errors_are_not_taken_for_one(error: Exception) -> None:
    assert write_failure(error) is None
