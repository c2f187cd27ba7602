"""What a run computes from, where its config leaves that to the machine, where it goes on and where it is slow."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from paddlemix.ops.probing.choice import Rates
from paddlemix.ops.probing.kept import Machine, Speed, text_of
from paddlemix.ops.tensors import built
from paddlemix.training import compute_dtype
from paddlemix.training.compute_dtype import ComputeSettings, settle_compute_dtype

from .test_run_identity import config_with

FAST, SLOW = Rates(200, 195, 320, 180), Rates(150, 152, 78, 140)


class Here:
    """What a run finds: a machine, and what it lets compute."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._patch = monkeypatch
        self.set: list[str] = []
        monkeypatch.setattr(compute_dtype, "gpu_is_usable", lambda: False)
        self.be(FAST)

    def be(self, rates: Rates | None, processor: str = "A") -> None:
        speed = None if rates is None else Speed(Machine(processor, "", 2, 2, True, "", ""), rates)
        found = built.Library("not built") if speed is None else built.Library(speed=speed)
        self._patch.setattr(built, "library", lambda: found)
        self._patch.setattr(compute_dtype, "set_compute_dtype", lambda one: self._take(one, is_built=speed is not None))

    def _take(self, dtype: str, *, is_built: bool) -> bool:
        self.set.append(dtype)
        return dtype == "float32" or is_built


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Here:
    caplog.set_level(logging.INFO, logger=compute_dtype.logger.name)
    return Here(monkeypatch)


@pytest.fixture
def began(tmp_path: Path):
    def write(**keys: Any) -> str:
        (tmp_path / "run.json").write_text(json.dumps({"keys": keys, "model": {}, "drawn_from": ""}))
        return str(tmp_path)

    return write


@pytest.mark.parametrize(("rates", "dtype"), [(FAST, "bfloat16"), (SLOW, "float32"), (None, "float32")])
def test_auto_is_what_is_faster(here: Here, caplog: pytest.LogCaptureFixture, rates: Rates | None, dtype: str) -> None:
    here.be(rates)
    assert settle_compute_dtype("auto", None).dtype == dtype and here.set == [dtype]
    told = [record.getMessage() for record in caplog.records]
    if rates is not None:
        (line,) = told
        assert f"`cpu_compute_dtype` is {dtype}" in line and f"{rates.onednn} in float32" in line
    assert all(record.levelno < logging.WARNING for record in caplog.records)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("rates", [FAST, SLOW])
def test_a_run_that_goes_on_computes_in_what_it_began_with(here: Here, began, rates: Rates, dtype: str) -> None:
    here.be(rates)
    assert settle_compute_dtype("auto", began(cpu_compute_dtype=dtype)).dtype == dtype and here.set == [dtype]


def test_what_is_asked_for_is_done_and_where_it_is_slow_both_rates_are_told(
    here: Here, caplog: pytest.LogCaptureFixture
) -> None:
    for rates in (FAST, SLOW):
        here.be(rates)
        assert settle_compute_dtype("bfloat16", None).dtype == "bfloat16"
        assert settle_compute_dtype("float32", None).dtype == "float32"
    (record,) = (one for one in caplog.records if one.levelno >= logging.WARNING)
    line = record.getMessage()
    assert "140 GFLOP/s of a thread from bfloat16, 150 in float32" in line and '"cpu_compute_dtype": "auto"' in line


def test_a_resumed_run_is_not_told_to_choose_otherwise(here: Here, began, caplog: pytest.LogCaptureFixture) -> None:
    here.be(SLOW)
    settle_compute_dtype("auto", began(cpu_compute_dtype="bfloat16"))
    (line,) = (record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING)
    assert "goes on as it began" in line and "auto" not in line


def test_another_machine_is_told_in_one_sentence(here: Here, began, caplog: pytest.LogCaptureFixture) -> None:
    first = settle_compute_dtype("auto", None)
    here.be(SLOW, "B")
    caplog.clear()
    settle_compute_dtype("auto", began(**first.as_keys()))
    lines = [record.getMessage() for record in caplog.records if "began on" in record.getMessage()]
    assert lines == [
        "The run began on A, products by oneDNN, 2 threads and goes on with B, products by oneDNN, 2 threads: products "
        "are computed in bfloat16 as before, but the last bits of their sums may differ."
    ]
    here.be(FAST)
    caplog.clear()
    settle_compute_dtype("auto", began(**first.as_keys()))
    assert not any("began on" in record.getMessage() for record in caplog.records)


def test_without_the_built_ops_bfloat16_is_refused_by_a_warning(
    here: Here, began, caplog: pytest.LogCaptureFixture
) -> None:
    here.be(None)
    settle_compute_dtype("bfloat16", None)
    settle_compute_dtype("auto", began(cpu_compute_dtype="bfloat16"))
    first, resumed = (record.getMessage() for record in caplog.records)
    assert "float32 is what can be had here" in first and "as this run began" in resumed


def test_on_a_gpu_nothing_is_measured(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute_dtype, "gpu_is_usable", lambda: True)
    monkeypatch.setattr(built, "library", lambda: pytest.fail("looked for"))
    assert settle_compute_dtype("auto", None) == ComputeSettings("float32")


def test_ranks_take_over_what_the_first_has_measured_and_chosen(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Speed(Machine("A", "", 2, 2, True, "", ""), FAST)
    said = iter([text_of(first), "bfloat16"])
    taken: list[Speed] = []
    here.be(SLOW)
    monkeypatch.setattr(compute_dtype, "from_first", lambda decide: next(said))
    monkeypatch.setattr(built, "take_speed", taken.append)
    assert settle_compute_dtype("auto", None).dtype == "bfloat16" and taken == [first]


def test_what_the_machine_chose_is_what_a_run_is_known_by() -> None:
    from paddlemix.training.run_identity import KNOWN_KEYS, identity_keys

    config = config_with(data_files="a")
    keys = identity_keys(config, ComputeSettings("bfloat16", "A, 2 threads"))
    assert keys == {**identity_keys(config), "cpu_compute_dtype": "bfloat16", "cpu": "A, 2 threads"}
    assert "cpu" not in KNOWN_KEYS.all and "cpu_compute_dtype" in KNOWN_KEYS.model
