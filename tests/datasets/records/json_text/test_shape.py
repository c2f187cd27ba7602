from __future__ import annotations

import json

import pytest

from paddlemix.datasets.records.json_text.shape import index_records

ONE, TWO = {"a": 1, "said": [{"b": "图"}]}, {"a": 2, "said": [{"b": "}\u2028{"}, {"b": "]["}]}
LINES = f"{json.dumps(ONE)}\n{json.dumps(TWO, ensure_ascii=False)}\n"
PRETTY = [json.dumps(record, indent=2) for record in (ONE, TWO)]


def records(content, has_lines):
    spans = index_records(content, has_lines=has_lines)
    return [json.loads(content[first:last].strip(b", \r\n\xef\xbb\xbf")) for first, last, _ in spans.tolist()]


@pytest.mark.parametrize("has_lines", [True, False])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf", b"\xef\xbb\xbf\r\n "])
@pytest.mark.parametrize(
    "text",
    [
        json.dumps([ONE, TWO]),
        json.dumps([ONE, TWO], indent=1),
        f"[{LINES.strip()}]".replace("\n", ",\n"),
        LINES,
        LINES.replace("\n", "\r\n"),
        LINES.replace("\n", "\r"),
        LINES.replace("\n", "\n\n  \n"),
        LINES.replace("\n", ",\n"),
        LINES.replace("\n", ""),
        "\n".join(PRETTY),
        "".join(PRETTY),
        ",\r\n".join(PRETTY),
    ],
    ids=lambda text: text[:12],
)
def test_records_are_found_however_they_follow_one_another_and_whatever_the_ending(text, mark, has_lines):
    assert records(mark + text.encode(), has_lines) == [ONE, TWO]


@pytest.mark.parametrize("text", [json.dumps(ONE), PRETTY[0], '{"images": [\n{"id": 1},\n{"id": 2}\n]}\n', '{"a": 1'])
def test_one_object_is_a_record_of_a_file_of_lines_and_else_may_be_tables(text):
    assert index_records(text.encode(), has_lines=False) is None
    assert len(index_records(text.encode(), has_lines=True)) == 1


def test_lines_keep_their_numbers_and_blank_ones_are_passed_over():
    content = '\ufeff{"a": 1}\r\n\n  \r\n{"b": "图\u2028"} \n\t{"c": 3}'.encode()
    spans = index_records(content, has_lines=True)
    lines = [(content[first:last].strip().decode(), line) for first, last, line in spans.tolist()]
    assert lines == [('{"a": 1}', 1), ('{"b": "图\u2028"}', 4), ('{"c": 3}', 5)]


@pytest.mark.parametrize("has_lines", [True, False])
@pytest.mark.parametrize("bad", ["x", "{'a': 1}", "[7]", "[", '{"a": [}', '{"a": "}', '{"a": 1}}', "NaN"])
@pytest.mark.parametrize("place", [0, 1, 3])
def test_a_bad_line_is_one_bad_record(bad, place, has_lines):
    if place == 0 and bad == "{'a': 1}":
        return  # the file is taken for Python's
    lines = ['{"a": 1}'] * 3
    lines.insert(place, bad)
    spans = index_records("\n".join(lines).encode(), has_lines=has_lines)
    assert [line for *_, line in spans.tolist()] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "the file is empty"),
        (b"\xef\xbb\xbf \n", "the file is empty"),
        (b"\n\n", "the file is empty"),
        (b"[]", "the list is empty"),
        (b'"text"', 'the file holds the text "text"'),
        (b"3", "the file holds the number 3"),
        (b"nonsense", "malformed JSON at line 1, column 1"),
        (b'[{"a": 1}, {"b"', "the list is not closed by `]`, so the file was cut off"),
        (b"[{'a': 1}]", "written in Python's own form, with single quotes, and is no JSON; write it with json.dumps"),
        (b"{'a': 1}\n{'a': 2}\n", "written in Python's own form"),
        (b"\x1f\x8b\x08", "is gzipped; end its name in .gz"),
        (b"PK\x03\x04", "is a zip archive, or a workbook of Excel"),
        (b"PAR1", "is a Parquet file; end its name in .parquet"),
        (b"version https://git-lfs.github.com/spec/v1", "is a pointer of Git LFS"),
        (b"<!DOCTYPE html>", "is a web page"),
    ],
)
@pytest.mark.parametrize("has_lines", [True, False])
def test_a_file_that_holds_no_records_is_refused_with_what_it_holds(content, problem, has_lines):
    with pytest.raises(ValueError) as caught:
        index_records(content, has_lines=has_lines)
    assert problem in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("encoding", "name"),
    [("utf-16", "UTF-16"), ("utf-16-le", "UTF-16"), ("utf-16-be", "UTF-16"), ("utf-32", "UTF-32"),
     ("utf-32-le", "UTF-32"), ("utf-32-be", "UTF-32"), ("gbk", "GBK")],
)  # fmt: skip
@pytest.mark.parametrize("text", ['[{"a": "这是什么？"}]', '{"a": "一个红色的盒子"}\n{"a": "图"}\n'])
def test_another_encoding_is_refused_by_its_name(encoding, name, text):
    with pytest.raises(ValueError, match=f"the file is not UTF-8, it looks like {name}; save the file as UTF-8"):
        index_records(text.encode(encoding), has_lines=True)


def test_a_single_byte_that_is_not_utf8_does_not_make_the_whole_file_foreign():
    content = b'{"a": "\xe5\x9b\xbe"}\n{"a": "\xff"}\n{"a": "x"}'
    assert len(index_records(content, has_lines=True)) == 3
