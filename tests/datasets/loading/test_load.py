"""Records that stay on disk, and sizes that are kept from run to run."""

from __future__ import annotations

import csv
import dataclasses
import gzip
import io
import json
import os
import tarfile
import threading

import numpy as np
import pytest

from paddlemix.cache import cache_folder, kept
from paddlemix.contract import SampleSize
from paddlemix.conversation import RecordError, Text
from paddlemix.datasets.loading import processes
from paddlemix.datasets.loading.load import load_set
from paddlemix.datasets.loading.measure import CHUNK
from paddlemix.datasets.spec import DatasetSpec


class Counting:
    """A token a character; counts what it measures, and refuses records that name a file that is not there."""

    def __init__(self, settings="a"):
        self.measured, self.settings = 0, settings

    def measure(self, conversation):
        self.measured += 1
        text = "".join(part.text for part in conversation.parts if isinstance(part, Text))
        if text.startswith("/") and not os.path.exists(text[:-1]):
            raise RecordError(conversation.source, f"no file {text[:-1]}")
        return SampleSize(len(text), 0, 1)

    def fingerprint(self):
        return self.settings


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PADDLEMIX_CACHE", str(tmp_path / "cache"))


def write(path, questions):
    path.write_text(json.dumps([{"conversations": [[question, "a"]]} for question in questions]))
    return DatasetSpec("chatml_dataset", str(path))


def measured(spec, settings="a"):
    processor = Counting(settings)
    return load_set(spec, processor), processor.measured


def test_a_second_start_measures_nothing_and_gives_the_same(tmp_path):
    spec = write(tmp_path / "a.json", ["一", "zwei", "three"])
    first, second = measured(spec), measured(spec)
    assert (first[1], second[1]) == (3, 0)
    assert (
        list(first[0].sizes) == list(second[0].sizes) == [SampleSize(2, 0, 1), SampleSize(5, 0, 1), SampleSize(6, 0, 1)]
    )
    assert list(first[0].conversations) == list(second[0].conversations)


def test_other_contents_settings_and_choices_are_measured_anew(tmp_path):
    spec = write(tmp_path / "a.json", ["1", "22"])
    assert [measured(spec)[1], measured(spec, "b")[1]] == [2, 2]
    assert measured(DatasetSpec("chatml_dataset", spec.data_files, max_samples=1))[1] == 1
    spec = write(tmp_path / "a.json", ["1", "333"])
    assert measured(spec)[1] == 2
    assert measured(spec)[1] == 0


def test_records_of_which_other_turns_are_learned_are_measured_anew(tmp_path):
    spec = write(tmp_path / "a.json", ["one", "two"])
    assert [measured(spec)[1], measured(dataclasses.replace(spec, train_on="last"))[1]] == [2, 2]
    conversations = measured(dataclasses.replace(spec, train_on="all"))[0].conversations
    assert [turn.weight for turn in conversations[1].turns] == [1, 1]


def test_a_bad_record_is_looked_at_again_and_may_have_been_mended(tmp_path):
    spec = write(tmp_path / "a.json", ["fine", str(tmp_path / "missing"), "fine too"])
    loaded, count = measured(spec)
    assert (count, len(loaded.sizes), loaded.errors[0].source.index) == (3, 2, 1)
    assert measured(spec)[1] == 1
    (tmp_path / "missing").touch()
    loaded, count = measured(spec)
    assert (count, len(loaded.sizes), loaded.errors) == (1, 3, ())
    assert measured(spec)[1] == 0


def test_a_kept_file_that_is_broken_is_made_again(tmp_path, caplog):
    spec = write(tmp_path / "a.json", ["1", "22"])
    measured(spec)
    (kept_at,) = cache_folder("sizes").glob("*.npz")
    kept_at.write_bytes(b"half")
    assert measured(spec)[1] == 2
    assert "it is made again" in caplog.text
    assert measured(spec)[1] == 0


def test_where_nothing_can_be_kept_records_load_nevertheless(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").touch()
    monkeypatch.setenv("PADDLEMIX_CACHE", str(tmp_path / "file"))
    assert len(measured(write(tmp_path / "a.json", ["1", "22"]))[0].sizes) == 2
    assert "cannot be written to" in caplog.text


def test_many_records_are_measured_by_several_processes_in_their_order(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "usable_cores", lambda: 2)
    count = 8 * CHUNK + 7
    spec = write(tmp_path / "a.json", ["/none" if n % 5000 == 4999 else "x" * (n % 50) + "y" for n in range(count)])
    loaded, in_this_process = measured(spec)
    assert in_this_process == 0
    wanted = [n % 50 + 2 for n in range(count) if n % 5000 != 4999]
    assert [size.tokens for size in loaded.sizes] == wanted
    assert [error.source.index for error in loaded.errors] == [4999]


def test_one_of_several_askers_makes_what_all_get(tmp_path):
    made = []

    def make():
        made.append(1)
        return np.arange(5)

    results = []
    threads = [threading.Thread(target=lambda: results.append(kept(tmp_path / "a.npy", make))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert [result.tolist() for result in results] == [list(range(5))] * 8


def test_what_fails_is_not_kept_and_the_next_may_try(tmp_path):
    with pytest.raises(ZeroDivisionError):
        kept(tmp_path / "a.npy", lambda: 1 // 0)
    assert kept(tmp_path / "a.npy", lambda: np.arange(2)).tolist() == [0, 1]


@pytest.mark.parametrize("ending", [".jsonl", ".jsonl.gz", ".json", ".json.gz", ".csv", ".tsv.gz", ".parquet", ".tar"])
@pytest.mark.parametrize("name", ["caption_dataset", "auto"])
def test_records_of_every_ending_are_read_one_by_one(tmp_path, ending, name):
    values = [{"image": f"{n}.jpg", "caption": f'{n}, a "quoted" 图\nof {n}'} for n in range(300)]
    file = write_as(tmp_path / f"a{ending}", values)
    for _ in range(2):
        loaded, _ = measured(DatasetSpec(name, str(file)))
        assert not loaded.errors
        captions = [conversation.answers[0] for conversation in loaded.conversations]
        assert captions == [value["caption"] for value in values]
        assert loaded.conversations[299].source.index == 299


def test_shards_of_a_pattern_are_one_set(tmp_path):
    for shard in range(3):
        write_as(tmp_path / f"s-{shard:03d}.tar", [{"image": f"{n}.jpg", "caption": f"{shard}{n}"} for n in range(4)])
    for name in ("s-*.tar", "s-{000..002}.tar", "."):
        loaded, _ = measured(DatasetSpec("caption_dataset", str(tmp_path / name)))
        assert [one.answers[0] for one in loaded.conversations] == [f"{s}{n}" for s in range(3) for n in range(4)]


def write_as(file, values):
    """Write records in the way that a file's ending says."""
    kind = file.suffixes[0]
    if kind == ".parquet":
        pyarrow = pytest.importorskip("pyarrow")
        pytest.importorskip("pyarrow.parquet").write_table(pyarrow.Table.from_pylist(values), file, row_group_size=70)
        return file
    if kind == ".tar":
        with tarfile.open(file, "w") as archive:
            for number, value in enumerate(values):
                content = json.dumps(value).encode()
                member = tarfile.TarInfo(f"{number:05d}.json")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        return file
    text = io.StringIO()
    if kind in (".csv", ".tsv"):
        writer = csv.DictWriter(text, list(values[0]), delimiter={".csv": ",", ".tsv": "\t"}[kind])
        writer.writeheader()
        writer.writerows(values)
    else:
        lines = list(map(json.dumps, values))
        text.write("\n".join(lines) if kind == ".jsonl" else f"[{','.join(lines)}]")
    content = text.getvalue().encode()
    file.write_bytes(gzip.compress(content) if file.suffix == ".gz" else content)
    return file


def test_memory_does_not_grow_with_the_records(tmp_path):
    def grown(count):
        spec = write(tmp_path / f"{count}.json", ["word " * 40] * count)
        load_set(spec, Counting())
        before = anonymous_kibibytes()
        held = load_set(spec, Counting())
        return len(held.sizes), anonymous_kibibytes() - before

    for count in (2000, 40000):
        held, kibibytes = grown(count)
        assert held == count
    # 40,000 parsed conversations of 200 characters take 60 MB; offsets are mapped, sizes take 16 bytes each.
    assert kibibytes < 8 * 1024


def anonymous_kibibytes():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon"))
