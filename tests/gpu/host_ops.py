"""The ops for CUDA as a library that Paddle's CPU build can load: its bindings, and kernels compiled for the host."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import paddle

ROOT = Path(__file__).parents[2]
OPS, PADDLE = ROOT / "external_ops", Path(paddle.__file__).parent
# A CPU build of Paddle knows no streams; the kernels on the host need none.
NO_STREAM = """
#include "paddle/phi/api/all.h"
#include "paddle/phi/api/ext/op_meta_info.h"
namespace paddle { gpuStream_t Tensor::stream() const { return nullptr; } }
"""


def reason_not_to() -> str:
    """Say why the library cannot be made here; "" where it can."""
    if shutil.which("g++") is None:
        return "no g++ to compile the CUDA ops for the host with"
    if not any((folder / "cuda_runtime.h").is_file() for folder in _cuda_includes()):
        return "no headers of a CUDA toolkit to compile Paddle's bindings with"
    return ""


def make(folder: Path) -> Path:
    """Compile the library, unless it is there.

    Args:
        folder: to write into.

    Returns:
        The library.
    """
    made = folder / "cuda_ops_on_host.so"
    if made.exists():
        return made
    (folder / "no_stream.cc").write_text(NO_STREAM)
    bindings = [*sorted((OPS / "cuda").glob("bind_*.cc")), folder / "no_stream.cc"]
    includes = [OPS / "include", OPS / "cuda", PADDLE / "include", PADDLE / "include/third_party", *_cuda_includes()]
    compiler, objects = ["g++", "-std=c++17", "-w", "-fPIC", "-c"], []
    shim = ["-O1", "-fvisibility=hidden", "-x", "c++", f"-I{OPS / 'tests/cuda_host'}"]
    jobs = [(OPS / "cuda/c_api.cu", shim)]
    jobs += [(source, ["-O0", "-DPADDLE_WITH_CUDA", *(f"-I{path}" for path in includes)]) for source in bindings]
    for source, flags in jobs:
        objects.append(folder / f"{source.stem}.o")
        subprocess.run([*compiler, *flags, str(source), "-o", str(objects[-1])], check=True)
    libraries = [PADDLE / "libs" / name for name in ("libphi.so", "libphi_core.so", "libcommon.so")]
    linked = folder / "linked.so"
    subprocess.run(["g++", "-shared", *map(str, (*objects, *libraries)), "-o", str(linked)], check=True)
    linked.rename(made)
    return made


def _cuda_includes() -> list[Path]:
    toolkit = _setup().cuda_toolkit()
    return [] if toolkit is None else toolkit.includes


def _setup() -> ModuleType:
    spec = importlib.util.spec_from_file_location("external_ops_setup", OPS / "setup.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
