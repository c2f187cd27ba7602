"""Tar archives as webdataset has them, in which the files of one name make a record; nothing is unpacked."""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Iterator
from io import FileIO
from typing import Any, BinaryIO

import numpy as np
import orjson

from paddlemix.conversation import RecordError, RecordId
from paddlemix.datasets.records.json_files import Entry, Record
from paddlemix.datasets.records.json_text.problems import Start, problem_of
from paddlemix.datasets.records.json_text.reading import read_record
from paddlemix.datasets.records.stores.stored import StoredFile, StoredRecords
from paddlemix.media.data_url import as_data_url

# Of one record's files together; images and videos may be no larger anyway.
_LARGEST = 1 << 28
# Of a header that gives a name or values, and values that are given to all files that follow: each takes time for each.
_LARGEST_HEADER, _MOST_GLOBALS = 1 << 18, 1000
_ENDING_BYTES = 64
_MEMBER = np.dtype([("record", np.int64), ("offset", np.int64), ("size", np.int64), ("ending", f"S{_ENDING_BYTES}")])
_NAME = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]+)", re.DOTALL)
_IMAGES = {"jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff", "avif", "heic", "jfif"}
_VIDEOS = {"mp4", "webm", "mkv", "avi", "mov", "m4v"}
_NUMBER = re.compile(r"\d*")
_LINK = -1
_GZIP = b"\x1f\x8b"


class TarRecords(StoredRecords):
    """The records of an archive.

    Args:
        stored: the file.
        members: where the files of each record lie, as `index_tar` gives them.
    """

    def __init__(self, stored: StoredFile, members: np.ndarray) -> None:
        super().__init__(stored)
        self._members = members
        self._bounds = np.searchsorted(members["record"], np.arange(int(members["record"][-1]) + 2))

    def __len__(self) -> int:
        return len(self._bounds) - 1

    def _read(self, file: BinaryIO, rows: list[int]) -> Iterator[Entry]:
        for row in rows:
            members = self._members[self._bounds[row] : self._bounds[row + 1]]
            try:
                yield _record(file, members.tolist(), self.place(row))
            except RecordError as error:
                yield error


def index_tar(stored: StoredFile) -> np.ndarray:
    """Find the files of an archive that belong to records.

    Args:
        stored: the archive.

    Returns:
        The files, `_MEMBER`, ordered by record; records come in the order of their first files. Folders, files whose
        names begin with a dot and files without an ending belong to none.

    Raises:
        ValueError: it is no tar archive, compressed, or broken.
    """
    _check_plain(stored)
    numbers: dict[str, int] = {}
    rows = []
    try:
        with _Headers(stored.plain) as file, tarfile.open(fileobj=file, mode="r:") as archive:
            while member := archive.next():
                archive.members.clear()  # type: ignore[attr-defined]  # it would keep them all
                if len(archive.pax_headers) > _MOST_GLOBALS:
                    raise ValueError(f"its headers give more than {_MOST_GLOBALS} values to all files that follow")
                found = _NAME.fullmatch(member.name)
                if found and not member.isdir():
                    number = numbers.setdefault(found[1], len(numbers))
                    size = member.size if member.isreg() and not member.issparse() else _LINK
                    rows.append((number, member.offset_data, size, found[2].encode(errors="replace")[-_ENDING_BYTES:]))
            _check_end(stored, archive)
    except RecursionError as error:
        raise ValueError(f"{stored.name}: the file is no tar archive: a file of it has hundreds of headers") from error
    except (tarfile.TarError, OSError, ValueError, OverflowError) as error:
        raise ValueError(f"{stored.name}: the file is no tar archive, or broken: {error}") from error
    if not rows:
        raise ValueError(f"{stored.name}: the archive holds no files such as 0001.jpg and 0001.json; expected some")
    return np.sort(np.array(rows, dtype=_MEMBER), order="record", kind="stable")


def members_fit(members: np.ndarray, *, size: int) -> bool:
    """Tell whether an array can hold where the files of an archive lie.

    Args:
        members: as it was found; expected as `index_tar` gives it.
        size: of the archive, in bytes.

    Returns:
        False where it is of another kind, or names places outside of the archive.
    """
    if members.dtype != _MEMBER or members.ndim != 1 or not len(members):
        return False
    numbers, begins, sizes = members["record"], members["offset"], members["size"]
    return bool(numbers[0] == 0 and np.isin(np.diff(numbers), (0, 1)).all()) and bool(
        ((begins >= 0) & (begins <= size) & (sizes >= _LINK) & (sizes <= size)).all()
    )


class _Headers(FileIO):
    """Reads headers; what stands behind one, such as a long name, is read as a whole, whatever size it says."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Read some bytes.

        Args:
            size: how many.

        Returns:
            They, or those up to the end of the file.

        Raises:
            ValueError: no header needs so many.
        """
        if size is None or not 0 <= size <= _LARGEST_HEADER:
            raise ValueError(f"a header says that it has {size} bytes; expected at most {_LARGEST_HEADER}")
        return super().read(size) or b""


def _check_plain(stored: StoredFile) -> None:
    with open(stored.plain, "rb") as file:
        if file.read(len(_GZIP)) == _GZIP:
            raise ValueError(f"{stored.name}: the archive is gzipped; unpack it first, to read single records from it")


def _check_end(stored: StoredFile, archive: tarfile.TarFile) -> None:
    """Make sure that the archive has ended, and was not given up at a header that is none."""
    with open(stored.plain, "rb") as file:
        block = os.pread(file.fileno(), tarfile.BLOCKSIZE, archive.offset)
    if block.strip(b"\0") or archive.offset > stored.size:
        raise ValueError(f"no file begins at byte {archive.offset} where one should; it may have been cut off")


def _record(file: BinaryIO, members: list[tuple[int, int, int, bytes]], source: RecordId) -> Record:
    """Put the files of a record together."""
    endings = [ending.decode(errors="replace") for _, _, _, ending in members]
    twice = next((ending for ending in endings if endings.count(ending) > 1), None)
    if twice is not None:
        raise RecordError(source, f"two files of the record end in .{twice}; expected one of each name")
    if any(size == _LINK for _, _, size, _ in members):
        raise RecordError(source, "a file of the record is a link or no regular file; expected the file itself")
    if sum(size for _, _, size, _ in members) > _LARGEST:
        raise RecordError(source, f"the files of the record have more than {_LARGEST >> 20} MiB together")
    contents = {
        ending: os.pread(file.fileno(), size, offset)
        for ending, (_, offset, size, _) in zip(endings, members, strict=True)
    }
    record = _described(contents.pop("json"), source) if "json" in contents else {}
    _add_media(record, contents, source)
    for ending, content in contents.items():
        text = _text(content)
        if ending == "txt" and record.setdefault("caption", text) == text:
            continue
        if ending in record:
            raise RecordError(
                source, f"its .json file has `{ending}`, and a file of it ends in .{ending}; expected one"
            )
        record[ending] = text
    return record


def _described(text: bytes, source: RecordId) -> Record:
    try:
        entry = read_record(text, source)
    except orjson.JSONDecodeError as error:
        raise RecordError(source, f"its .json file: {problem_of(error, text, Start())}") from error
    if isinstance(entry, RecordError):
        raise entry
    return entry


def _add_media(record: Record, contents: dict[str, bytes], source: RecordId) -> None:
    """Move images and videos into the record, in place of the names that it may have for them."""
    for kinds, one, several in ((_IMAGES, "image", "images"), (_VIDEOS, "video", "videos")):
        endings = [ending for ending in contents if _is_media(ending, kinds)]
        urls = [as_data_url(contents.pop(ending), ending) for ending in endings]
        if not urls:
            continue
        named = record.get(several)
        if isinstance(named, list) and len(named) != len(urls):
            raise RecordError(
                source,
                f"`{several}` of its .json file names {len(named)}, but {len(urls)} lie beside it in the archive",
            )
        if len(urls) > 1 or isinstance(named, list):
            record.pop(one, None)
            record[several] = _in_order(named, endings, urls)
        else:
            record[one] = urls[0]


def _in_order(named: Any, endings: list[str], urls: list[str]) -> list[str]:
    """Order images as the record names them, where it does; as they lie in the archive else."""
    by_ending = dict(zip(endings, urls, strict=True))
    names = [name.rpartition("/")[2].partition(".")[2] for name in named or [] if isinstance(name, str)]
    return [by_ending[name] for name in names] if sorted(names) == sorted(endings) else urls


def _is_media(ending: str, kinds: set[str]) -> bool:
    """Tell whether a file is an image of the record itself, not a mask or another view, which has a name of its own."""
    first, _, last = ending.rpartition(".")
    return last.lower() in kinds and bool(_NUMBER.fullmatch(first))


def _text(content: bytes) -> str:
    try:
        return content.decode().strip()
    except UnicodeDecodeError:
        return as_data_url(content)
