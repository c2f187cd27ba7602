"""When `.venv` is made, brought up to date, or left alone."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def make_venv(monkeypatch):
    """The module `scripts/make_venv.py`, which imports its neighbours by their bare names."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import make_venv

    def refuse(command, folder, log):
        raise AssertionError(f"a test would run {command}")

    monkeypatch.setattr(make_venv, "run_logged", refuse)
    return make_venv


@pytest.fixture
def root(tmp_path):
    """A project folder with the files that an environment is made from."""
    (tmp_path / "setup.py").write_text("# setup")
    (tmp_path / "constraints.txt").write_text("numpy==1.26.4")
    (tmp_path / "external_ops").mkdir()
    (tmp_path / "external_ops" / "kernel.cc").write_text("// kernel")
    return tmp_path


def finish(make_venv, root: Path) -> Path:
    """Pretend that an environment was made completely."""
    venv = root / ".venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").symlink_to(sys.executable)
    (venv / make_venv.STAMP).write_text(json.dumps(make_venv.wanted_stamp(root)))
    (venv / make_venv.OPS_STAMP).write_text(json.dumps(make_venv.ops_digest(root)))
    return venv


def step(make_venv, root: Path) -> str:
    return make_venv.next_step(make_venv.wanted_stamp(root), make_venv.read_stamp(root / ".venv"))


def test_a_finished_environment_is_left_alone(make_venv, root):
    finish(make_venv, root)
    assert step(make_venv, root) == "nothing"


def test_no_environment_is_created(make_venv, root):
    assert step(make_venv, root) == "create"


@pytest.mark.parametrize("name", ["setup.py", "constraints.txt"])
def test_changed_requirements_update_the_environment(make_venv, root, name):
    finish(make_venv, root)
    (root / name).write_text("# changed")
    assert step(make_venv, root) == "update"


def test_an_interrupted_installation_is_started_over(make_venv, root):
    (finish(make_venv, root) / make_venv.STAMP).unlink()
    assert step(make_venv, root) == "create"


def test_an_environment_whose_python_is_gone_is_started_over(make_venv, root):
    python = finish(make_venv, root) / "bin" / "python"
    python.unlink()
    python.symlink_to(root / "no-such-python")
    assert step(make_venv, root) == "create"


def test_a_copied_folder_does_not_use_the_environment_of_the_original(make_venv, root, tmp_path_factory):
    finish(make_venv, root)
    copy = tmp_path_factory.mktemp("copy") / "project"
    root.rename(copy)
    assert step(make_venv, copy) == "create"


def test_the_stamp_is_gone_while_packages_are_being_installed(make_venv, root, monkeypatch):
    stamp = finish(make_venv, root) / make_venv.STAMP
    (root / "setup.py").write_text("# changed")
    seen = []
    monkeypatch.setattr(make_venv, "__file__", str(root / "scripts" / "make_venv.py"))
    monkeypatch.setattr(make_venv, "run_pip", lambda arguments, venv: seen.append(stamp.exists()) or 0)
    monkeypatch.setattr(make_venv, "install_ops", lambda root, venv: None)
    make_venv.main()
    assert seen
    assert not any(seen)
    assert step(make_venv, root) == "nothing"


def test_a_failed_installation_ends_with_a_sentence_and_no_stamp(make_venv, root, monkeypatch, capsys):
    venv = finish(make_venv, root)
    (root / "setup.py").write_text("# changed")
    (venv / "pip.log").write_text("ERROR: No matching distribution found for numpy==9\n")
    monkeypatch.setattr(make_venv, "__file__", str(root / "scripts" / "make_venv.py"))
    monkeypatch.setattr(make_venv, "run_pip", lambda arguments, venv: 1)
    with pytest.raises(SystemExit, match="pip ended with status 1"):
        make_venv.main()
    assert "No matching distribution" in capsys.readouterr().err
    assert step(make_venv, root) == "create"


def test_a_machine_that_lacks_something_keeps_the_environment_it_has(make_venv, root, monkeypatch):
    venv = finish(make_venv, root)
    monkeypatch.setattr(make_venv, "find_problems", lambda folder: ["No C++ compiler runs", "The disk is full"])
    with pytest.raises(SystemExit, match="No C.. compiler runs\nThe disk is full"):
        make_venv.create(venv)
    assert (venv / make_venv.STAMP).exists()


@pytest.fixture
def built(make_venv, monkeypatch):
    """A function that builds the ops, the commands failing or not, and gives the commands."""

    def build(root: Path, status: int = 0) -> list[list[str]]:
        commands = []

        def run(command, folder, log):
            log.write("no oneDNN headers\n")
            return commands.append(command[1:]) or status

        monkeypatch.setattr(make_venv, "run_logged", run)
        make_venv.install_ops(root, root / ".venv")
        return commands

    return build


def test_ops_are_built_once_and_again_when_a_source_or_a_pin_changes(make_venv, root, built):
    finish(make_venv, root)
    assert built(root) == []
    for name in ("external_ops/kernel.cc", "constraints.txt"):
        (root / name).write_text("# changed")
        headers, build = built(root)
        assert "--no-deps" in headers and build[0] == "setup.py"
        assert built(root) == []


def test_ops_that_cannot_be_built_are_said_to_be_missing_and_tried_again(make_venv, root, built, capsys):
    finish(make_venv, root)
    (root / "external_ops" / "kernel.cc").write_text("# changed")
    assert built(root, status=1)
    told = capsys.readouterr().err
    assert "no oneDNN headers" in told and "models run without it" in told
    assert built(root)


def test_progress_counts_what_pip_found_and_then_what_it_installed(make_venv):
    from pip_progress import describe

    collecting = "Collecting numpy\n  Downloading numpy.whl\nRequirement already satisfied: pillow in .venv\n"
    assert describe(collecting, unpacked=0) == "found 2 packages"
    planned = collecting + "Installing collected packages: numpy, pillow, tqdm\n"
    assert describe(planned, unpacked=1) == "installed 1 of 3 packages"


@pytest.mark.parametrize("path", sorted(SCRIPTS.glob("*.py")), ids=lambda path: path.name)
def test_scripts_parse_on_a_python_that_is_too_old(path):
    ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 6))


@pytest.fixture
def fake_python(root):
    """A function that makes a command `bin/NAME` that is a real Python, or only fails as a version manager's does."""
    (root / "bin").mkdir()

    def make(name: str, works: bool) -> None:
        command = root / name
        command.parent.mkdir(parents=True, exist_ok=True)
        command.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n' if works else "#!/bin/sh\nexit 127\n")
        command.chmod(0o755)

    return make


def find_python(root: Path) -> subprocess.CompletedProcess:
    command = ["/bin/sh", str(SCRIPTS / "find_python.sh")]
    environ = {**os.environ, "PATH": str(root / "bin")}
    return subprocess.run(command, cwd=root, env=environ, capture_output=True, text=True)


def test_a_python_command_that_only_fails_is_passed_over(root, fake_python):
    fake_python("bin/python3.11", works=False)
    fake_python("bin/python3.12", works=True)
    assert find_python(root).stdout == f"{root}/bin/python3.12\n"


def test_the_python_of_an_environment_that_is_there_stays(root, fake_python):
    fake_python("bin/python3.11", works=True)
    fake_python(".venv/bin/python", works=True)
    assert find_python(root).stdout == ".venv/bin/python\n"


def test_no_python_at_all_ends_with_a_sentence(root, fake_python):
    fake_python("bin/python3.11", works=False)
    done = find_python(root)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("No Python 3.10, 3.11 or 3.12 was found: install one")
