"""Files that become more than they are: refused early, with their names; a cut file of the cache is made anew."""

import gzip
import json
import resource
import subprocess
import sys
import textwrap
import time

import pytest

from paddlemix import cache
from paddlemix.cache import cache_folder
from paddlemix.datasets.records.indexed_file import open_records
from paddlemix.datasets.records.stores.stored import StoredRecords

RECORDS = [{"image": f"{number}.png", "caption": "a red circle"} for number in range(20)]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Give each test a cache of its own."""
    monkeypatch.setenv("PADDLEMIX_CACHE", str(tmp_path / "cache"))


def write(tmp_path, records=RECORDS, name="a.jsonl.gz"):
    path = tmp_path / name
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, records)).encode(), mtime=0))
    return str(path)


@pytest.fixture
def bomb(tmp_path):
    """A file of 0.9 MB that holds 0.9 GB."""
    path = tmp_path / "bomb.jsonl.gz"
    path.write_bytes(gzip.compress(b"x" * 30_000_000) * 30)
    assert path.stat().st_size < 1_000_000
    return str(path)


def kept_files():
    return [file for file in cache_folder("unpacked").iterdir() if file.suffix != ".lock"]


def test_a_bomb_is_refused_within_a_second_and_leaves_nothing(bomb):
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(ValueError, match=r"bomb\.jsonl\.gz: .* more than 200 times its size.*`unpack_limit`"):
        open_records(bomb)
    assert time.process_time() - start < 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # in KB
    assert kept_files() == []


NAMED = b"\x1f\x8b\x08\x08" + bytes(6) + b"a" * 10_000_000  # a header with a name of 10 MB


@pytest.mark.parametrize(
    ("packed", "words"),
    [
        (NAMED, "ends within a member"),
        (NAMED + b"\0" + gzip.compress(b'{"a": 1}\n')[10:], None),
        (gzip.compress(b'{"a": 1}\n') + bytes(10_000_000), None),
        (gzip.compress(b"") * 100_000 + gzip.compress(b'{"a": 1}\n'), None),
    ],
    ids=("a name without end", "a long name", "zeros behind it", "empty members"),
)
def test_headers_and_members_without_content_take_no_time(tmp_path, packed, words):
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(packed)
    start = time.process_time()
    if words is None:
        assert len(open_records(str(path))) == 1
    else:
        with pytest.raises(ValueError, match=words):
            open_records(str(path))
    assert time.process_time() - start < 0.7


@pytest.mark.parametrize(
    ("packed", "words"),
    [
        (gzip.compress(gzip.compress(b"{}")), "gzipped twice; unpack it once"),
        (gzip.compress(b"{}") + b"rest", "no gzip file, or cut off"),
        (gzip.compress(b"{}")[:-4], "ends within a member"),
        (gzip.compress(b"{}")[:-8] + bytes(8), "no gzip file, or cut off"),
        (bytes(100), "no gzip file, or cut off"),
    ],
    ids=("twice", "something behind it", "cut off", "another checksum", "none"),
)
def test_what_is_no_gzip_file_of_records_is_named(tmp_path, packed, words):
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(packed)
    with pytest.raises(ValueError, match=rf"a\.jsonl\.gz: .*{words}"):
        open_records(str(path))
    assert kept_files() == []


def test_members_are_unpacked_one_behind_the_other(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    members = [f'{{"a": "{"x" * size}"}}\n'.encode() for size in (1, 2_000_000, 20_000, 3)]
    path.write_bytes(b"".join(gzip.compress(member) + bytes(size) for size, member in enumerate(members)))
    assert [len(record["a"]) for record in open_records(str(path))] == [1, 2_000_000, 20_000, 3]


@pytest.mark.parametrize("limit", [100, 500])
def test_a_limit_holds_for_what_is_kept_already_too(tmp_path, limit):
    path = write(tmp_path)
    assert len(open_records(path)) == len(open_records(path, 10_000)) == 20
    with pytest.raises(ValueError, match=f"unpacks to more than {limit:,} bytes; raise `unpack_limit`"):
        open_records(path, limit)


def test_a_limit_takes_the_place_of_the_ratio(tmp_path, monkeypatch):
    monkeypatch.setattr("paddlemix.datasets.records.unpacking._ALWAYS_ALLOWED", 1000)
    path = write(tmp_path, RECORDS[:1] * 100_000)
    with pytest.raises(ValueError, match="times its size"):
        open_records(path)
    assert len(open_records(path, 100_000_000)) == 100_000


@pytest.mark.parametrize("damage", ["empty", "cut", "longer", "no size", "folder of a size"])
def test_an_unpacked_file_that_is_not_what_it_was_is_made_anew(tmp_path, damage):
    path = write(tmp_path)
    open_records(path)
    plain, size = sorted(kept_files(), key=lambda file: file.suffix)
    if damage in ("empty", "cut", "longer"):
        plain.write_bytes({"empty": b"", "cut": plain.read_bytes()[:50], "longer": plain.read_bytes() * 2}[damage])
    else:
        size.unlink()
        if damage == "folder of a size":
            size.write_bytes(b"\xff\xfe")
    assert list(open_records(path)) == RECORDS


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl"])
def test_a_full_cache_is_done_without_and_said_once(tmp_path, monkeypatch, caplog, name):
    real, full = cache.replacing, cache_folder("")

    def replacing(path):
        if full in path.parents:
            raise OSError(28, "No space left on device")
        return real(path)

    for module in ("paddlemix.cache", "paddlemix.datasets.records.unpacking"):
        monkeypatch.setattr(f"{module}.replacing", replacing)
    monkeypatch.setattr(cache, "_warned_of", set())
    path = write(tmp_path)
    if name == "a.jsonl":
        plain = tmp_path / name
        plain.write_bytes(gzip.decompress((tmp_path / "a.jsonl.gz").read_bytes()))
        path = str(plain)
    for _ in range(2):
        records = open_records(path)
        assert isinstance(records, StoredRecords) and list(records) == RECORDS
    warnings = [record.getMessage() for record in caplog.records if "cannot be written to" in record.getMessage()]
    assert len(warnings) == (2 if name.endswith(".gz") else 1)  # the unpacked files, and the index
    assert all("No space left on device" in warning and "PADDLEMIX_CACHE" in warning for warning in warnings)


def test_where_there_is_no_room_at_all_the_file_is_named(tmp_path):
    path = write(tmp_path, RECORDS * 2000)
    code = f"""
        import resource
        from paddlemix.datasets.records.indexed_file import open_records
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
        try:
            open_records({path!r})
        except ValueError as error:
            print(error)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"{path}: the file cannot be unpacked, there is no room")
    assert "PADDLEMIX_CACHE" in done.stdout
