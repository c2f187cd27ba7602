"""Python, packages and Paddle's build."""

from __future__ import annotations

import runpy
import sys
from importlib import metadata
from pathlib import Path

import paddle
import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from paddlemix.doctor import installed

ROOT = Path(__file__).parents[2]
SETUP = runpy.run_path(str(ROOT / "setup.py"), run_name="setup")


def test_the_versions_are_those_of_setup_py():
    (gpu,) = map(Requirement, SETUP["EXTRAS_REQUIRE"]["gpu"])
    low, high = (".".join(map(str, one)) for one in installed.PADDLES)
    assert gpu.specifier == SpecifierSet(f">={low},<{high}")
    low, high = (".".join(map(str, one)) for one in installed.PYTHONS)
    assert f'python_requires=">={low},<{high}"' in (ROOT / "setup.py").read_text("utf-8")
    assert installed.CPU_PADDLE.endswith(SETUP["EXTRAS_REQUIRE"]["cpu"][0])
    assert installed.GPU_PADDLE in (ROOT / "README.md").read_text("utf-8")


@pytest.mark.parametrize(("version", "fits"), [((3, 9), False), ((3, 10), True), ((3, 12), True), ((3, 13), False)])
def test_a_python_that_packages_are_not_there_for_stops(monkeypatch, version, fits):
    monkeypatch.setattr(sys, "version_info", (*version, 1, "final", 0))
    assert installed.check_python().stops is not fits


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(metadata, "requires", lambda name: ["numpy<2", "no-such-package>=1", 'other; extra == "dev"'])
    found = installed.check_packages()
    assert found.stops and "without no-such-package" in found.found and "other" not in found.found


def test_numpy_2_stops(monkeypatch):
    monkeypatch.setattr(installed, "required", list)
    monkeypatch.setattr(installed, "version_of", lambda name: "2.1.0" if name == "numpy" else "1")
    assert installed.check_packages().stops


@pytest.mark.parametrize(
    ("version", "fits"), [("3.1.0", False), ("3.2.2", False), ("3.3.0", False), ("3.3.1", True), ("3.4.0", False)]
)
def test_a_paddle_of_another_version_stops_with_the_one_to_install(monkeypatch, version, fits):
    monkeypatch.setattr(paddle, "__version__", version)
    monkeypatch.setattr(installed, "version_of", lambda name: version if name == "paddlepaddle-gpu" else None)
    found = installed.check_paddle()
    assert found.stops is not fits and (fits or installed.GPU_PADDLE in found.advice)


def test_no_paddle_and_two_of_them_stop(monkeypatch):
    monkeypatch.setattr(installed, "version_of", lambda name: None)
    assert installed.check_paddle().stops and installed.CPU_PADDLE in installed.check_paddle().advice
    monkeypatch.setattr(installed, "version_of", lambda name: "3.3.1")
    found = installed.check_paddle()
    assert found.stops and "paddlepaddle 3.3.1 and paddlepaddle-gpu 3.3.1" in found.found


def test_a_paddle_that_cannot_be_imported_is_told_with_its_error(monkeypatch, tmp_path):
    (tmp_path / "paddle.py").write_text("raise ImportError('libcudart.so.12: cannot open shared object file')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "paddle")
    found = installed.check_paddle()
    assert found.stops and "cannot be imported: ImportError: libcudart.so.12" in found.found
    assert not installed.paddle_loads()
