"""The processor, its threads and memory, and the settings of the process."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

import psutil

from paddlemix._environment import AVX512, THREAD_VARIABLES, read_cpuinfo, usable_cores
from paddlemix.doctor.finding import Finding

_GIB = 1 << 30
# What a limit of the container is written to, in either version of control groups.
_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
# Settings that change what runs compute, or how fast; none of them is a secret.
_SETTINGS = re.compile(r"(PADDLEMIX|FLAGS|NCCL|KMP|MKL|OMP|GLOG)_\w+|CUDA_VISIBLE_DEVICES|LD_PRELOAD")


def check_processor(cpuinfo: str | None = None) -> Finding:
    """Look at the processor and the threads that compute on it.

    Args:
        cpuinfo: the text of /proc/cpuinfo; None reads it.

    Returns:
        What was found.
    """
    text = read_cpuinfo() if cpuinfo is None else cpuinfo
    name = re.search(r"^model name\s*: (.+)$", text, re.MULTILINE)
    flags, cores = set(text.split()), usable_cores()
    widest = "AVX-512" if flags >= AVX512 else "AVX2" if "avx2" in flags else "no AVX2"
    threads = next((os.environ[one] for one in THREAD_VARIABLES if os.environ.get(one)), "")
    found = f"{name[1].strip() if name else platform.machine()}, {widest}, {cores} cores, {threads or 1} threads"
    if text and platform.machine() == "x86_64" and "avx" not in flags:
        return Finding("processor", found, "Paddle's wheels need AVX: use another machine.", stops=True)
    if threads.isdigit() and int(threads) > cores:
        names = " and ".join(one for one in THREAD_VARIABLES if os.environ.get(one) == threads)
        return Finding("processor", found, f"More threads than cores wait for one another: unset {names}.")
    return Finding("processor", found)


def check_memory() -> Finding:
    """Look at the machine's memory, and at a container's limit."""
    memory = psutil.virtual_memory()
    limit = min((one for one in map(_limit, _LIMITS) if one), default=memory.total)
    limited = f", of which this container may use {limit / _GIB:.1f}" if limit < memory.total else ""
    found = f"{memory.total / _GIB:.1f} GiB{limited}; {memory.available / _GIB:.1f} are free"
    small = min(limit, memory.available) < _GIB
    return Finding("memory", found, "End other programs: importing Paddle alone takes 0.6 GiB." if small else "")


def _limit(path: Path) -> int | None:
    if not path.is_file():
        return None
    text = path.read_text(encoding="ascii").strip()
    return int(text) if text.isdigit() else None


def check_settings() -> Finding:
    """List the environment variables that change what runs compute."""
    found = [f"{name}={value}" for name, value in sorted(os.environ.items()) if _SETTINGS.fullmatch(name)]
    return Finding("settings", ", ".join(found) or "none")
