"""What the build of the fused ops looks for, and says where it is missing; CUDA toolkits are shell scripts here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SETUP = Path(__file__).parents[2] / "external_ops" / "setup.py"
LAYOUT = "targets/x86_64-linux"


def run_setup(folder, **variables):
    """Start a build that finds something missing before it compiles."""
    environment = {**os.environ, **variables}
    command = [sys.executable, str(SETUP), "build_ext", "--build-lib", str(folder), "--build-temp", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def script(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def toolkit(folder, version, headers=("cuda_runtime.h", "cublas_v2.h")):
    """Make a toolkit whose nvcc answers what the build asks, in the words of the real one (12.6 and 13.0)."""
    include, libraries = folder / LAYOUT / "include", folder / LAYOUT / "lib"
    (include / "cccl").mkdir(parents=True)
    libraries.mkdir()
    for name in headers:
        (include / name).write_text("")
    top = f"{folder}/bin/.."
    script(
        folder / "bin" / "nvcc",
        f'if [ "$1" = --version ]; then echo "Cuda compilation tools, release {version}, V{version}.88"; exit; fi\n'
        f"echo '#$ TOP={top}' >&2\n"
        f"echo '#$ INCLUDES=\"-I{top}/{LAYOUT}/include\"  ' >&2\n"
        f'echo \'#$ LIBRARIES=  "-L{top}/{LAYOUT}/lib/stubs" "-L{top}/{LAYOUT}/lib"\' >&2',
    )
    return folder


def wrapper(folder, of):
    """Make an nvcc that is a script which calls another, in a folder of its own."""
    return script(folder / "bin" / "nvcc", f'exec {of}/bin/nvcc "$@"').parent


@pytest.fixture
def on_path(monkeypatch):
    def put(folder):
        monkeypatch.delenv("CUDA_HOME", raising=False)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    return put


def test_a_build_that_lacks_something_ends_with_a_status_and_names_it(tmp_path):
    done = run_setup(tmp_path, CXX="no-such-compiler")
    assert done.returncode == 1
    assert "cannot be built" in done.stderr and "no C++ compiler no-such-compiler" in done.stderr
    assert not list(tmp_path.iterdir())


def test_an_nvcc_that_is_a_script_is_asked_for_its_toolkit(build, tmp_path, on_path):
    real = toolkit(tmp_path / "cuda-12.6", "12.6")
    on_path(wrapper(tmp_path / "local", real))
    found = build.cuda_toolkit()
    assert found.version == "12.6" and found.nvcc == tmp_path / "local/bin/nvcc"
    assert found.includes == [real / LAYOUT / "include", real / LAYOUT / "include/cccl"]
    assert found.libraries == [real / LAYOUT / "lib"]
    assert build.find_cuda_problems("12.9") == []


def test_the_ops_are_compiled_and_linked_with_what_nvcc_says(build, tmp_path, on_path, monkeypatch):
    real = toolkit(tmp_path / "cuda-12.6", "12.6")
    on_path(wrapper(tmp_path / "local", real))
    monkeypatch.chdir(SETUP.parent)
    library = build.cuda_library()
    assert str(real / LAYOUT / "include") in library.include_dirs
    assert f"-L{real / LAYOUT / 'lib'}" in library.extra_link_args


def test_a_linked_toolkit_named_in_cuda_home_comes_first(build, tmp_path, on_path, monkeypatch):
    on_path(toolkit(tmp_path / "on_path", "11.8") / "bin")
    (tmp_path / "cuda").symlink_to(toolkit(tmp_path / "cuda-12.6", "12.6"))
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "cuda"))
    found = build.cuda_toolkit()
    assert found.version == "12.6" and found.includes[0] == tmp_path / "cuda-12.6" / LAYOUT / "include"


@pytest.mark.parametrize(("has", "wanted"), [("13.0", "12.6"), ("11.8", "12.6"), ("12.9", "13.0")])
def test_a_toolkit_of_another_cuda_than_paddles_is_refused_with_both_and_the_way_out(
    build, tmp_path, on_path, has, wanted
):
    on_path(toolkit(tmp_path / "cuda", has) / "bin")
    (problem,) = build.find_cuda_problems(wanted)
    assert f"is of CUDA {has}, but Paddle is built for CUDA {wanted}" in problem
    assert f"toolkit of CUDA {wanted[:2]} in CUDA_HOME" in problem and f"built for CUDA {has[:2]}" in problem


def test_an_nvcc_that_does_not_run_is_named(build, tmp_path, on_path):
    on_path(script(tmp_path / "bin" / "nvcc", "exit 3").parent)
    (problem,) = build.find_cuda_problems("12.6")
    assert f"{tmp_path / 'bin/nvcc'} does not say its version" in problem and "CUDA_HOME" in problem


def test_headers_that_neither_the_toolkit_nor_the_system_has_are_named(build, tmp_path, on_path, monkeypatch):
    on_path(toolkit(tmp_path / "cuda", "12.6", headers=["cuda_runtime.h"]) / "bin")
    monkeypatch.setattr(build, "SYSTEM_HEADERS", tmp_path)
    (problem,) = build.find_cuda_problems("12.6")
    assert "lacks cublas_v2.h" in problem and str(tmp_path / "cuda") in problem
    (tmp_path / "cublas_v2.h").write_text("")
    assert build.find_cuda_problems("12.6") == []


def test_a_paddle_for_cuda_without_a_toolkit_is_told_which_one(build, monkeypatch):
    monkeypatch.setattr(build, "cuda_toolkit", lambda: None)
    (problem,) = build.find_cuda_problems("12.6")
    assert "built for CUDA 12.6, but there is no nvcc: install the toolkit of CUDA 12" in problem


def test_the_build_of_a_paddle_for_gpus_ends_with_the_toolkits_problem(tmp_path):
    paddle = tmp_path / "site" / "paddle"
    (paddle / "version").mkdir(parents=True)
    (paddle / "__init__.py").write_text("")
    (paddle / "version" / "__init__.py").write_text("full_version     = '3.3.1'\ncuda_version     = '12.6'\n")
    home = toolkit(tmp_path / "cuda", "13.0")
    done = run_setup(tmp_path / "out", PYTHONPATH=str(tmp_path / "site"), CUDA_HOME=str(home))
    assert done.returncode == 1 and "cannot be built" in done.stderr
    assert "is of CUDA 13.0, but Paddle is built for CUDA 12.6" in done.stderr


def test_what_a_build_says_of_its_code_is_what_nvcc_is_asked_for(build):
    words = " ".join(build.CUDA_TARGETS)
    assert all(word in words for word in build.CUDA_CODE.split())
    assert set(build.CUDA_CODE.split()) == {
        word for target in build.CUDA_TARGETS for word in target.partition("code=")[2].strip("[]").split(",")
    }
