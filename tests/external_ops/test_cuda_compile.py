"""The check that everything of the CUDA ops compiles."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "external_ops" / "cuda" / "check_compile.sh"


def run(**variables):
    environment = {**os.environ, "PYTHON": sys.executable, **variables}
    return subprocess.run(["sh", str(SCRIPT)], capture_output=True, text=True, env=environment)


def test_a_machine_without_nvcc_is_told_what_to_install():
    done = run(NVCC="no-such-nvcc")
    assert done.returncode == 2
    assert "no nvcc" in done.stderr and "nvidia-cuda-nvcc" in done.stderr


def test_a_toolkit_without_cublas_is_told_what_to_install(tmp_path):
    # An nvcc that is only asked where its headers are.
    (tmp_path / "cuda_runtime.h").write_text("")
    nvcc = tmp_path / "nvcc"
    nvcc.write_text(f"#!/bin/sh\necho '#$ INCLUDES=\"-I{tmp_path}\"  ' >&2\n")
    nvcc.chmod(0o755)
    done = run(NVCC=str(nvcc))
    assert done.returncode == 2 and "no cublas_v2.h" in done.stderr


@pytest.mark.skipif(os.environ.get("PADDLEMIX_CHECK_CUDA") != "1", reason="minutes of nvcc: set PADDLEMIX_CHECK_CUDA=1")
@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc on this machine")
def test_kernels_and_bindings_compile_for_both_generations_of_cards():
    done = run()
    assert done.returncode == 0, done.stderr
    assert "compiles for sm_80:" in done.stdout
    assert "compiles for sm_90a:" in done.stdout
    for binding in ("attention", "cross_entropy", "quantized", "rows"):
        assert f"bind_{binding}.cc compiles" in done.stdout
