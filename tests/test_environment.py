"""What `paddlemix._environment` settles before Paddle is loaded."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings

import pytest

from paddlemix._environment import (
    HARMLESS_WARNINGS,
    choose_mkl_path,
    compute_capability,
    data_workers,
    is_older_than_ampere,
    prepare_for_paddle,
    read_cpuinfo,
    share_cores,
    wait_asleep,
    waiting_adapts,
)

AMD = "vendor_id\t: AuthenticAMD\nflags\t\t: fpu sse2 avx avx2 bmi2\n"
NEW_AMD = "vendor_id\t: AuthenticAMD\nflags\t\t: avx2 avx512f avx512dq avx512cd avx512bw avx512vl avx512_bf16\n"
HALF_NEW_AMD = "vendor_id\t: AuthenticAMD\nflags\t\t: avx2 avx512f avx512cd\n"
OLD_AMD = "vendor_id\t: AuthenticAMD\nflags\t\t: fpu sse2 avx\n"
INTEL = "vendor_id\t: GenuineIntel\nflags\t\t: fpu sse2 avx avx2 avx512f\n"


def run_python(code: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)


@pytest.mark.parametrize(("cpuinfo", "path"), [(AMD, "5"), (HALF_NEW_AMD, "5"), (NEW_AMD, "7")])
def test_an_amd_processor_gets_the_widest_path_it_has(cpuinfo, path):
    environ: dict[str, str] = {}
    choose_mkl_path(environ, cpuinfo)
    assert environ == {"MKL_DEBUG_CPU_TYPE": path}


@pytest.mark.parametrize("cpuinfo", [OLD_AMD, INTEL, ""], ids=["amd without avx2", "intel", "unknown"])
def test_other_processors_are_left_alone(cpuinfo):
    environ: dict[str, str] = {}
    choose_mkl_path(environ, cpuinfo)
    assert environ == {}


def test_what_the_user_set_stays():
    environ = {"MKL_DEBUG_CPU_TYPE": "4"}
    choose_mkl_path(environ, AMD)
    assert environ == {"MKL_DEBUG_CPU_TYPE": "4"}


def test_a_system_without_cpuinfo_is_no_error(tmp_path):
    assert read_cpuinfo(tmp_path / "cpuinfo") == ""


@pytest.mark.parametrize(
    ("launched", "cores", "threads"),
    [({}, 8, "8"), ({"PADDLE_LOCAL_SIZE": "2"}, 8, "4"), ({"PADDLE_LOCAL_SIZE": "4"}, 2, "1")],
)
def test_processes_of_one_machine_share_its_cores(launched, cores, threads):
    environ = dict(launched)
    share_cores(environ, cores)
    assert environ == {**launched, "MKL_NUM_THREADS": threads, "PADDLEMIX_SHARED_THREADS": threads}


@pytest.mark.parametrize(
    ("launched", "cores", "workers"),
    [({}, 8, 1), ({}, 1, 0), ({"PADDLE_LOCAL_SIZE": "2"}, 4, 1), ({"PADDLE_LOCAL_SIZE": "2"}, 3, 0)],
)
def test_a_process_with_a_second_core_has_its_records_prepared_beside_it(launched, cores, workers):
    assert data_workers(launched, cores) == workers


@pytest.mark.parametrize("variable", ["OMP_NUM_THREADS", "MKL_NUM_THREADS"])
def test_the_number_of_threads_that_the_user_set_stays(variable):
    environ = {variable: "3"}
    share_cores(environ, 8)
    assert environ == {variable: "3"}


SETTLED = {"KMP_BLOCKTIME": "0", "GOMP_SPINCOUNT": "1000", "PADDLEMIX_WAIT": "adapt"}


@pytest.mark.parametrize(
    ("given", "waits", "adapts"),
    [
        ({}, SETTLED, True),
        (SETTLED, SETTLED, True),  # inherited from a process of ours
        ({"KMP_BLOCKTIME": "7"}, {"KMP_BLOCKTIME": "7", "GOMP_SPINCOUNT": "1000"}, False),
        ({"KMP_BLOCKTIME": "0"}, {"KMP_BLOCKTIME": "0", "GOMP_SPINCOUNT": "1000"}, False),
        ({**SETTLED, "KMP_BLOCKTIME": "7"}, {**SETTLED, "KMP_BLOCKTIME": "7"}, False),
        ({"OMP_WAIT_POLICY": "active"}, {"OMP_WAIT_POLICY": "active"}, False),
        ({**SETTLED, "OMP_WAIT_POLICY": "active"}, {**SETTLED, "OMP_WAIT_POLICY": "active"}, False),
    ],
)
def test_idle_threads_sleep_until_the_ops_decide_unless_the_user_has_set_how_they_wait(given, waits, adapts):
    environ = dict(given)
    wait_asleep(environ)
    assert environ == waits and waiting_adapts(environ) is adapts


def test_importing_paddlemix_does_not_load_paddle():
    loaded = run_python("import sys, paddlemix; print('paddle' in sys.modules, 'paddlemix' in sys.modules)").stdout
    assert loaded == "False True\n"


def test_importing_paddlenlp_after_paddlemix_prints_nothing():
    done = run_python("import paddlemix, paddlenlp.trainer, paddlenlp.transformers, paddlenlp.peft")
    assert done.stdout + done.stderr == ""


def test_only_the_listed_warnings_are_silenced():
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        prepare_for_paddle()
        for message, module in HARMLESS_WARNINGS:
            name = module.replace("\\", "")
            warnings.warn_explicit(f"{message} here.", UserWarning, "file.py", 1, module=name)
            warnings.warn_explicit(f"{message} here.", UserWarning, "file.py", 1, module="elsewhere")
        warnings.warn_explicit("The loss is infinite.", UserWarning, "file.py", 1, module="paddle.utils.cpp_extension")
    assert [str(warning.message) for warning in seen] == [
        *(f"{message} here." for message, _ in HARMLESS_WARNINGS),
        "The loss is infinite.",
    ]


FREED = """
import paddlemix
from paddlemix._environment import give_back_freed_memory
import numpy as np

def held():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 >> 20

kept = [np.ones(2**18) for _ in range(200)]  # 2 MiB each
after = kept[-1]
before = held()
del kept  # below what stays, so that the heap cannot shrink by itself
found = [before - held()]
for step in (3, 6, 7, 8):
    give_back_freed_memory(step)
    found.append(before - held())
print(*found)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc is what is told here")
def test_freed_memory_is_kept_until_steps_that_are_powers_of_two():
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run([sys.executable, "-c", FREED], capture_output=True, text=True, check=True, env=environment)
    *kept, given_back = map(int, done.stdout.split())
    assert max(kept) < 20 and given_back > 350


@pytest.fixture
def card(monkeypatch):
    """Make Paddle see a card of a compute capability, or none."""
    import paddle

    def put(capability):
        compute_capability.cache_clear()
        monkeypatch.setattr(paddle, "is_compiled_with_cuda", lambda: capability is not None)
        monkeypatch.setattr(paddle.device.cuda, "device_count", lambda: 1)
        monkeypatch.setattr(paddle.device.cuda, "get_device_capability", lambda: capability)

    yield put
    compute_capability.cache_clear()


@pytest.mark.parametrize(
    ("capability", "is_older"), [((7, 0), True), ((7, 5), True), ((8, 0), False), ((8, 9), False), ((12, 0), False)]
)
def test_the_card_is_asked_for_its_compute_capability(card, capability, is_older):
    card(capability)
    assert compute_capability() == capability and is_older_than_ampere() is is_older


def test_without_a_card_there_is_no_compute_capability_and_nothing_is_refused_for_it(card):
    card(None)
    assert compute_capability() is None and not is_older_than_ampere()


@pytest.mark.parametrize(("capability", "fits"), [((7, 5), False), ((8, 0), True)])
def test_flash_attention_is_left_out_below_8_0_with_one_warning(card, caplog, capability, fits):
    from types import SimpleNamespace

    import paddle

    from paddlemix.ops.tensors.cards import flash

    flash._card_takes_it.cache_clear()
    card(capability)
    query = SimpleNamespace(dtype=paddle.float16, shape=[1, 9, 2, 64], place=SimpleNamespace(is_gpu_place=lambda: True))
    with caplog.at_level("WARNING", logger=flash.logger.name):
        assert [flash.flash_attention_fits(query) for _ in range(3)] == [fits] * 3
    flash._card_takes_it.cache_clear()
    assert [("8.0 (Ampere)" in one.getMessage()) for one in caplog.records] == ([] if fits else [True])
