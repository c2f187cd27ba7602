"""What is told of how records were read: notes, and keys that nothing reads."""

from __future__ import annotations

import json
import logging
from dataclasses import replace

import pytest

from paddlemix.contract import SampleSize
from paddlemix.conversation import Conversation, OverlongError, RecordError, Text, Turn, UnknownKeysError
from paddlemix.datasets import spec as spec_module
from paddlemix.datasets.formats.format import Format
from paddlemix.datasets.loading import processes
from paddlemix.datasets.loading.checking import Start
from paddlemix.datasets.loading.load import load_set
from paddlemix.datasets.mix_dataset import MixDataset
from paddlemix.datasets.spec import DatasetSpec


def parse(record, reading):
    """A format that reads `text`, and tells of each `note`."""
    source = reading.source
    turns = record.get("turns", [])
    unknown = [key for key in record if key not in ("text", "note", "turns", "tools")]
    unknown += [f"turns[].{key}" for turn in turns for key in turn if key != "text"]
    if unknown:
        raise UnknownKeysError(source, tuple(unknown))
    return Conversation(
        (Turn("user", (Text(record["text"]),)), Turn("assistant", (Text("a"),))),
        source,
        tools=tuple(map(json.dumps, record.get("tools", ()))),
        notes=(record["note"],) if "note" in record else (),
    )


class Processor:
    def measure(self, conversation):
        text = conversation.turns[0].parts[0].text
        if text == "bad":
            raise RecordError(conversation.source, "bad indeed")
        if text == "long":
            raise OverlongError(conversation.source, "too long")
        return SampleSize(len(text), 0, 1)

    def fingerprint(self):
        return ""


@pytest.fixture(autouse=True)
def _format(tmp_path, monkeypatch):
    monkeypatch.setenv("PADDLEMIX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(spec_module, "find_format", lambda name: Format(parse))


def write(path, records, **keys):
    path.write_text("\n".join(map(json.dumps, records)))
    return DatasetSpec("openai", str(path), **keys)


def load(*specs, policy="raise", **keys):
    return MixDataset.load(specs, Processor(), policy, **keys)


def test_notes_are_counted_told_once_a_set_and_told_again_at_the_next_start(tmp_path, caplog):
    noted = [{"text": "x", "note": f"note {n % 2}"} for n in range(5)]
    records = [{"text": "x"}, *noted, {"text": "bad", "note": "no"}]
    spec = write(tmp_path / "a.jsonl", records)
    for _ in range(2):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            load_set(spec, Processor())
        (message,) = caplog.messages
        assert message.splitlines() == [
            f"{tmp_path}/a.jsonl (openai):",
            f"  3 records: note 0 (first: {tmp_path}/a.jsonl, record 1)",
            f"  2 records: note 1 (first: {tmp_path}/a.jsonl, record 2)",
        ]


def test_notes_of_several_processes_add_up(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(processes, "usable_cores", lambda: 2)
    records = [{"text": "x", "note": f"note {n % 3}"} if n > 5000 else {"text": "x"} for n in range(9000)]
    load_set(write(tmp_path / "a.jsonl", records), Processor())
    counts = dict(line.split(" (")[0].strip().split(" records: ")[::-1] for line in caplog.messages[0].splitlines()[1:])
    assert counts == {"note 0": "1,333", "note 1": "1,333", "note 2": "1,333"}
    assert "(first: " in caplog.text and "record 5001)" in caplog.text


@pytest.mark.parametrize("policy", ["raise", "skip"])
def test_keys_that_nothing_reads_are_listed_in_one_error_whatever_the_policy(tmp_path, policy):
    records = [{"text": "x"}, {"text": "x", "score": 1}, {"text": "x", "score": 2, "turns": [{"text": "y", "foo": 1}]}]
    specs = write(tmp_path / "a.jsonl", records), write(tmp_path / "b.jsonl", [{"text": "x", "txet": "y"}])
    for _ in range(2):  # the second start finds the same
        with pytest.raises(ValueError, match="nothing reads") as caught:
            load(*specs, policy=policy)
        a, b = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
        remedy = "Correct their spelling, rename them with `columns`, or name them in `ignore_keys` of the set:"
        assert str(caught.value).splitlines() == [
            f"{a} (openai): keys that nothing reads: `score` (2 records, first: {a}, record 1), "
            f'`turns[].foo` (1 record, first: {a}, record 2). {remedy} ["score", "foo"]',
            f'{b} (openai): keys that nothing reads: `txet` (1 record, first: {b}, record 0). {remedy} ["txet"]',
        ]


@pytest.mark.parametrize("ignored", [["score", "foo"], ["score", "turns[].foo"]])
def test_keys_that_may_be_ignored_are_taken_out_before_the_record_is_read(tmp_path, ignored):
    records = [{"text": "x", "score": 2, "turns": [{"text": "y", "foo": 1, "score": 3}]}, {"text": "x"}]
    if ignored == ["score", "turns[].foo"]:
        with pytest.raises(ValueError, match=r"`foo` \(1 record"):
            load(write(tmp_path / "c.jsonl", [{"text": "x", "foo": 1}], ignore_keys=ignored))
    assert len(load(write(tmp_path / "a.jsonl", records, ignore_keys=ignored))) == 2


def test_names_of_tools_and_their_arguments_stay(tmp_path):
    tools = [{"name": "rate", "parameters": {"score": {"type": "number"}}}]
    spec = write(tmp_path / "a.jsonl", [{"text": "x", "score": 1, "tools": tools}], ignore_keys=["score"])
    assert load(spec).conversations[0].tools == (json.dumps(tools[0]),)


def test_a_set_read_with_other_keys_ignored_is_another_set(tmp_path):
    spec = write(tmp_path / "a.jsonl", [{"text": "x", "score": 1}])
    with pytest.raises(ValueError, match="nothing reads"):
        load(spec)
    assert len(load(replace(spec, ignore_keys=["score"]))) == 1
    with pytest.raises(ValueError, match="nothing reads"):
        load(spec)


def test_a_blank_name_is_refused():
    with pytest.raises(ValueError, match="`ignore_keys` is"):
        DatasetSpec("openai", "a.json", ignore_keys=[""])


def test_a_preview_is_given_the_records_with_unknown_keys_as_problems(tmp_path):
    records = [{"text": "x"}, {"text": "bad"}, *({"text": "x", "score": n, "txet": 1} for n in range(30))]
    loaded = load_set(write(tmp_path / "a.jsonl", records), Processor())
    assert [error.source.index for error in loaded.errors] == list(range(1, 22))
    assert "nothing reads `score`, `txet`" in str(loaded.errors[1]) and len(loaded.sizes) == 1


def test_a_kind_of_error_survives_being_kept(tmp_path):
    spec = write(tmp_path / "a.jsonl", [{"text": "x"}, {"text": "long"}, {"text": "bad"}])
    for _ in range(2):
        mix = MixDataset.load([spec], Processor(), "skip", start=Start(token="t"))
        assert [type(error) for error in mix.skipped] == [OverlongError, RecordError]
