"""Python, the packages, and Paddle's build."""

from __future__ import annotations

import platform
import re
import sys
from importlib import metadata

from paddlemix import __version__
from paddlemix.doctor.finding import Finding

# As `setup.py` has them.
PYTHONS = (3, 10), (3, 13)
PADDLES = (3, 3, 1), (3, 4)
# What bug reports turn on, beside Paddle.
_SHOWN = ("paddlenlp", "numpy", "pillow", "tokenizers", "safetensors", "huggingface-hub")
CPU_PADDLE = "pip install paddlepaddle==3.3.1"
GPU_PADDLE = "pip install paddlepaddle-gpu==3.3.1 -i https://www.paddlepaddle.org.cn/packages/stable/cu126/"


def check_python() -> Finding:
    """Look at Python and the system."""
    found = f"{platform.python_version()}, {platform.system()} {platform.release()} {platform.machine()}; paddlemix "
    fits = PYTHONS[0] <= sys.version_info[:2] < PYTHONS[1]
    advice = "" if fits else "Use Python 3.10, 3.11 or 3.12, which all packages that paddlemix needs are there for."
    return Finding("Python", found + __version__, advice, stops=not fits)


def check_packages() -> Finding:
    """Look for the packages that paddlemix was installed with."""
    shown = ", ".join(f"{name} {found}" for name in _SHOWN if (found := version_of(name)))
    missing = [name for name in required() if version_of(name) is None]
    if missing:
        return Finding(
            "packages", f"{shown}; without {', '.join(missing)}", "pip install -e . -c constraints.txt", stops=True
        )
    if (version_of("numpy") or "").startswith("2"):
        return Finding("packages", shown, 'NumPy 2 breaks PaddleNLP: pip install "numpy<2".', stops=True)
    return Finding("packages", shown)


def required() -> list[str]:
    """List the packages that the installed paddlemix requires; none where it was not installed, but is on the path."""
    try:
        wanted = metadata.requires("paddlemix") or []
    except metadata.PackageNotFoundError:
        return []
    return [found[0] for one in wanted if "extra ==" not in one and (found := re.match(r"[\w.-]+", one))]


def version_of(package: str) -> str | None:
    """Find the version of an installed package, without importing it."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def check_paddle() -> Finding:
    """Look at Paddle's version and what it was built for; loads it."""
    there = {name: found for name in ("paddlepaddle", "paddlepaddle-gpu") if (found := version_of(name))}
    names = " and ".join(f"{name} {found}" for name, found in there.items())
    if not there:
        return Finding("Paddle", "not installed", f"{CPU_PADDLE}, or on a GPU: {GPU_PADDLE}", stops=True)
    try:
        import paddle
    except Exception as error:  # of a library that is missing, or anything in Paddle
        advice = f"Install it again: pip uninstall {' '.join(there)}, then {CPU_PADDLE}, or on a GPU: {GPU_PADDLE}"
        return Finding("Paddle", f"{names} cannot be imported: {type(error).__name__}: {error}", advice, stops=True)
    built = f"built for CUDA {paddle.version.cuda()}" if paddle.is_compiled_with_cuda() else "built for the CPU"
    found = f"{paddle.__version__}, {built}"
    if len(there) > 1:
        advice = "Each overwrites files of the other: uninstall both, and install one of them again."
        return Finding("Paddle", f"{found}; installed are {names}", advice, stops=True)
    if not PADDLES[0] <= _numbers(paddle.__version__) < PADDLES[1]:
        wanted = GPU_PADDLE if "paddlepaddle-gpu" in there else CPU_PADDLE
        return Finding("Paddle", found, f"paddlemix runs with 3.3.1 and later ones of 3.3: {wanted}", stops=True)
    return Finding("Paddle", found)


def paddle_loads() -> bool:
    """Tell whether Paddle can be imported."""
    try:
        import paddle  # noqa: F401
    except Exception:
        return False
    return True


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])
