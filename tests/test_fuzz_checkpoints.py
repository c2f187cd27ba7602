"""The short version of tests/fuzz_checkpoints.py."""

from __future__ import annotations

import os
import signal
from collections import Counter
from mmap import PAGESIZE, mmap

import pytest

from tests import fuzz_checkpoints
from tests.fuzz_checkpoints import KILOBYTES, Fuzzer, checkpoints, sentence_problem


@pytest.fixture(scope="module")
def folders(tiny_checkpoint, tiny_qwen2_5_vl, tiny_qwen_vl, tmp_path_factory):
    sources, folder = (tmp_path_factory.mktemp(name) for name in ("sources", "folders"))
    for name, source in (("qwen2_vl", tiny_checkpoint), ("qwen2_5_vl", tiny_qwen2_5_vl), ("qwen_vl", tiny_qwen_vl)):
        (sources / name).symlink_to(source)
    return checkpoints(sources, folder)


def test_every_mutated_checkpoint_is_read_in_bounds_or_refused_by_a_sentence(folders):
    fuzzer = Fuzzer(folders, seed=2)
    fuzzer.run(300)
    assert fuzzer.failures == [] and fuzzer.growth < KILOBYTES
    # Guards: both happen, and every kind of file is among them.
    totals = Counter()
    for name, count in fuzzer.outcomes.items():
        totals[name.split()[1]] += count
    assert totals["accepted"] >= 40 and totals["refused"] >= 100
    refused = {name.split()[0] for name in fuzzer.outcomes if name.endswith(" refused")}
    assert refused >= {
        "config.json", "generation_config.json", "preprocessor_config.json", "video_preprocessor_config.json",
        "processor_config.json", "tokenizer.json", "tokenizer_config.json", "added_tokens.json",
        "special_tokens_map.json", "vocab.json", "merges.txt", "chat_template.json", "chat_template.jinja",
        "adapter_config.json", "model.safetensors.index.json", "qwen.tiktoken",
    }  # fmt: skip


def spin(folder):
    while True:
        pass


def fail(folder):
    raise KeyError("x")


def take(folder):
    """Take 256 MB of new pages; for bytes there may be room in what the tests before have freed."""
    pages = mmap(-1, 2**28)
    for place in range(0, len(pages), PAGESIZE):
        pages[place] = 1


KEPT: list[mmap] = []


@pytest.mark.parametrize(
    ("use", "said"),
    [
        (fail, "KeyError"),
        (lambda folder: bytearray(2**31), "MemoryError"),
        (take, "kilobytes"),
        (lambda folder: os.kill(os.getpid(), signal.SIGKILL), "the process ended with -9"),
        (spin, "the process ended with -26"),
    ],
)
def test_the_driver_sees_what_is_not_as_it_should_be(folders, monkeypatch, use, said):
    whole = {file: file.read_bytes() for folder in folders for file in folder.rglob("*.json")}
    copies: list[bool] = []  # the first use of each folder in a process is that of an unchanged one
    monkeypatch.setattr(fuzz_checkpoints, "SECONDS", 1)
    monkeypatch.setattr(
        fuzz_checkpoints, "use", lambda one: use(one) if len(copies) == len(folders) else copies.append(True)
    )
    fuzzer = Fuzzer(folders, seed=0, batch=1)
    fuzzer.run(1)
    assert len(fuzzer.failures) == 1 and said in fuzzer.failures[0]
    assert whole == {file: file.read_bytes() for file in whole}


def test_the_driver_sees_a_process_that_grows(folders, monkeypatch):
    # Not bytes, for which there may be room in what is free already.
    monkeypatch.setattr(fuzz_checkpoints, "use", lambda one: KEPT.append(mmap(-1, 2**26)))
    fuzzer = Fuzzer(folders, seed=0, batch=8)
    fuzzer.run(8)
    assert fuzzer.growth > KILOBYTES


@pytest.mark.parametrize("said", ["damaged.", "/model/a.json: damaged\nTraceback.", "/model/a.json: " + "a" * 2000])
def test_the_driver_sees_a_refusal_that_is_no_sentence_about_a_file(tmp_path, said):
    assert sentence_problem(ValueError(f"{tmp_path}/a.json: damaged, fetch it again."), tmp_path) is None
    assert sentence_problem(ValueError(said.replace("/model", str(tmp_path))), tmp_path) is not None
    assert sentence_problem(KeyError(f"{tmp_path}/a.json"), tmp_path) is not None
