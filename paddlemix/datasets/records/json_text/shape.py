"""How records follow one another in a JSON file, whatever its ending: in a list, by lines, or one after the other."""

from __future__ import annotations

import mmap
import re

import numpy as np
import orjson

from paddlemix.datasets.records.json_files import describe
from paddlemix.datasets.records.json_text.encodings import check_encoding
from paddlemix.datasets.records.json_text.items import Items, NotClosedError
from paddlemix.datasets.records.json_text.lines import end_between, end_of_text, index_lines, start_of_text
from paddlemix.datasets.records.json_text.problems import PYTHON_FORM, Start, problem_of
from paddlemix.datasets.records.json_text.reading import LONGEST
from paddlemix.datasets.records.json_text.structure import Scanner

_HEAD = 1 << 16
_SAMPLE = 1 << 20
_IN_PYTHON = re.compile(rb"[\[{(]\s*(?:[\[{(]\s*)*'")
# Most lines of a file with a record to each line look like one, also where some are broken.
_MOST = 0.5
_FOREIGN = {
    b"\x1f\x8b": "is gzipped; end its name in .gz",
    b"PK\x03\x04": "is a zip archive, or a workbook of Excel; unpack it, or save it as CSV (UTF-8)",
    b"PAR1": "is a Parquet file; end its name in .parquet",
    b"version https://git-lfs": "is a pointer of Git LFS, not the file itself; fetch it with `git lfs pull`",
    b"<": "is a web page or XML, perhaps what a download was answered with; fetch the file again",
}


def index_records(content: mmap.mmap | bytes, *, has_lines: bool) -> np.ndarray | None:
    """Find the records of a JSON file.

    Args:
        content: of the file.
        has_lines: whether its name says that it has a record a line. A single object is a record then; elsewhere it may
            as well be the tables of a whole set.

    Returns:
        int64[records, 3]: where each begins and ends, and the number of the line in which it begins, or 0 where that
        was not counted because it is JSON. None where the content is a single object.

    Raises:
        ValueError: the file as a whole holds no records.
    """
    begin = start_of_text(content)
    head = content[begin : begin + _HEAD]
    _check_kind(content[:_SAMPLE], head)
    opening = head[:1]
    if opening == b"[" and not _may_be_lines(content, begin):
        try:
            return _list_items(content, begin)
        except NotClosedError:
            lines = _lines(content, has_lines=has_lines)
            if lines is None:
                raise
            return lines
    lines = _lines(content, has_lines=has_lines)
    if lines is not None:
        return lines
    if opening == b"[":
        return _list_items(content, begin)
    if opening != b"{":
        raise ValueError(_problem_of_other(content))
    if not has_lines and _end_of_value(content, begin) in (None, end_of_text(content)):
        return None
    return Items(content, 0, begin).find()


def _lines(content: mmap.mmap | bytes, *, has_lines: bool) -> np.ndarray | None:
    """Find lines where most of them look like a record, or the first is one; None where records take several lines."""
    sample, share = index_lines(content[:_SAMPLE])
    # A document of many lines is not indexed line by line, nor one of a single line.
    if _are_records(content, sample, share, has_lines) or len(sample) <= 2:
        lines, share = index_lines(content)
        return lines if _are_records(content, lines, share, has_lines) else None
    return None


def _are_records(content: mmap.mmap | bytes, lines: np.ndarray, share: float, has_lines: bool) -> bool:
    if has_lines and len(lines):
        begin, end = lines[0, :2].tolist()
        first = content[begin:end].strip() if end - begin <= LONGEST else b""
        if first[:1] in (b"{", b"[") and _is_json(first):
            return True
    return share > _MOST and len(lines) > 1


def _check_kind(head: bytes, text: bytes) -> None:
    """Refuse what is empty, in another encoding, or no JSON from its first bytes on."""
    for magic, problem in _FOREIGN.items():
        if head.startswith(magic):
            raise ValueError(f"the file {problem}")
    check_encoding(head)
    if not text:
        raise ValueError("the file is empty; expected at least one record")
    if _IN_PYTHON.match(text):
        raise ValueError(f"the file is {PYTHON_FORM}")


def _may_be_lines(content: mmap.mmap | bytes, begin: int) -> bool:
    """Tell whether the first line is a list of its own, with others behind it."""
    end = content.find(b"\n", begin)
    if not 0 <= end < end_of_text(content):
        return False
    end = end_between(content, begin, end)
    return content[max(end - 1, begin) : end] == b"]"


def _list_items(content: mmap.mmap | bytes, begin: int) -> np.ndarray:
    spans = Items(content, 1, begin).find()
    if not len(spans):
        raise ValueError("the list is empty; expected at least one record")
    return spans


def _end_of_value(content: mmap.mmap | bytes, begin: int) -> int | None:
    """Find the end of the object that begins there; None where it has none."""
    for places, _, depths in Scanner(content, 0).scan(begin):
        closing = np.flatnonzero(depths <= 0)
        if len(closing):
            return int(places[closing[0]]) + 1
    return None


def _problem_of_other(content: mmap.mmap | bytes) -> str:
    text = content[:_SAMPLE]
    try:
        return f"the file holds {describe(orjson.loads(text))}; expected a list of records"
    except orjson.JSONDecodeError as error:
        return problem_of(error, text, Start())


def _is_json(text: bytes) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True
