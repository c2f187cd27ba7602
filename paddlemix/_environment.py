"""What a process has to settle before Paddle is loaded, and what Paddle then finds on the machine.

Importing `paddlemix` does the former once, and does not load Paddle itself.
"""

from __future__ import annotations

import ctypes
import logging
import os
import sys
import warnings
from collections.abc import Mapping, MutableMapping
from functools import cache
from pathlib import Path

logger = logging.getLogger(__name__)

MKL_VARIABLE = "MKL_DEBUG_CPU_TYPE"
MKL_AVX2, MKL_AVX512 = "5", "7"
THREAD_VARIABLES = ("MKL_NUM_THREADS", "OMP_NUM_THREADS")
# The number that `share_cores` took, for processes that inherit it: it was not the user who chose.
SHARED_VARIABLE = "PADDLEMIX_SHARED_THREADS"
# How many processes paddle.distributed.launch has started on this machine.
LOCAL_SIZE_VARIABLE = "PADDLE_LOCAL_SIZE"
# How long idle threads spin: of Intel's OpenMP, which Paddle's wheels bring and the fused ops run on, and of GNU's,
# which the ops are built with where a Paddle has none.
BLOCKTIME, ASLEEP = "KMP_BLOCKTIME", "0"
WAITS = {BLOCKTIME: ASLEEP, "GOMP_SPINCOUNT": "1000"}
# Beside BLOCKTIME it says, to processes too that inherit both, that no user chose that: the built ops may change it.
WAIT_VARIABLE, ADAPT = "PADDLEMIX_WAIT", "adapt"
# The compute capability from which on cards compute in bfloat16 and take flash attention.
AMPERE = (8, 0)
# What MKL's AVX-512 code uses; a processor from before AVX2 (2015) would die of an illegal instruction on either path.
AVX512 = {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}

# glibc's mallopt: parameter number, the variable that sets the same, value. At their defaults every tensor above 128 KB
# is mapped and unmapped anew, and its pages cleared at first touch: a product of 4800 x 192 floats took 1.47 ms, with
# these 0.08 ms; a training step of the demo 1.3 times as long. Above 128 MB, as of an embedding of 150,000 tokens, a
# tensor costs far more to compute on than to clear, and would leave holes that nothing else fills.
MALLOC_OPTIONS = (
    (-3, "MALLOC_MMAP_THRESHOLD_", 1 << 27),
    (-1, "MALLOC_TRIM_THRESHOLD_", (1 << 31) - 1),
    (-2, "MALLOC_TOP_PAD_", 1 << 28),
)

# (start of the message, module that warns): each appears at every import and asks for nothing a user has to do.
HARMLESS_WARNINGS = (
    # Paddle looks for a compiler cache although nothing is being compiled.
    ("No ccache found", r"paddle\.utils\.cpp_extension"),
    # PaddleNLP imports distutils and setuptools in the order that setuptools does not like; both work.
    ("Setuptools is replacing distutils", "_distutils_hack"),
    # jieba, which PaddleNLP imports, looks for its files in the old way; it has a new way where the old one is gone.
    ("pkg_resources is deprecated", r"jieba\._compat"),
)


def prepare_for_paddle() -> None:
    """Give MKL all cores and its fast path on AMD processors, keep freed memory, quiet harmless import warnings."""
    for message, module in HARMLESS_WARNINGS:
        warnings.filterwarnings("ignore", message=message, category=UserWarning, module=module)
    keep_freed_memory(os.environ)
    if "paddle" in sys.modules:
        logger.debug(
            "Paddle was loaded before paddlemix: %s stay as they are.",
            ", ".join((MKL_VARIABLE, *WAITS, WAIT_VARIABLE, *THREAD_VARIABLES)),
        )
        return
    choose_mkl_path(os.environ, read_cpuinfo())
    wait_asleep(os.environ)
    share_cores(os.environ, usable_cores())


def keep_freed_memory(environ: Mapping[str, str]) -> None:
    """Let glibc keep freed tensors' memory for the next ones, unless the user has set how it allocates.

    Args:
        environ: the process's environment, in which glibc's variables are looked for.
    """
    if sys.platform != "linux" or any(variable in environ for _, variable, _ in MALLOC_OPTIONS):
        return
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):  # other C libraries have none, and need none
        for option, _, value in MALLOC_OPTIONS:
            library.mallopt(option, value)


def give_back_freed_memory(step: int) -> None:
    """Give the system what a process holds but does not use, after its 1st, 2nd, 4th, 8th ... step of training.

    The first steps allocate what stays, such as an optimizer's states, among what does not, and leave holes. A model of
    187 M parameters, 151,936 tokens among them, held 4484 MiB at most after some steps before,
    and holds 3998 now; a call takes 0.13 s.

    Args:
        step: from 1 on.
    """
    if step & (step - 1) or sys.platform != "linux":
        return
    library = ctypes.CDLL(None)
    if hasattr(library, "malloc_trim"):
        library.malloc_trim(0)


def choose_mkl_path(environ: MutableMapping[str, str], cpuinfo: str) -> None:
    """Set `MKL_DEBUG_CPU_TYPE` on an AMD processor with AVX2 or AVX-512, unless the user has set it.

    Paddle bundles an old MKL that falls back to slow code on processors that are not Intel's. This variable makes it
    take its fast code. Float32 products on one core of an EPYC with AVX-512, in GFLOP/s: of 1024 x 1024 numbers 32,
    with AVX2 101, with AVX-512 177; of 1600 x 192 with 192 x 192 numbers 33, 114, 220.

    Args:
        environ: the process's environment, changed in place.
        cpuinfo: the text of `/proc/cpuinfo`, empty where there is none.
    """
    flags = set(cpuinfo.split())
    if "AuthenticAMD" in flags and "avx2" in flags:
        environ.setdefault(MKL_VARIABLE, MKL_AVX512 if flags >= AVX512 else MKL_AVX2)


def usable_cores() -> int:
    """Count the cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def share_cores(environ: MutableMapping[str, str], cores: int) -> None:
    """Let MKL compute on all cores, or on this process's share of them, unless the user has set how many.

    Paddle takes one core unless OMP_NUM_THREADS says more, and then it prints a warning. Float32 products of 2400 x 192
    with 192 x 384 numbers on two cores, in GFLOP/s: 218 as Paddle leaves it, 341 with OMP_NUM_THREADS, 380 with this.

    Args:
        environ: the process's environment, changed in place.
        cores: that this process may run on.
    """
    if not any(variable in environ for variable in THREAD_VARIABLES):
        environ["MKL_NUM_THREADS"] = environ[SHARED_VARIABLE] = str(max(_share(environ, cores), 1))


def data_workers(environ: Mapping[str, str], cores: int) -> int:
    """Choose how many processes prepare records for one that trains, where nobody says.

    One is enough for models that take longer than their records, and lets no core idle while these are read: it has the
    moments at which threads wait for one another. It computes on one thread, whatever the number of the trainer's.

    Args:
        environ: the process's environment.
        cores: that this process may run on.

    Returns:
        0 where this process has a single core, or the system cannot fork.
    """
    return int(_share(environ, cores) > 1 and hasattr(os, "fork"))


def _share(environ: Mapping[str, str], cores: int) -> int:
    return cores // int(environ.get(LOCAL_SIZE_VARIABLE, "1"))


def may_take_fewer_threads(environ: Mapping[str, str]) -> bool:
    """Tell whether the number of threads is our own choice, not the user's.

    Args:
        environ: the process's environment.

    Returns:
        Whether nobody has set another number than `share_cores` did.
    """
    ours = environ.get(SHARED_VARIABLE)
    return ours is not None and environ.get("MKL_NUM_THREADS") == ours


def wait_asleep(environ: MutableMapping[str, str]) -> None:
    """Let OpenMP's idle threads sleep at once, until the built ops find the cores free; unless the user has chosen.

    By default they spin for up to 200 ms, which wastes a core that other programs want. A step of the demo's model on
    two cores took 0.19 s before and kept both of them busy; it takes 0.18 s and 0.25 s of their time now. One of a
    model of 65 M parameters took 1.30 s before, and takes 1.19 s now. `external_ops/include/paddlemix/waiting.h` has
    what the built ops decide by. KMP_BLOCKTIME or OMP_WAIT_POLICY, set by the user, hold for good.

    Args:
        environ: the process's environment, changed in place.
    """
    if "OMP_WAIT_POLICY" in environ:
        return
    if BLOCKTIME not in environ:
        environ[WAIT_VARIABLE] = ADAPT
    for variable, wait in WAITS.items():
        environ.setdefault(variable, wait)


def waiting_adapts(environ: Mapping[str, str]) -> bool:
    """Tell whether the built ops decide how idle threads wait: where `wait_asleep` has, and not the user.

    Args:
        environ: the process's environment; a process that we have started inherits what was settled in ours.

    Returns:
        Whether they do.
    """
    return "OMP_WAIT_POLICY" not in environ and environ.get(BLOCKTIME) == ASLEEP and environ.get(WAIT_VARIABLE) == ADAPT


def gpu_is_usable() -> bool:
    """Tell whether Paddle was built for GPUs and sees at least one; loads Paddle."""
    import paddle  # takes seconds, so only once it is needed

    return paddle.is_compiled_with_cuda() and paddle.device.cuda.device_count() > 0


@cache
def compute_capability() -> tuple[int, int] | None:
    """Return the compute capability of the card that Paddle computes on, such as (8, 0); loads Paddle.

    Returns:
        Its two numbers; None where Paddle sees no card.
    """
    if not gpu_is_usable():
        return None
    import paddle  # takes seconds, so only once it is needed

    return paddle.device.cuda.get_device_capability()


def is_older_than_ampere() -> bool:
    """Tell whether Paddle computes on a card that has neither bfloat16 nor flash attention; loads Paddle."""
    capability = compute_capability()
    return capability is not None and capability < AMPERE


def read_cpuinfo(path: Path = Path("/proc/cpuinfo")) -> str:
    """Read the kernel's description of the processors; "" on a system that has none."""
    if not path.is_file():
        return ""
    return path.read_text(encoding="utf-8", errors="replace")
