"""The file in which a machine's rates are kept, from its making to its end."""

from __future__ import annotations

import dataclasses
import json
import logging
import threading
import time
from pathlib import Path

import pytest

from paddlemix.cache import CACHE_VARIABLE
from paddlemix.ops.probing.choice import Rates
from paddlemix.ops.probing.kept import Machine, Speed, find_speed, speed_of, text_of

CPUINFO = """processor\t: 0
vendor_id\t: AuthenticAMD
cpu family\t: 25
model\t\t: 17
model name\t: AMD EPYC 9004
stepping\t: 1
flags\t\t: fpu avx2 avx512f

processor\t: 1
vendor_id\t: AuthenticAMD
"""
RATES = Rates(200.5, 195, 320, 180, {2: 390.0, 1: 200.0}, {4: 43.0, 8: 46.0}, {4: 46.0, 8: 67.0}, 0.03)


def machine_with(cpuinfo: str = CPUINFO, cores: int = 2, threads: int = 2, versions: str = "3", fewer: bool = True):
    return Machine.here(cpuinfo, cores, threads, versions, takes_fewer=fewer)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    return tmp_path / "speed"


class Counted:
    """Measures, and counts how often."""

    def __init__(self, rates: Rates = RATES) -> None:
        self.times, self.rates = 0, rates

    def __call__(self) -> Rates:
        self.times += 1
        return self.rates


def test_a_machine_is_measured_once(cache: Path) -> None:
    measure = Counted()
    first, again = (find_speed(machine_with(), measure) for _ in range(2))
    assert measure.times == 1 and first == again == Speed(machine_with(), RATES)
    assert [path.suffix for path in sorted(cache.iterdir())] == [".json", ".lock"]


def test_all_that_rates_depend_on_makes_another_file(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    others = [
        machine_with(CPUINFO.replace("9004", "9005")),
        machine_with(CPUINFO.replace("stepping\t: 1", "stepping\t: 2")),
        machine_with(CPUINFO.replace(" avx512f", "")),
        machine_with(cores=4),
        machine_with(threads=1),
        machine_with(versions="4"),
        machine_with(fewer=False),
    ]
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    machines = [*others, machine_with()]
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA")
    measure = Counted()
    for machine in (machine_with(), *machines):
        find_speed(machine, measure)
    assert measure.times == len(list(cache.glob("*.json"))) == 1 + len(machines)


def damaged(values: dict) -> list[str]:
    broken = [
        {},
        {**values, "rates": []},
        {**values, "rates": {**values["rates"], "onednn": "fast"}},
        {**values, "rates": {**values["rates"], "onednn": -1}},
        {**values, "rates": {**values["rates"], "threads": {"two": 1}}},
        {**values, "rates": {name: rate for name, rate in values["rates"].items() if name != "threads"}},
        {**values, "rates": {**values["rates"], "of another release": 1}},
        {**values, "machine": {**values["machine"], "cores": 64}},
        {"machine": values["machine"]},
    ]
    return ["", "{", "[]", '{"rates": NaN}', "\x00" * 100, *map(json.dumps, broken)]


@pytest.mark.parametrize("number", range(len(damaged({"rates": {}, "machine": {}}))))
def test_a_damaged_or_old_file_is_measured_again_and_replaced(cache: Path, number: int) -> None:
    find_speed(machine_with(), Counted())
    (path,) = cache.glob("*.json")
    path.write_text(damaged(json.loads(path.read_text()))[number])
    measure = Counted(dataclasses.replace(RATES, onednn=210.0))
    assert find_speed(machine_with(), measure).rates.onednn == 210
    assert find_speed(machine_with(), measure).rates.onednn == 210 and measure.times == 1


def test_a_pipe_in_its_place_is_not_waited_for(cache: Path) -> None:
    import os

    find_speed(machine_with(), Counted())
    (path,) = cache.glob("*.json")
    path.unlink()
    os.mkfifo(path)
    assert find_speed(machine_with(), Counted()).rates == RATES


def test_a_folder_that_cannot_be_written_to_is_no_error_and_no_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "file"))
    machine = machine_with(versions="of this test")
    with caplog.at_level(logging.WARNING):
        assert find_speed(machine, Counted()).rates == RATES
    assert not caplog.records and (tmp_path / "file").read_text() == ""


def test_no_folder_at_all_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(kind: str, *, warns: bool) -> Path:
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr("paddlemix.ops.probing.kept.cache_folder", nowhere)
    measure = Counted()
    assert find_speed(machine_with(), measure).rates == find_speed(machine_with(), measure).rates == RATES
    assert measure.times == 2


def test_of_several_that_ask_at_once_one_measures(cache: Path) -> None:
    measure = Counted()

    def slowly() -> Rates:
        time.sleep(0.2)
        return measure()

    found: list[Speed] = []
    threads = [threading.Thread(target=lambda: found.append(find_speed(machine_with(), slowly))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert measure.times == 1 and len(found) == 4 and len({text_of(speed) for speed in found}) == 1


def test_other_processes_read_what_one_writes() -> None:
    speed = Speed(machine_with(), RATES)
    assert speed_of(text_of(speed)) == speed
    assert speed.in_words() == "AMD EPYC 9004, products by oneDNN, 2 threads"


def test_a_machine_that_says_nothing_of_its_processor_is_measured_too(cache: Path) -> None:
    assert find_speed(machine_with(""), Counted()).machine.processor == "unknown processor"
