"""Makes `.venv` with the package and its fused ops in it, or brings it up to date; does nothing where all is there.

A stamp inside `.venv` says what it was made from. It is taken away before anything is installed and written last, so an
interrupted installation has none and is started over. This runs on Python 3.6 too, if only to refuse it in words.
"""

import hashlib
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, List

from check_machine import find_problems
from pip_progress import read_log, run_pip

EXTRAS = "cpu,dev"
PINS = "constraints.txt"
INPUTS = ("setup.py", PINS)
STAMP = "stamp.json"
# The fused CPU ops are built apart, and again when their sources change.
OPS = "external_ops"
OPS_STAMP = "ops.json"
OPS_HEADERS = "onednn-devel"


def wanted_stamp(root: Path) -> dict:
    """What an environment made now, in this folder by this Python, is made from."""
    digest = hashlib.sha256(b"\0".join((root / name).read_bytes() for name in INPUTS))
    return {"folder": str(root), "python": list(sys.version_info[:2]), "inputs": digest.hexdigest()}


def read_stamp(venv: Path) -> dict:
    """The stamp of a finished environment; empty where there is none, or where its Python is gone."""
    path = venv / STAMP
    if not path.is_file() or not (venv / "bin" / "python").exists():
        return {}
    return json.loads(path.read_text(encoding="utf-8"))


def next_step(wanted: dict, found: dict) -> str:
    """Either "nothing", "update" (other requirements) or "create" (another folder or Python, or no stamp)."""
    if found == wanted:
        return "nothing"
    same_place = all(found.get(key) == wanted[key] for key in ("folder", "python"))
    return "update" if same_place else "create"


def create(venv: Path) -> None:
    """Make an empty environment in place of whatever was there, or exit with what the machine lacks."""
    problems = find_problems(str(venv.parent))
    if problems:
        sys.exit("\n".join(problems))
    import venv as environments  # not at the top: where it is missing, find_problems has just said so

    if venv.exists():
        print("Removing .venv, which is unfinished or was made for another folder or Python", flush=True)
        shutil.rmtree(str(venv))
    print("Creating .venv with Python {}.{}".format(*sys.version_info[:2]), flush=True)
    environments.create(str(venv), with_pip=True, symlinks=True)


def install(venv: Path) -> None:
    """Install the package in place, with its extras, at the versions of constraints.txt."""
    target = f".[{EXTRAS}]"
    print(f"Installing {target} into .venv (2 GB, a few minutes; details in .venv/pip.log)", flush=True)
    began = time.monotonic()
    # Each Python brings another pip; one and the same for all comes first. It lets packages be built with pinned tools.
    pip(["install", "-c", PINS, "pip"], venv)
    pip(["install", "--progress-bar", "off", "-e", target, "-c", PINS, "--build-constraint", PINS], venv)
    print(f"Installed in {time.monotonic() - began:.0f} s", flush=True)


def ops_digest(root: Path) -> str:
    """What the fused ops are built from."""
    ignored = (root / OPS / "build", root / OPS / "tests")
    files = [path for path in sorted((root / OPS).rglob("*")) if path.is_file() and path.suffix != ".pyc"]
    kept = [path for path in files if not any(folder in path.parents for folder in ignored)]
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in [*kept, root / PINS])).hexdigest()


def install_ops(root: Path, venv: Path) -> None:
    """Build the fused CPU ops into the environment, or say why they are missing: models run without them, slower."""
    stamp, digest = venv / OPS_STAMP, ops_digest(root)
    if stamp.is_file() and json.loads(stamp.read_text(encoding="utf-8")) == digest:
        return
    print(f"Building {OPS} into .venv (half a minute, or seconds by ccache; details in .venv/ops.log)", flush=True)
    began, python = time.monotonic(), str(venv / "bin" / "python")
    with (venv / "ops.log").open("w", encoding="utf-8") as log:
        # Without what they depend on: the headers are for the library that Paddle brings.
        headers = [python, "-m", "pip", "install", "--no-deps", "-c", PINS, OPS_HEADERS]
        build = [python, "setup.py", "build_ext", "--force", "install"]
        failed = run_logged(headers, root, log) or run_logged(build, root / OPS, log)
    if failed:
        words = (venv / "ops.log").read_text(encoding="utf-8", errors="replace").splitlines()
        print("\n".join(words[-5:]), file=sys.stderr)
        print(f"{OPS} could not be built, its last words are above: models run without it, slower", file=sys.stderr)
        return
    stamp.write_text(json.dumps(digest), encoding="utf-8")
    print(f"Built in {time.monotonic() - began:.0f} s", flush=True)


def run_logged(command: List[str], folder: Path, log: IO[str]) -> int:
    """Run a command with its output in a log; its status."""
    return subprocess.run(command, cwd=str(folder), stdout=log, stderr=subprocess.STDOUT).returncode


def pip(arguments: List[str], venv: Path) -> None:
    """Run pip, or exit with its last words."""
    status = run_pip(arguments, venv)
    if status != 0:
        print("\n".join(read_log(venv).splitlines()[-20:]), file=sys.stderr)
        sys.exit(f"pip ended with status {status}, its last lines are above: mend what they name, then run this again")


def main() -> None:
    root = Path(__file__).resolve().parent.parent
    venv = root / ".venv"
    wanted = wanted_stamp(root)
    step = next_step(wanted, read_stamp(venv))
    if step != "nothing":
        bring_up_to_date(venv, wanted, step)
    install_ops(root, venv)
    if step != "nothing":
        print(".venv is ready: source .venv/bin/activate", flush=True)


def bring_up_to_date(venv: Path, wanted: dict, step: str) -> None:
    """Take the step, and write the stamp when it is done."""
    if step == "create":
        create(venv)
    else:
        (venv / STAMP).unlink()
    install(venv)
    (venv / STAMP).write_text(json.dumps(wanted), encoding="utf-8")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("Interrupted: the next run starts over")
