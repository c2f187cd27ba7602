"""What tests of the card that is not there share."""

from __future__ import annotations

import fcntl
import os

import pytest

from . import host_ops


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The ops for CUDA, compiled for the host, once for all of pytest's processes; "-" where they cannot be."""
    if host_ops.reason_not_to():
        return "-"
    folder = tmp_path_factory.getbasetemp()
    folder = (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "cuda_ops_on_host"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return str(host_ops.make(folder))
