"""When idle threads of the ops wait awake: by what is seen of the machine, and beside a process that is busy."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from paddlemix.ops.build import find_build

OPS = Path(__file__).parents[2] / "external_ops"
# Seconds that passed, that our threads ran, preemptions, other threads that want to run, share of stolen time.
LOOK = 0.03125
FREE = f"{LOOK} 0.05 0 0 0"
CROWDED = f"{LOOK} 0.05 0 1 0"
PREEMPTED = f"{LOOK} 0.05 50 0 0"
STOLEN = f"{LOOK} 0.05 0 0 0.05"
# What a kernel's own threads and timers do to a process that is alone.
ONCE_PREEMPTED = f"{LOOK} 0.05 1 0 0"
# From here on threads are awake.
SOON = [FREE] * 5


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    """The policy, compiled by itself: what was seen, look by look -> what is decided, as zeros and ones."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++, which compiles the policy")
    program = tmp_path_factory.mktemp("policy") / "policy"
    source = OPS / "tests" / "wait_policy.cc"
    subprocess.run([compiler, "-std=c++17", f"-I{OPS / 'include'}", source, "-o", program], check=True)

    def decide(*seen, threads=2, cores=2):
        given = "\n".join(seen)
        return subprocess.run(
            [program, str(threads), str(cores)], input=given, capture_output=True, text=True, check=True
        ).stdout

    return decide


@pytest.mark.parametrize(
    ("seen", "decided"),
    [
        (SOON, "00001"),
        ([*SOON, *[FREE] * 5, *[CROWDED] * 20, *[FREE] * 5], "00001" + "1" * 5 + "11" + "0" * 22 + "1"),
        # As beside a data worker, which works for a third of the time.
        ([*SOON, *[FREE] * 5, *[CROWDED, FREE, FREE] * 20], "00001" + "1" * 5 + "111" * 20),
        # Held for 0.2 s, since the first try lasted less than a second.
        ([*SOON, PREEMPTED, *[FREE] * 9], "00001" + "0" * 7 + "111"),
        ([*SOON, STOLEN, *[FREE] * 9], "00001" + "0" * 7 + "111"),
        ([*SOON, *[ONCE_PREEMPTED] * 50], "00001" + "1" * 50),
    ],
    ids=["free", "crowded", "now and then", "preempted", "stolen", "the kernel's own"],
)
def test_threads_are_awake_while_the_cores_are_free_for_most_of_the_time(policy, seen, decided):
    assert policy(*seen) == decided


def test_more_cores_than_threads_leave_room_for_others(policy):
    room, none = [CROWDED] * 10, [f"{LOOK} 0.05 0 3 0"] * 10
    assert policy(*room, *none, threads=2, cores=4) == "0000" + "1" * 6 + "11" + "0" * 8


def test_beside_a_program_that_stays_they_are_woken_ever_more_rarely(policy):
    seen, decided = [*SOON, PREEMPTED], "000010"
    for pause in (0.2, 0.4, 0.8, 1.6, 3.2, 3.2):
        looks = math.ceil(pause / LOOK)
        seen += [*[FREE] * looks, PREEMPTED]
        decided += "0" * (looks - 1) + "10"
    # It has gone: the next try lasts, and what comes after a second of it is no mistake.
    looks = math.ceil(3.2 / LOOK)
    seen += [*[FREE] * (looks + 40), PREEMPTED, *[FREE] * 4]
    decided += "0" * (looks - 1) + "1" * 41 + "0" + "0001"
    assert policy(*seen) == decided


BESIDE = """
import ctypes, os, time
from pathlib import Path
import paddlemix, paddle
from paddlemix import ops

blocktime = ctypes.CDLL(str(Path(paddle.__file__).parent / "libs" / "libiomp5.so")).kmp_get_blocktime
x = paddle.ones([1024, 512])
ops.set_num_threads(2)

def states(seconds):
    found, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        for _ in range(20):
            ops.swiglu(x, x)
        found.append((blocktime(), ops.threads_wait_awake()))
    return found

before, busy = states(0.1), []
for _ in os.sched_getaffinity(0):
    child, end = os.fork(), time.monotonic() + 20
    if not child:
        while time.monotonic() < end:  # it ends by itself where this process is killed
            pass
        os._exit(0)
    busy.append(child)
try:
    states(0.3)
    beside = states(0.7)
finally:
    for child in busy:
        os.kill(child, 9)
        os.waitpid(child, 0)
print(sum(awake for _, awake in beside) / len(beside), *sorted(set(before + beside + states(0.1))), sep=";")
"""


# What a machine of many cores on which nobody else computes says of itself.
FREE_MACHINE = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/resource.h>
#include <unistd.h>

long sysconf(int name) {
  static long (*real)(int);
  if (!real) real = (long (*)(int))dlsym(RTLD_NEXT, "sysconf");
  return name == _SC_NPROCESSORS_ONLN ? 1000 : real(name);
}

int getrusage(__rusage_who_t who, struct rusage* use) {
  static int (*real)(__rusage_who_t, struct rusage*);
  if (!real) real = (int (*)(__rusage_who_t, struct rusage*))dlsym(RTLD_NEXT, "getrusage");
  const int failed = real(who, use);
  use->ru_nivcsw = 0;
  return failed;
}
"""


@pytest.fixture(scope="module")
def free_machine(tmp_path_factory):
    """A library that makes a process believe so."""
    compiler = shutil.which("gcc") or shutil.which("g++")
    if compiler is None:
        pytest.skip("no C compiler, which compiles the made-up machine")
    folder = tmp_path_factory.mktemp("machine")
    (folder / "machine.c").write_text(FREE_MACHINE)
    command = [compiler, "-x", "c", "-shared", "-fPIC", folder / "machine.c", "-o", folder / "machine.so", "-ldl"]
    subprocess.run(command, check=True)
    return folder / "machine.so"


def run_beside(**variables):
    """Run ops beside busy processes: the share of awake looks, and the pairs of OpenMP's milliseconds and our word."""
    if (found := find_build()).reason:
        pytest.skip(f"no built ops: {found.reason}")
    # This process has settled it for itself.
    settled = ("KMP_BLOCKTIME", "PADDLEMIX_WAIT", "OMP_WAIT_POLICY")
    environment = {name: value for name, value in os.environ.items() if name not in settled} | variables
    done = subprocess.run([sys.executable, "-c", BESIDE], env=environment, capture_output=True, text=True, check=True)
    share, *seen = done.stdout.strip().split(";")
    return float(share), set(seen)


def test_beside_busy_processes_they_sleep():
    share, seen = run_beside()
    # What is told to OpenMP is what was decided; on a machine that is busy all the time it is one of the two.
    assert share <= 0.1 and seen <= {"(0, False)", "(1, True)"}


def test_where_the_kernel_says_that_cores_are_free_they_are_awake(free_machine):
    share, seen = run_beside(LD_PRELOAD=str(free_machine))
    assert share >= 0.9 and "(1, True)" in seen and seen <= {"(0, False)", "(1, True)"}


def test_what_the_user_has_chosen_stays():
    assert run_beside(KMP_BLOCKTIME="7") == (1.0, {"(7, True)"})
