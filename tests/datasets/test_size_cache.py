from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from paddlemix.datasets.size_cache import SizeCache, sizes_folder
from paddlemix.processors.interface import SampleSize

SIZES = [SampleSize(10, 4, 3), None, SampleSize(7, 0, 2, 5)]


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PADDLEMIX_CACHE", str(tmp_path / "cache"))
    (tmp_path / "a.json").write_text("[1]")
    return tmp_path / "a.json"


def test_sizes_come_back_and_the_unknown_stay_unknown(file):
    assert SizeCache([file], "s").load(3) == [None] * 3
    SizeCache([file], "s").save(SIZES)
    assert SizeCache([file], "s").load(3) == SIZES


def test_content_and_settings_tell_sets_apart_and_names_do_not(file):
    SizeCache([file], "s").save(SIZES)
    assert SizeCache([file], "t").load(3) == [None] * 3
    assert SizeCache([file, file], "s").load(3) == [None] * 3
    other = file.with_name("b.json")
    other.write_text("[1]")
    assert SizeCache([other], "s").load(3) == SIZES
    other.write_text("[2]")
    assert SizeCache([other], "s").load(3) == [None] * 3


@pytest.mark.parametrize("damage", [b"", b"no array", None])
def test_what_cannot_be_used_is_measured_again_and_said(file, damage, caplog):
    cache = SizeCache([file], "s")
    cache.save(SIZES)
    if damage is not None:
        cache.path.write_bytes(damage)
    with caplog.at_level(logging.WARNING):
        assert cache.load(2) == [None] * 2
    assert "measured again" in caplog.text and str(cache.path) in caplog.text


def test_a_file_is_whole_while_others_write_it(file):
    cache, tables = SizeCache([file], "s"), [[SampleSize(n, n, n)] * 2000 for n in range(1, 9)]
    cache.save(tables[0])
    with ThreadPoolExecutor(1) as writer:
        written = [writer.submit(cache.save, table) for table in tables]
        while not all(job.done() for job in written):
            assert cache.load(2000) in tables
        assert all(job.exception() is None for job in written)


def test_the_folder_is_the_variables_or_the_users(tmp_path, monkeypatch):
    monkeypatch.setenv("PADDLEMIX_CACHE", str(tmp_path))
    assert sizes_folder() == tmp_path / "sizes"
    monkeypatch.delenv("PADDLEMIX_CACHE")
    assert sizes_folder() == Path.home() / ".cache" / "paddlemix" / "sizes"
