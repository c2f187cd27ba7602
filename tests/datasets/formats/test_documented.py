"""What docs/datasets.md says about formats is true."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from paddlemix.conversation import Conversation, RecordId
from paddlemix.datasets.formats import AUTO, FORMATS
from paddlemix.datasets.reading.context import Reading
from paddlemix.datasets.records.recognise import recognise
from paddlemix.datasets.spec import DatasetSpec

DRIVER = runpy.run_path(str(Path(__file__).parents[1] / "fuzz_records.py"))
DOCUMENT = DRIVER["DOCUMENT"].read_text("utf-8")
SECTIONS, examples, is_table = DRIVER["sections"](), DRIVER["examples"], DRIVER["is_table"]
RECORDS = [(name, value) for name, section in SECTIONS for value in examples(section) if not is_table(value)]
TABLES = [(name, list(filter(is_table, examples(section)))) for name, section in SECTIONS]


def test_every_format_has_a_section_with_a_record():
    documented = [FORMATS[name] for name, _ in RECORDS]
    missing = [name for name, each in FORMATS.items() if each not in documented]
    assert missing == ["ocrvqa_train", "ocrvqa_val", "ocrvqa_test", "grounding_xyxy"]
    assert all(f"`{name}`" in DOCUMENT for name in FORMATS)


@pytest.mark.parametrize(("name", "record"), RECORDS)
def test_a_documented_record_is_read(name, record):
    conversation = FORMATS[name].parse(record, Reading(RecordId("docs", 0), Path()))
    assert isinstance(conversation, Conversation) and conversation.task == FORMATS[name].task


def test_the_splits_of_a_format_have_its_task():
    assert {FORMATS[name].task for name in FORMATS if name.startswith("ocrvqa")} == {"vqa"}


@pytest.mark.parametrize(("name", "tables"), [(name, tables) for name, tables in TABLES if tables])
def test_documented_tables_are_read(name, tables):
    record_format = FORMATS[name]
    entries = list(record_format.expand({f"{place}.json": table for place, table in enumerate(tables)}))
    assert entries
    for entry, source in entries:
        assert isinstance(record_format.parse(entry, Reading(source, Path())), Conversation)


@pytest.mark.parametrize("name", dict.fromkeys(name for name, _ in RECORDS))
def test_documented_records_are_recognised(name):
    records = [record for each, record in RECORDS if each == name]
    spec = DatasetSpec(AUTO, "a.jsonl")
    assert FORMATS[recognise(spec, [("a.jsonl", records)]).name] == FORMATS[name]
