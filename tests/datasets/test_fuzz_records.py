"""The short version of tests/datasets/fuzz_records.py."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from paddlemix.conversation import RecordError

DRIVER = runpy.run_path(str(Path(__file__).with_name("fuzz_records.py")))


def test_every_mutated_record_is_accepted_or_refused_by_name():
    with DRIVER["fuzzer"](seed=0) as one:
        one.run(1200)
    assert one.failures == []
    # Guards: both happen, and whole files are among them.
    assert one.outcomes["accepted"] >= 20 and one.outcomes["refused"] >= 200 and one.outcomes["files read"] >= 1


@pytest.mark.parametrize("error", [KeyError("x"), RecordError.__new__(RecordError), TimeoutError("x")])
def test_the_driver_sees_what_is_not_as_it_should_be(monkeypatch, error):
    if isinstance(error, RecordError):
        error.__init__(DRIVER["RecordId"]("other.json", 0), "a problem of another record")
    with DRIVER["fuzzer"](seed=0) as one:
        monkeypatch.setattr(one.processor, "measure", lambda conversation: (_ for _ in ()).throw(error))
        one.run(100)
    assert one.failures and one.outcomes["accepted"] == 0


def test_the_driver_sees_a_record_that_takes_too_long():
    def spin() -> None:
        while True:
            pass

    with pytest.raises(TimeoutError), DRIVER["bounded"](1):
        spin()
