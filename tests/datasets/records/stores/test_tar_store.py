from __future__ import annotations

import base64
import gzip
import io
import json
import random
import tarfile
import tracemalloc

import pytest

from paddlemix.conversation import RecordError
from paddlemix.datasets.records.indexed_file import open_records
from paddlemix.datasets.records.stores import tar_store

JPG, PNG, MP4 = b"\xff\xd8\xffx", b"\x89PNG\r\n\x1a\nx", b"\0\0\0 ftypisomx"


def url(kind, content):
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PADDLEMIX_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def write(tmp_path):
    def write(files, form=tarfile.PAX_FORMAT):
        """Write an archive of files; None makes a link, "folder" a folder."""
        with tarfile.open(tmp_path / "a.tar", "w", format=form) as archive:
            for name, content in files:
                member = tarfile.TarInfo(name)
                if content is None:
                    member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
                if content == "folder":
                    member.type, content = tarfile.DIRTYPE, None
                if isinstance(content, dict):
                    content = json.dumps(content).encode()
                member.size = len(content or b"")
                archive.addfile(member, io.BytesIO(content or b""))
        return str(tmp_path / "a.tar")

    return write


@pytest.mark.parametrize(
    ("files", "record"),
    [
        ({"json": {"a": 1}}, {"a": 1}),
        ({"jpg": JPG, "txt": b"A box.\n"}, {"image": url("image/jpeg", JPG), "caption": "A box."}),
        ({"json": {"caption": "A box."}, "txt": b"A box."}, {"caption": "A box."}),
        ({"json": {"caption": "A."}, "txt": "图".encode()}, {"caption": "A.", "txt": "图"}),
        ({"json": {"image": "0001.png"}, "png": PNG}, {"image": url("image/png", PNG)}),
        ({"0.jpg": JPG, "1.png": PNG}, {"images": [url("image/jpeg", JPG), url("image/png", PNG)]}),
        (
            {"json": {"images": ["x/0001.1.png", "x/0001.0.jpg"]}, "0.jpg": JPG, "1.png": PNG},
            {"images": [url("image/png", PNG), url("image/jpeg", JPG)]},
        ),
        ({"json": {"images": ["a.jpg"]}, "jpg": JPG}, {"images": [url("image/jpeg", JPG)]}),
        ({"mp4": MP4}, {"video": url("video/mp4", MP4)}),
        ({"JPG": PNG}, {"image": url("image/png", PNG)}),
        (
            {"jpg": JPG, "mask.png": PNG, "cls": b"3"},
            {"image": url("image/jpeg", JPG), "mask.png": url("image/png", PNG), "cls": "3"},
        ),
        ({"npy": b"\x93NUMPY"}, {"npy": url("application/octet-stream", b"\x93NUMPY")}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_files_of_one_name_make_a_record(write, files, record, form):
    path = write([(f"x/0001.{ending}", content) for ending, content in files.items()], form)
    for _ in range(2):
        (entry,) = open_records(path)
        assert entry == record


def test_records_come_in_the_order_of_their_first_files_and_need_not_lie_together(write):
    files = [(f"{'图' * 80}/{n}.json", {"n": n}) for n in range(30)]
    records = open_records(write([*files, *((name[:-4] + "cls", b"x") for name, _ in reversed(files))]))
    assert list(records) == [{"n": n, "cls": "x"} for n in range(30)]
    assert [entry["n"] for entry, _ in records.located([29, 3])] == [29, 3]


def test_folders_hidden_files_and_files_without_an_ending_are_no_records(write):
    names = [
        ("x.y/", "folder"),
        ("__MACOSX/._1.jpg", JPG),
        (".hidden.json", b"{}"),
        ("README", b"x"),
        ("x.y/1.json", {}),
    ]
    assert list(open_records(write(names))) == [{}]


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ([("1.json", b"[1]")], "the record is the list [1]; expected an object"),
        ([("1.json", b'{"a":\n NaN}')], "its .json file: `a` is NaN at line 2"),
        ([("1.json", b'{"a": 1, "a": 2}')], "key `a` comes twice"),
        ([("1.jpg", None)], "a file of the record is a link or no regular file"),
        ([("1.cls", b"1"), ("1.cls", b"2")], "two files of the record end in .cls"),
        ([("1.json", {"cls": "2"}), ("1.cls", b"1")], "its .json file has `cls`, and a file of it ends in .cls"),
        (
            [("1.json", {"images": ["a", "b"]}), ("1.jpg", JPG)],
            "`images` of its .json file names 2, but 1 lie beside it",
        ),
        ([("1.jpg", b"x" * 2000)], "the files of the record have more than"),
    ],
)
def test_one_bad_record_does_not_hide_the_others(write, monkeypatch, files, problem):
    monkeypatch.setattr(tar_store, "_LARGEST", 1000)
    first, bad, last = open_records(write([("0.json", {}), *files, ("2.json", {})]))
    assert (first, last) == ({}, {})
    assert isinstance(bad, RecordError) and bad.source.index == 1 and problem in bad.problem


@pytest.mark.parametrize("name", ["../../x.json", "/etc/x.json", "a/../../b.json"])
def test_names_that_lead_elsewhere_name_a_record_and_no_file(write, name, tmp_path):
    before = sorted(tmp_path.rglob("*.json"))
    assert list(open_records(write([(name, {"a": 1})]))) == [{"a": 1}]
    assert sorted(tmp_path.rglob("*.json")) == before


def test_a_broken_archive_is_refused_by_name(write, tmp_path):
    path = write([("1.json", {"a": 1}), ("2.jpg", JPG * 1000), ("3.json", {})])
    content = (tmp_path / "a.tar").read_bytes()
    for broken, problem in (
        (b"", "the file is no tar archive, or broken"),
        (b"x" * 2000, "the file is no tar archive, or broken"),
        (content[:1500], "the file is no tar archive, or broken"),
        (content[:3000], "the file is no tar archive, or broken"),
        (content[:1024] + b"junk" * 500, "no file begins at byte 1024 where one should"),
        (gzip.compress(content), "the archive is gzipped; unpack it first"),
        (b"\0" * 10240, "the archive holds no files such as 0001.jpg and 0001.json"),
    ):
        (tmp_path / "a.tar").write_bytes(broken)
        with pytest.raises(ValueError) as caught:
            open_records(path)
        assert str(caught.value).startswith(f"{path}: ") and problem in str(caught.value)


def test_an_archive_whose_bytes_are_changed_ends_in_words_whatever_they_are(write, tmp_path):
    path = write([(f"{n}{'图' * 50}.{ending}", {"n": n}) for n in range(5) for ending in ("json", "cls")])
    content = (tmp_path / "a.tar").read_bytes()
    chance = random.Random(0)
    outcomes = set()
    for _ in range(300):
        changed = bytearray(content)
        for _ in range(chance.choice((1, 3, 20))):
            changed[chance.randrange(len(changed))] = chance.randrange(256)
        (tmp_path / "a.tar").write_bytes(changed)
        try:
            entries = list(open_records(path))
        except ValueError as error:
            assert str(error).startswith(f"{path}: ")  # noqa: PT017
            outcomes.add("refused")
            continue
        outcomes |= {type(entry) for entry in entries}
    assert outcomes >= {"refused", dict}


def header(kind, size, name="h"):
    member = tarfile.TarInfo(name)
    member.type, member.size = kind, size
    return member.tobuf(tarfile.GNU_FORMAT)


def grow(path, size):
    """Give a file zeros up to a size, which take no room."""
    with open(path, "r+b") as file:
        file.truncate(size)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK])
def test_a_header_that_says_it_is_large_is_not_read(tmp_path, kind):
    path = tmp_path / "a.tar"
    path.write_bytes(header(kind, 1 << 30))
    grow(path, (1 << 30) + 4096)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"a\.tar: .* a header says that it has 1073741824 bytes"):
            open_records(str(path))
        assert tracemalloc.get_traced_memory()[1] < 10e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("kind", "text"), [(tarfile.GNUTYPE_LONGNAME, b"a"), (tarfile.XHDTYPE, b"12 path=abc\n")], ids=["name", "values"]
)
def test_headers_of_headers_are_a_sentence(tmp_path, kind, text):
    (tmp_path / "a.tar").write_bytes((header(kind, len(text)) + text.ljust(512, b"\0")) * 20_000)
    with pytest.raises(ValueError, match=r"a\.tar: the file is no tar archive: a file of it has hundreds of headers"):
        open_records(str(tmp_path / "a.tar"))


def test_values_for_all_files_do_not_pile_up(tmp_path):
    blocks = []
    for number in range(40):
        text = b"".join(
            f"{len(line) + 3} {line}".encode() for line in (f"{number:03d}{key:04d}=a\n" for key in range(1000))
        )
        blocks.append(header(tarfile.XGLTYPE, len(text)) + text.ljust(-(-len(text) // 512) * 512, b"\0"))
        blocks.append(header(tarfile.REGTYPE, 2, f"{number}.json") + b"{}".ljust(512, b"\0"))
    (tmp_path / "a.tar").write_bytes(b"".join(blocks) + bytes(1024))
    with pytest.raises(ValueError, match=r"a\.tar: .* more than 1000 values to all files that follow"):
        open_records(str(tmp_path / "a.tar"))


def test_a_name_of_thousands_of_letters_is_read(write):
    name = "/".join(["folder" * 20] * 30)
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        assert len(open_records(write([(f"{name}/1.json", {"question": "a"})], form))) == 1
