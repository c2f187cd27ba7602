"""Says, one sentence each, what this machine lacks to install the package and run the demo.

It runs on every Python from 3.6 on, so that one that is too old is told so in words; hence no newer syntax here.
"""

import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
from typing import List, Mapping

LOWEST = (3, 10)
HIGHEST = (3, 12)
NEEDED_GB = 4  # 2 GB installed, 1 GB of downloads in pip's cache, the demo's files, and some air
COMPILERS = ("g++", "c++", "clang++")


def python_problem(version: tuple, executable: str) -> str:
    """The sentence about a Python that the package does not run on, or ""."""
    if LOWEST <= version[:2] <= HIGHEST:
        return ""
    return (
        f"{executable} is Python {version[0]}.{version[1]}, but 3.10, 3.11 or 3.12 is needed: "
        "install one, or name it: make PYTHON=/path/to/python3.11"
    )


def venv_problem(executable: str) -> str:
    """The sentence about a Python that cannot make environments, or ""."""
    missing = [name for name in ("venv", "ensurepip") if importlib.util.find_spec(name) is None]
    if not missing:
        return ""
    package = "python{}.{}-venv".format(*sys.version_info[:2])
    modules = " and no ".join(missing)
    return f"{executable} has no module {modules}: install it (on Debian and Ubuntu: apt install {package})"


def runs(command: List[str]) -> bool:
    """Whether the command can be started and reports success."""
    try:
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    except OSError:
        return False
    return done.returncode == 0


def compiler_problem(environ: Mapping[str, str]) -> str:
    """The sentence about a missing C++ compiler, or "". Where CXX names one, no other counts."""
    named = environ.get("CXX", "")
    if any(runs([*shlex.split(name), "--version"]) for name in ([named] if named else COMPILERS)):
        return ""
    tried = f"CXX={named}" if named else ", ".join(COMPILERS)
    return (
        f"No C++ compiler runs (tried {tried}): install one (on Debian and Ubuntu: apt install g++), or name it in CXX"
    )


def disk_problem(folder: str, free_bytes: int) -> str:
    """The sentence about a disk without room, or ""."""
    if free_bytes >= NEEDED_GB * 1e9:
        return ""
    return f"{free_bytes / 1e9:.1f} GB are free on the disk of {folder}, but {NEEDED_GB} GB are needed: make room there"


def find_problems(folder: str) -> List[str]:
    """All sentences about what is missing; none on a machine that will do."""
    sentences = (
        python_problem(sys.version_info, sys.executable),
        venv_problem(sys.executable),
        compiler_problem(os.environ),
        disk_problem(folder, shutil.disk_usage(folder).free),
    )
    return [sentence for sentence in sentences if sentence]


if __name__ == "__main__":
    sys.exit("\n".join(find_problems(os.getcwd())) or 0)
