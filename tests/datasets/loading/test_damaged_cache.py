"""Whatever became of a file of the cache, a start goes on as if it were not there."""

import gzip
import io
import json
import os
import signal
import tarfile

import numpy as np
import pytest

from paddlemix import cache
from paddlemix.cache import cache_folder, kept, only_one, written
from paddlemix.datasets.loading.load import load_set
from paddlemix.datasets.records.indexed_file import open_records
from paddlemix.datasets.spec import DatasetSpec

DAMAGES = {
    "empty": lambda content: b"",
    "cut in its header": lambda content: content[:30],
    "cut behind its header": lambda content: content[:140],
    "cut at its end": lambda content: content[:-9],
    "zeros": lambda content: bytes(len(content)),
    "noise": lambda content: np.random.default_rng(0).bytes(len(content)),
    "text": lambda content: b"<html>",
}
ARRAYS = [
    np.zeros(0),
    np.zeros((0, 3), dtype=np.int64),
    np.zeros(7, dtype=np.int64),
    np.zeros((3, 2), dtype=np.int64),
    np.full((3, 3), 1 << 40, dtype=np.int64),
    np.full((3, 3), -1, dtype=np.int64),
    np.zeros((3, 4)),
    np.array(["a"]),
    np.array(7),
]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Give each test a cache of its own."""
    monkeypatch.setenv("PADDLEMIX_CACHE", str(tmp_path / "cache"))


def save(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def spoil(kind, damage):
    """Damage all files of a kind of cache; returns how many."""
    files = [file for file in cache_folder(kind).rglob("*") if file.suffix in (".npy", ".npz", ".jsonl", ".start")]
    for file in files:
        file.write_bytes(damage(file.read_bytes()))
    return len(files)


def record_file(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    if kind == "jsonl":
        path.write_text('{"a": 1}\n{"a": 2}\n')
    elif kind == "csv":
        path.write_text("a\n1\n2\n")
    elif kind == "json.gz":
        path.write_bytes(gzip.compress(b'[{"a": 1}, {"a": 2}]'))
    else:
        with tarfile.open(path, "w") as archive:
            for number in (1, 2):
                member = tarfile.TarInfo(f"{number}.json")
                content = json.dumps({"a": number}).encode()
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return str(path)


@pytest.mark.parametrize("kind", ["jsonl", "csv", "tar", "json.gz"])
@pytest.mark.parametrize("damage", [*DAMAGES.values(), *(lambda _, array=array: save(array) for array in ARRAYS)])
def test_an_index_that_is_none_is_made_anew(tmp_path, kind, damage):
    path = record_file(tmp_path, kind)
    values = [str(record["a"]) for record in open_records(path)]
    assert spoil("index", damage) == 1
    if kind != "csv" and damage(b"") == save(ARRAYS[1]):
        return  # an empty index of such a file means that it is one object, which is told as what it is
    assert [str(record["a"]) for record in open_records(path)] == values == ["1", "2"]


@pytest.fixture
def loading(tmp_path, make_processor):
    """Load a set with a bad record and a note, with a table that was expanded."""
    path = tmp_path / "a.jsonl"
    records = [{"query": "q", "response": "r"}, {"query": "q"}, {"query": "q", "response": "r", "extra": 1}]
    path.write_text("\n".join(map(json.dumps, records)))
    processor = make_processor()
    return lambda: load_set(DatasetSpec(name="query_response", data_files=str(path)), processor)


@pytest.mark.parametrize("damage", [*DAMAGES.values(), *(lambda _, array=array: save(array) for array in ARRAYS)])
def test_what_is_known_of_a_set_and_is_broken_is_found_out_anew(loading, damage):
    before = loading()
    assert spoil("sizes", damage) > 0
    again = loading()
    assert [str(error) for error in again.errors] == [str(error) for error in before.errors] and before.errors
    assert np.array_equal(again.table, before.table)


@pytest.mark.parametrize(
    "name", ["table", "errors", "media_uses", "media_ends", "media_digests", "notes_holds", "notes_texts"]
)
@pytest.mark.parametrize(
    "array", [*ARRAYS, np.frombuffer(b'[[0, "x", 1]]', dtype=np.uint8), np.full((5, 2), 9, np.int32)]
)
def test_a_part_of_another_shape_is_found_out_anew(loading, name, array, caplog):
    before = loading()
    (file,) = cache_folder("sizes").glob("*.npz")
    with np.load(file) as arrays:
        parts = dict(arrays)
    assert name in parts
    np.savez(file, **{**parts, name: array})
    again = loading()
    assert [str(error) for error in again.errors] == [str(error) for error in before.errors]
    assert np.array_equal(again.table, before.table)
    assert "it is made again" in caplog.text or array.shape == parts[name].shape or not array.size


def test_a_part_that_is_missing_is_found_out_anew(loading):
    before = loading()
    (file,) = cache_folder("sizes").glob("*.npz")
    np.savez(file, table=np.zeros((3, 9)))
    assert np.array_equal(loading().table, before.table)


def test_a_cache_without_room_is_done_without_and_said_once(loading, monkeypatch, caplog):
    before = loading()
    for file in cache_folder("sizes").glob("*.np*"):
        file.unlink()

    def no_room(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache, "replacing", no_room)
    monkeypatch.setattr(cache, "_warned_of", set())
    for _ in range(2):
        assert np.array_equal(loading().table, before.table)
    assert caplog.text.count("cannot be written to") == 1


def test_an_array_that_cannot_be_kept_is_given_all_the_same(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(cache, "_warned_of", set())
    (tmp_path / "file").touch()
    for _ in range(2):
        assert kept(tmp_path / "file" / "a.npy", lambda: np.arange(3)).tolist() == [0, 1, 2]
    assert caplog.text.count("cannot be written to") == 1
    assert not written(tmp_path / "file" / "b", lambda beside: beside.touch())
    with only_one(tmp_path / "file" / "a.lock"):
        pass


@pytest.mark.parametrize("root", ["~nobody-of-this-name/cache", "{folder}" + "/a" * 1900, "/dev/null/cache"])
def test_a_cache_that_cannot_be_there_is_done_without(tmp_path, monkeypatch, caplog, root):
    monkeypatch.setenv("PADDLEMIX_CACHE", root.format(folder=tmp_path))
    cache._warn_of_cache.cache_clear()
    assert cache_folder("index").is_dir()
    assert "cannot be written to" in caplog.text and list(tmp_path.iterdir()) == []


def test_a_user_without_a_home_has_a_cache_that_passes(monkeypatch, caplog):
    monkeypatch.delenv("PADDLEMIX_CACHE")
    monkeypatch.setattr(cache.Path, "expanduser", _without_home)
    cache._warn_of_cache.cache_clear()
    assert cache_folder("index").is_dir()
    assert "cannot be written to (Could not determine home directory.)" in caplog.text


def _without_home(path):
    raise RuntimeError("Could not determine home directory.")


@pytest.fixture
def impatient():
    """Fail a test that waits for 5 s."""
    earlier = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("it waits"))
    signal.alarm(5)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, earlier)


@pytest.mark.parametrize("suffix", [".json", ".json.size", ".lock"])
@pytest.mark.usefixtures("impatient")
def test_a_pipe_in_place_of_a_file_of_the_cache_is_not_waited_for(tmp_path, suffix):
    path = record_file(tmp_path, "json.gz")
    open_records(path)
    (plain,) = [file for file in cache_folder("unpacked").iterdir() if file.suffix == ".json"]
    place = plain.with_name(plain.stem + suffix)
    place.unlink()
    os.mkfifo(place)
    assert len(open_records(path)) == 2
