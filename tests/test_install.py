"""What a user gets from `pip install`: the declared packages, their pins, and all files of the package."""

from __future__ import annotations

import ast
import re
import runpy
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import paddlemix

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "paddlemix"
SETUP = runpy.run_path(str(ROOT / "setup.py"), run_name="setup")
LIBRARY_REQUIREMENTS = [Requirement(text) for text in SETUP["INSTALL_REQUIRES"] + SETUP["EXTRAS_REQUIRE"]["cpu"]]
# paddlepaddle-gpu is not on PyPI, so no list of PyPI's packages can pin it.
PINNED_REQUIREMENTS = [
    *LIBRARY_REQUIREMENTS,
    *map(Requirement, SETUP["FOR_PADDLENLP"] + SETUP["EXTRAS_REQUIRE"]["web"] + SETUP["EXTRAS_REQUIRE"]["dev"]),
]


def read_pins(python: str) -> dict[str, str]:
    """Package -> version in constraints.txt for one Python, such as "3.10"."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    requirements = [Requirement(line) for line in lines if line and not line.startswith("#")]
    chosen = [one for one in requirements if one.marker is None or one.marker.evaluate({"python_version": python})]
    names = [canonicalize_name(one.name) for one in chosen]
    assert len(set(names)) == len(names), "a package is pinned twice"
    return {name: str(one.specifier).removeprefix("==") for name, one in zip(names, chosen, strict=True)}


def imported_packages(path: Path) -> set[str]:
    """First parts of the names that a source file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12"])
def test_every_requirement_has_a_pin_that_satisfies_it(python):
    pins = read_pins(python)
    for requirement in PINNED_REQUIREMENTS:
        pin = pins[canonicalize_name(requirement.name)]
        assert pin in requirement.specifier, f"{requirement} is pinned to {pin} for Python {python}"


def test_paddle_for_gpus_is_of_the_versions_that_hold_and_so_is_what_every_page_installs():
    (gpu,) = map(Requirement, SETUP["EXTRAS_REQUIRE"]["gpu"])
    holds = {version: version in gpu.specifier for version in ("3.1.0", "3.2.2", "3.3.0", "3.3.1", "3.3.2", "3.4.0")}
    assert holds == {"3.1.0": False, "3.2.2": False, "3.3.0": False, "3.3.1": True, "3.3.2": True, "3.4.0": False}
    pages = [ROOT / "README.md", ROOT / "external_ops" / "setup.py", *(ROOT / "docs").glob("*.md")]
    told = re.findall(r"paddlepaddle(?:-gpu)?==([\d.]+)", "".join(page.read_text("utf-8") for page in pages))
    assert len(told) >= 2 and all(version in gpu.specifier for version in told), told


def test_the_readme_and_the_page_of_gpus_build_the_ops_and_ask_the_doctor():
    for page in ("README.md", "docs/gpu.md"):
        text = (ROOT / page).read_text("utf-8")
        steps = "paddlepaddle-gpu==", "onednn-devel==", "python setup.py install", "python -m paddlemix.doctor"
        places = [text.index(step) for step in steps]
        assert places == sorted(places), page
    assert "bug report begins with it" in (ROOT / "README.md").read_text("utf-8")


def test_every_package_that_the_code_imports_is_required():
    required = {canonicalize_name(one.name) for one in LIBRARY_REQUIREMENTS}
    distributions = packages_distributions()
    outside = set().union(*map(imported_packages, PACKAGE.rglob("*.py"))) - sys.stdlib_module_names - {"paddlemix"}
    assert "numpy" in outside
    missing = {
        name
        for name in outside
        if required.isdisjoint(canonicalize_name(owner) for owner in distributions.get(name, [name]))
    }
    assert not missing, "imported, but not required by setup.py"


def test_every_module_imports_in_silence():
    paths = [path.relative_to(ROOT).with_suffix("") for path in sorted(PACKAGE.rglob("*.py"))]
    names = [".".join(path.parts).removesuffix(".__init__") for path in paths]
    assert len(names) > 20
    code = f"import importlib\nfor name in {names}: importlib.import_module(name)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_an_installed_copy_holds_every_module_and_config(tmp_path):
    command = [
        sys.executable,
        "setup.py",
        "-q",
        "egg_info",
        "--egg-base",
        str(tmp_path),
        "build_py",
        "-d",
        str(tmp_path),
    ]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    wanted = {path.relative_to(ROOT) for pattern in ("**/*.py", "config/**/*.json") for path in PACKAGE.glob(pattern)}
    assert len(wanted) > 20
    assert wanted <= {path.relative_to(tmp_path) for path in tmp_path.rglob("*")}


def test_setup_and_package_state_the_same_version():
    assert SETUP["read_version"]() == paddlemix.__version__
    assert re.fullmatch(r"\d+\.\d+\.\d+", paddlemix.__version__)


def test_the_license_is_apache_2_in_full():
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License\n                           Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text
