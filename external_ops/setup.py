"""Builds and installs the fused CPU ops of `paddlemix` for the Paddle of this Python: `python setup.py install`.

Two libraries: the ops on tensors, which call Paddle, and the ops on pictures, which data workers load without it.

Needs a C++17 compiler with OpenMP, Paddle's CPU wheel, which brings oneDNN as a library, and oneDNN's headers:
`pip install --no-deps onednn-devel==2025.0.0`. Says what is missing, and ends with a status that is not 0, where it is.
"""

import json
import os
import re
import shlex
import shutil
import sys
import sysconfig
from importlib import metadata, util
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.install import install

HERE = Path(__file__).resolve().parent
PACKAGE = "paddlemix_external_ops"
CPU, PICTURES = f"{PACKAGE}._cpu", f"{PACKAGE}._pictures"
ONEDNN_HEADERS = "onednn-devel==2025.0.0"
COMPILE_ARGUMENTS = ["-std=c++17", "-O3", "-fvisibility=hidden", "-g0", "-w"]
# The parts of Paddle's wheel that the ops call. They are in the process already when the ops are loaded.
PADDLE_LIBRARIES = ("libdnnl.so.3", "libphi.so", "libphi_core.so", "libcommon.so")


def paddle_folder():
    """Where Paddle is installed, or None. It is not imported: that takes seconds."""
    spec = util.find_spec("paddle")
    return Path(spec.submodule_search_locations[0]) if spec and spec.submodule_search_locations else None


def paddle_version():
    """Paddle's version, of whichever of its two packages is installed."""
    for name in ("paddlepaddle", "paddlepaddle-gpu"):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


def onednn_headers():
    """The folder that holds oneapi/dnnl/dnnl.hpp, or None; ONEDNN_INCLUDE names another."""
    places = [os.environ.get("ONEDNN_INCLUDE"), Path(sys.prefix) / "include", sysconfig.get_path("include")]
    found = [Path(place) for place in places if place and (Path(place) / "oneapi/dnnl/dnnl.hpp").is_file()]
    return found[0] if found else None


def onednn_version(headers):
    """Such as "3.6.0", from the headers."""
    text = (headers / "oneapi/dnnl/dnnl_version.h").read_text(encoding="utf-8")
    return ".".join(re.search(rf"DNNL_VERSION_{part} (\d+)", text)[1] for part in ("MAJOR", "MINOR", "PATCH"))


def find_problems():
    """What is missing, a sentence each."""
    problems = []
    paddle, headers = paddle_folder(), onednn_headers()
    compiler = shlex.split(os.environ.get("CXX", "") or sysconfig.get_config_var("CXX") or "g++")[0]
    if not sys.platform.startswith("linux"):
        problems.append(f"the fused CPU ops are built on Linux only, not on {sys.platform}")
    if shutil.which(compiler) is None:
        problems.append(
            f"no C++ compiler {compiler}: install one (on Debian and Ubuntu: apt install g++), or name it in CXX"
        )
    if paddle is None or paddle_version() is None:
        problems.append(f"{sys.executable} has no Paddle: pip install paddlepaddle==3.3.1")
    else:
        absent = [name for name in PADDLE_LIBRARIES if not (paddle / "libs" / name).is_file()]
        if absent:
            problems.append(
                f"{paddle / 'libs'} lacks {', '.join(absent)}: only Paddle's wheels for x86-64 Linux have them"
            )
    if headers is None:
        problems.append(
            f"no oneDNN headers: pip install --no-deps {ONEDNN_HEADERS}, or name their folder in ONEDNN_INCLUDE"
        )
    return problems


class BuildOps(build_ext):
    """Writes beside the libraries what they were built for."""

    def run(self):
        problems = find_problems()
        if problems:
            sys.exit("The fused CPU ops cannot be built:\n" + "\n".join(f"- {problem}" for problem in problems))
        if shutil.which("g++") and "CXX" not in os.environ:
            os.environ.setdefault("CC", "g++")  # setuptools compiles C++ with the C compiler, which may be missing
        super().run()
        folder = Path(self.get_ext_fullpath(CPU)).parent
        about = {
            "paddle": paddle_version(),
            "onednn": onednn_version(onednn_headers()),
            "library": Path(self.get_ext_fullpath(CPU)).name,
            "pictures": Path(self.get_ext_fullpath(PICTURES)).name,
        }
        (folder / "built.json").write_text(json.dumps(about), encoding="utf-8")


class PlainInstall(install):
    """Copies files into site-packages, as pip does; setuptools' own `install` would make an egg."""

    def run(self):
        super(install, self).run()


def cpu_library():
    """The ops on tensors: what is compiled, and how."""
    paddle = paddle_folder() or HERE
    includes = [HERE / "include", paddle / "include", paddle / "include" / "third_party", onednn_headers() or HERE]
    return Extension(
        CPU,
        sources=sources("cpu"),
        depends=included_files(),
        include_dirs=[str(path) for path in includes],
        extra_compile_args=[*COMPILE_ARGUMENTS, "-fopenmp"],
        extra_link_args=["-fopenmp", *(str(paddle / "libs" / name) for name in PADDLE_LIBRARIES)],
        language="c++",
    )


def picture_library():
    """The ops on pictures, which need the compiler alone."""
    return Extension(
        PICTURES,
        sources=sources("pictures"),
        depends=included_files(),
        include_dirs=[str(HERE / "include")],
        extra_compile_args=COMPILE_ARGUMENTS,
        language="c++",
    )


def sources(folder):
    """The files of a folder that are compiled."""
    return [str(path.relative_to(HERE)) for path in sorted((HERE / folder).glob("*.cc"))]


def included_files():
    """What sources include: where one of them changes, all are compiled again."""
    return [str(path.relative_to(HERE)) for ending in ("*.inc", "*.h") for path in HERE.rglob(ending)]


if __name__ == "__main__":
    os.chdir(HERE)
    setup(
        name="paddlemix-external-ops",
        version="0.1.0",
        description="Fused CPU ops of paddlemix",
        license="Apache-2.0",
        package_dir={"": "python"},
        packages=[PACKAGE],
        py_modules=["fused_ln", "fast_ln"],
        ext_modules=[cpu_library(), picture_library()],
        cmdclass={"build_ext": BuildOps, "install": PlainInstall},
    )
