"""The format of records whose set is named "auto"."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from itertools import islice

from paddlemix.conversation import Conversation, RecordError, RecordId
from paddlemix.datasets.formats import AUTO, FORMATS, find_format
from paddlemix.datasets.records.data_files import FileContent, locate_records
from paddlemix.datasets.spec import DatasetSpec

# How many records decide.
FIRST = 64

Reading = dict[RecordId, Conversation]


def recognise(spec: DatasetSpec, contents: Sequence[FileContent]) -> DatasetSpec:
    """Find the format that reads all of the first records that any format reads, and as any other does.

    Args:
        spec: the set, named "auto".
        contents: what its files hold.

    Returns:
        The set under the format's name; of several formats that read the records alike, the first in `FORMATS`.

    Raises:
        ValueError: no format reads any of the records, or several read them in different ways.
    """
    readings = {name: _read_first(spec, name, contents) for name in _one_name_each()}
    candidates = {name: reading for name, reading in readings.items() if isinstance(reading, dict)}
    for name, reading in candidates.items():
        if all(other.items() <= reading.items() for other in candidates.values()):
            return dataclasses.replace(spec, name=name)
    files = ", ".join(spec.files)
    if candidates:
        raise ValueError(
            f"{files}: the first records can be read in different ways; expected one of {', '.join(candidates)} "
            f"as `name`, in place of {AUTO!r}"
        )
    problems = "\n".join(f"  {name}: {problem}" for name, problem in readings.items())
    raise ValueError(f"{files}: the first records are in no format that is known:\n{problems}")


def _one_name_each() -> Iterator[str]:
    """Yield the first name of every format."""
    seen: list[object] = []
    for name, record_format in FORMATS.items():
        if record_format not in seen:
            seen.append(record_format)
            yield name


def _read_first(spec: DatasetSpec, name: str, contents: Sequence[FileContent]) -> Reading | str:
    """Read the first records in a format, or say why it cannot read any of them."""
    reading: Reading = {}
    problem = "there is no record"
    try:
        parse = dataclasses.replace(spec, name=name).parse
        for entry, source in islice(locate_records(contents, name, find_format(name)), FIRST):
            try:
                if isinstance(entry, RecordError):
                    raise entry
                reading[source] = parse(entry, source, spec.media_root(source.file))
            except RecordError as error:
                problem = str(error)
    except ValueError as error:  # a prompt, or a file, that is none of this format
        return str(error)
    return reading or problem
