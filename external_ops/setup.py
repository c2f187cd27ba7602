"""Builds and installs the fused ops of `paddlemix` for the Paddle of this Python: `python setup.py install`.

Two libraries: the ops on tensors, which call Paddle, and the ops on images, which data workers load without it.

Needs a C++17 compiler with OpenMP, Paddle's wheel, which brings oneDNN as a library, and oneDNN's headers:
`pip install --no-deps onednn-devel==2025.0.0`. Where Paddle is built for CUDA, a third is built, with nvcc and cuBLAS
of a toolkit of the same CUDA, by its first number. Says what is missing, and ends with a status that is not 0, where
it is.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib import metadata, util
from pathlib import Path
from typing import NamedTuple

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.install import install

HERE = Path(__file__).resolve().parent
PACKAGE = "paddlemix_external_ops"
CPU, IMAGES, CUDA = f"{PACKAGE}._cpu", f"{PACKAGE}._images", f"{PACKAGE}._cuda"
ONEDNN_HEADERS = "onednn-devel==2025.0.0"
# Of the ops, by which `paddlemix` knows a build of another version; it has the same in `ops/build.py`.
INTERFACE = 9
# Of the ops for CUDA, likewise.
CUDA_INTERFACE = 3
COMPILE_ARGUMENTS = ["-std=c++17", "-O3", "-fvisibility=hidden", "-fno-math-errno", "-g0", "-w"]
# The parts of Paddle's wheel that the ops call. They are in the process already when the ops are loaded.
PADDLE_LIBRARIES = ("libdnnl.so.3", "libphi.so", "libphi_core.so", "libcommon.so")
# Found in wheels for CUDA alone, some of them.
PADDLE_CUDA_LIBRARIES = ("libphi.so", "libphi_core.so", "libphi_gpu.so", "libcommon.so")
# Ampere and Hopper, and what any later card compiles for itself. `built.json` says which code there is, in these words.
CUDA_TARGETS = ("arch=compute_80,code=sm_80", "arch=compute_90,code=[sm_90,compute_90]")
CUDA_CODE = "sm_80 sm_90 compute_90"
CUDA_HEADERS = ("cuda_runtime.h", "cublas_v2.h")
# Where distributions' own packages of CUDA have theirs; compilers look there unasked.
SYSTEM_HEADERS = Path("/usr/include")


def paddle_folder():
    """Find where Paddle is installed, or None. It is not imported: that takes seconds."""
    spec = util.find_spec("paddle")
    return Path(spec.submodule_search_locations[0]) if spec and spec.submodule_search_locations else None


def paddle_version():
    """Return Paddle's version, of whichever of its two packages is installed."""
    for name in ("paddlepaddle", "paddlepaddle-gpu"):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


def paddle_cuda():
    """Return the version of CUDA that Paddle is built for, such as "12.6"; None for a Paddle without CUDA."""
    about = (paddle_folder() or HERE) / "version" / "__init__.py"
    found = re.search(r"^cuda_version\s*=\s*'([\d.]+)'", about.read_text("utf-8"), re.M) if about.is_file() else None
    return found and found[1]


class Toolkit(NamedTuple):
    """What nvcc says of the CUDA toolkit that it belongs to.

    Attributes:
        nvcc: the program, which may be a link or a script that calls another.
        version: of CUDA, such as "12.6"; "" where nvcc does not run.
        includes: folders in which headers are looked for.
        libraries: folders in which libraries are looked for.
    """

    nvcc: Path
    version: str
    includes: list[Path]
    libraries: list[Path]


@cache
def cuda_toolkit():
    """Find the CUDA toolkit, or None; CUDA_HOME names another."""
    on_path = shutil.which("nvcc")
    home = os.environ.get("CUDA_HOME")
    places = [home and Path(home) / "bin/nvcc", on_path and Path(on_path), Path("/usr/local/cuda/bin/nvcc")]
    nvcc = next((place for place in places if place and place.is_file()), None)
    return nvcc and ask_nvcc(nvcc)


def ask_nvcc(nvcc):
    """Ask nvcc which toolkit it compiles with: where it lies says nothing, since it may be a link, or a script."""
    release = re.search(r"release ([\d.]+)", output_of(nvcc, "--version"))
    told = output_of(nvcc, "--dryrun", "-x", "cu", os.devnull)
    top = re.search(r"^#\$ TOP=(.+?)\s*$", told, re.M)
    root = Path(top[1] if top else nvcc.resolve().parents[1])
    includes = [*told_folders(told, "INCLUDES", "-I"), root / "include"]
    return Toolkit(
        nvcc,
        release[1] if release else "",
        existing([*includes, *(folder / "cccl" for folder in includes)]),
        existing([*told_folders(told, "LIBRARIES", "-L"), root / "lib64"]),
    )


def told_folders(told, name, flag):
    """List the folders behind the flags in nvcc's line of this name."""
    line = re.search(rf"^#\$ {name}=(.*)$", told, re.M)
    words = shlex.split(line[1]) if line else []
    return [Path(word.removeprefix(flag)) for word in words if word.startswith(flag)]


def existing(folders):
    """Keep the folders that are there, each once, in order."""
    return list(dict.fromkeys(folder.resolve() for folder in folders if folder.is_dir()))


def output_of(*command):
    """Run a program, and return what it prints, errors too; "" where it does not run."""
    try:
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout + done.stderr if done.returncode == 0 else ""


def onednn_headers():
    """Find the folder that holds oneapi/dnnl/dnnl.hpp, or None; ONEDNN_INCLUDE names another."""
    places = [os.environ.get("ONEDNN_INCLUDE"), Path(sys.prefix) / "include", sysconfig.get_path("include")]
    found = [Path(place) for place in places if place and (Path(place) / "oneapi/dnnl/dnnl.hpp").is_file()]
    return found[0] if found else None


def onednn_version(headers):
    """Read the version, such as "3.6.0", from the headers."""
    text = (headers / "oneapi/dnnl/dnnl_version.h").read_text(encoding="utf-8")
    return ".".join(re.search(rf"DNNL_VERSION_{part} (\d+)", text)[1] for part in ("MAJOR", "MINOR", "PATCH"))


def find_problems():
    """List what is missing, a sentence each."""
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
    return problems + (find_cuda_problems(paddle_cuda()) if paddle_cuda() else [])


def find_cuda_problems(wanted):
    """List what the CUDA ops lack for a Paddle that is built for this version of CUDA, a sentence each."""
    toolkit, major = cuda_toolkit(), wanted.split(".")[0]
    if toolkit is None:
        return [
            f"Paddle is built for CUDA {wanted}, but there is no nvcc: install the toolkit of CUDA {major}, or name "
            "its folder in CUDA_HOME"
        ]
    if not toolkit.version:
        return [
            f"{toolkit.nvcc} does not say its version: `{toolkit.nvcc} --version` should work. Install the toolkit of "
            f"CUDA {major}, or name its folder in CUDA_HOME"
        ]
    if toolkit.version.split(".")[0] != major:
        # Two majors of CUDA's runtime in one process do not know of one another's streams.
        return [
            f"{toolkit.nvcc} is of CUDA {toolkit.version}, but Paddle is built for CUDA {wanted}: name the folder of a "
            f"toolkit of CUDA {major} in CUDA_HOME, or install a Paddle that is built for CUDA "
            f"{toolkit.version.split('.')[0]}"
        ]
    folders = [*toolkit.includes, SYSTEM_HEADERS]
    lacking = [name for name in CUDA_HEADERS if not any((folder / name).is_file() for folder in folders)]
    place = toolkit.includes[0] if toolkit.includes else f"the toolkit of {toolkit.nvcc}"
    return [f"{place} lacks {', '.join(lacking)}: install CUDA's runtime and cuBLAS"] if lacking else []


def choose_compiler():
    """Let setuptools compile with g++, which C++ needs and which it calls `cc` else, through ccache where that is.

    What the user has chosen stays.
    """
    if shutil.which("g++") and not {"CC", "CXX"} & set(os.environ):
        os.environ["CC"] = os.environ["CXX"] = "ccache g++" if shutil.which("ccache") else "g++"


class BuildOps(build_ext):
    """Compiles on all cores, CUDA's sources with nvcc, and writes beside the libraries what they were built for."""

    def build_extensions(self):
        one_by_one = self.compiler.compile

        def compile_together(sources, **options):
            # A source that includes Paddle takes 0.6 GB.
            with ThreadPoolExecutor(min(8, len(os.sched_getaffinity(0)))) as pool:
                objects = pool.map(lambda source: one_by_one([source], **options), sources)
                return [path for paths in objects for path in paths]

        self.compiler.compile = compile_together
        super().build_extensions()

    def build_extension(self, ext):
        if ext.name == CUDA:
            ext.extra_objects = [self.compile_kernels()]
        super().build_extension(ext)

    def compile_kernels(self):
        """Compile the object file of the kernels and their C interface."""
        Path(self.build_temp).mkdir(parents=True, exist_ok=True)
        target = str(Path(self.build_temp) / "c_api.o")
        choices = [word for target in CUDA_TARGETS for word in ("-gencode", target)]
        hidden = ["-Xcompiler", "-fPIC,-fvisibility=hidden"]
        nvcc = [str(cuda_toolkit().nvcc), "-std=c++17", "-O3", *choices, *hidden]
        subprocess.run([*nvcc, "-c", "cuda/c_api.cu", "-o", target], check=True)
        return target

    def run(self):
        problems = find_problems()
        if problems:
            sys.exit("The fused ops cannot be built:\n" + "\n".join(f"- {problem}" for problem in problems))
        choose_compiler()
        super().run()
        libraries = {ext.name: Path(self.get_ext_fullpath(ext.name)) for ext in self.extensions}
        about = {
            "interface": INTERFACE,
            "paddle": paddle_version(),
            "onednn": onednn_version(onednn_headers()),
            "library": libraries[CPU].name,
            "images": libraries[IMAGES].name,
        }
        if CUDA in libraries:
            about |= {"cuda_library": libraries[CUDA].name, "cuda_code": CUDA_CODE, "cuda_interface": CUDA_INTERFACE}
        libraries[CPU].with_name("built.json").write_text(json.dumps(about), encoding="utf-8")


class PlainInstall(install):
    """Copies files into site-packages, as pip does; setuptools' own `install` would make an egg."""

    def run(self):
        super(install, self).run()


def cpu_library():
    """Describe the ops on tensors: what is compiled, and how."""
    paddle = paddle_folder() or HERE
    includes = [HERE / "include", paddle / "include", paddle / "include" / "third_party", onednn_headers() or HERE]
    return Extension(
        CPU,
        sources=sources("cpu"),
        depends=included_files(),
        include_dirs=[str(path) for path in includes],
        extra_compile_args=[*COMPILE_ARGUMENTS, "-fopenmp"],
        extra_link_args=[openmp(paddle), *(str(paddle / "libs" / name) for name in PADDLE_LIBRARIES)],
        language="c++",
    )


def openmp(paddle):
    """Choose what the ops' threads are linked with: the OpenMP that Paddle's own products and oneDNN run on.

    With the compiler's own beside it there would be two pools of threads, of two sizes, whose idle threads take each
    other's cores.
    """
    library = paddle / "libs" / "libiomp5.so"
    return str(library) if library.is_file() else "-fopenmp"


def image_library():
    """Describe the ops on images, which need the compiler alone."""
    return Extension(
        IMAGES,
        sources=sources("images"),
        depends=included_files(),
        include_dirs=[str(HERE / "include")],
        extra_compile_args=COMPILE_ARGUMENTS,
        language="c++",
    )


def cuda_library():
    """Describe the binding to Paddle; the kernels join it as an object file of nvcc's."""
    paddle, toolkit = paddle_folder() or HERE, cuda_toolkit() or Toolkit(HERE, "", [], [])
    libraries = [str(paddle / "libs" / name) for name in PADDLE_CUDA_LIBRARIES if (paddle / "libs" / name).is_file()]
    theirs = [paddle / "include", paddle / "include/third_party", *toolkit.includes]
    return Extension(
        CUDA,
        sources=sources("cuda"),
        depends=[*(str(path.relative_to(HERE)) for path in sorted((HERE / "cuda").iterdir())), *included_files()],
        include_dirs=[str(path) for path in (HERE / "include", *theirs)],
        define_macros=[("PADDLE_WITH_CUDA", None)],
        extra_compile_args=COMPILE_ARGUMENTS,
        extra_link_args=[*(f"-L{folder}" for folder in toolkit.libraries), "-lcublas", "-lcudart", *libraries],
        language="c++",
    )


def sources(folder):
    """List the files of a folder that are compiled."""
    return [str(path.relative_to(HERE)) for path in sorted((HERE / folder).glob("*.cc"))]


def included_files():
    """List what sources include: where one of them changes, all are compiled again."""
    return [str(path.relative_to(HERE)) for ending in ("*.inc", "*.h") for path in HERE.rglob(ending)]


if __name__ == "__main__":
    os.chdir(HERE)
    setup(
        name="paddlemix-external-ops",
        version="0.1.0",
        description="Fused ops of paddlemix",
        license="Apache-2.0",
        package_dir={"": "python"},
        packages=[PACKAGE],
        py_modules=["fused_ln", "fast_ln"],
        ext_modules=[cpu_library(), image_library(), *([cuda_library()] if paddle_cuda() else [])],
        cmdclass={"build_ext": BuildOps, "install": PlainInstall},
    )
