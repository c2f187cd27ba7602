"""Files of millions of things that are no records."""

from __future__ import annotations

import pytest

from paddlemix.datasets.loading import measure
from paddlemix.datasets.loading.load import load_set
from paddlemix.datasets.spec import DatasetSpec

GOOD = '{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}\n'


@pytest.fixture
def load(tmp_path, make_processor, monkeypatch):
    monkeypatch.setattr(measure, "_MANY_BAD", 2000)

    def load(text):
        (tmp_path / "r.jsonl").write_text(text)
        return load_set(DatasetSpec(name="openai", data_files=str(tmp_path / "r.jsonl")), make_processor())

    return load


def test_a_set_of_nothing_but_bad_records_is_given_up(load):
    with pytest.raises(ValueError, match=r"2,048 of the first 2,048 records cannot be used.*r\.jsonl, record 0: "):
        load("{}\n" * 50_000)


def test_a_set_with_many_bad_records_among_good_ones_is_read_to_its_end(load):
    loaded = load(("{}\n" * 4 + GOOD) * 1000)
    assert len(loaded.errors) == 4000 and len(loaded.conversations) == 1000
