"""The sentences about what a machine lacks."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
check = runpy.run_path(str(SCRIPTS / "check_machine.py"), run_name="check_machine")


@pytest.fixture
def compiler(tmp_path, monkeypatch):
    """A function that puts a compiler on an otherwise empty PATH, with the exit status it has."""
    monkeypatch.setenv("PATH", str(tmp_path))

    def put(name: str, status: int) -> None:
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\nexit {status}\n")
        path.chmod(0o755)

    return put


@pytest.mark.parametrize("version", [(3, 10, 0), (3, 11, 7), (3, 12, 9)])
def test_a_supported_python_is_no_problem(version):
    assert check["python_problem"](version, "python") == ""


@pytest.mark.parametrize(("version", "name"), [((3, 9, 18), "3.9"), ((3, 13, 0), "3.13"), ((2, 7, 18), "2.7")])
def test_another_python_is_named_with_what_to_do(version, name):
    sentence = check["python_problem"](version, "/usr/bin/python")
    assert sentence.startswith(f"/usr/bin/python is Python {name}, but 3.10, 3.11 or 3.12 is needed")
    assert "make PYTHON=" in sentence


def test_no_compiler_is_a_problem(compiler):
    assert "No C++ compiler runs (tried g++, c++, clang++)" in check["compiler_problem"]({})


def test_a_compiler_that_does_not_run_is_a_problem(compiler):
    compiler("g++", status=1)
    assert "No C++ compiler runs" in check["compiler_problem"]({})


def test_one_compiler_that_runs_is_enough(compiler):
    compiler("g++", status=1)
    compiler("clang++", status=0)
    assert check["compiler_problem"]({}) == ""


def test_a_compiler_named_by_the_user_is_the_one_that_counts(compiler):
    compiler("g++", status=0)
    compiler("mine", status=1)
    assert "CXX=mine -O2" in check["compiler_problem"]({"CXX": "mine -O2"})


def test_a_full_disk_is_a_problem():
    assert check["disk_problem"]("/data", int(4e9)) == ""
    assert check["disk_problem"]("/data", int(3.9e9)).startswith("3.9 GB are free on the disk of /data, but 4 GB")


def test_a_python_without_ensurepip_is_a_problem(monkeypatch):
    assert check["venv_problem"]("/usr/bin/python3") == ""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "ensurepip" else object())
    assert check["venv_problem"]("/usr/bin/python3").startswith("/usr/bin/python3 has no module ensurepip: install it")
