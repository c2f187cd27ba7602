"""The format of records whose set is named "auto"."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from paddlemix.conversation import Conversation, RecordError, RecordId, UnknownKeysError
from paddlemix.datasets.formats import AUTO, FORMATS, find_format
from paddlemix.datasets.reading.ignored_keys import without_keys
from paddlemix.datasets.records.data_files import FileContent, locate_records
from paddlemix.datasets.records.json_files import Record
from paddlemix.datasets.spec import DatasetSpec

# How many records decide.
FIRST = 64
# How many formats are named where none fits.
_NEAREST = 3


@dataclass
class Attempt:
    """What became of the first records in one format.

    Attributes:
        conversations: those that were read.
        unknown: how many keys of them mean nothing in the format.
        problems: why records were not read, and how often.
    """

    conversations: dict[RecordId, Conversation] = field(default_factory=dict)
    unknown: int = 0
    problems: Counter[str] = field(default_factory=Counter)

    def is_read_as_in(self, other: Attempt) -> bool:
        """Tell whether another attempt reads no record otherwise than this one, or leaves more of it unread."""
        return all(
            conversation == self.conversations[source]
            or len(conversation.notes) > len(self.conversations[source].notes)
            for source, conversation in other.conversations.items()
        )


def recognise(spec: DatasetSpec, contents: Sequence[FileContent]) -> DatasetSpec:
    """Find the format that reads all of the first records that any does, and leaves least unread, as any other like it.

    Keys that nothing reads say nothing about the format; they are told once the set is read.

    Args:
        spec: the set, named "auto".
        contents: what its files hold.

    Returns:
        The set under the format's name; of several formats that read the records alike, the first in `FORMATS`.

    Raises:
        ValueError: no format reads any of the records, or several read them in different ways.
    """
    attempts = {name: _attempt(spec, name, contents) for name in _one_name_each()}
    readable = {source for attempt in attempts.values() for source in attempt.conversations}
    files = ", ".join(spec.files)
    if not readable:
        raise ValueError(f"{files}: {_why_in_none(attempts)}")
    some = {name: attempt for name, attempt in attempts.items() if attempt.conversations}
    for name, attempt in some.items():
        if len(attempt.conversations) == len(readable) and all(map(attempt.is_read_as_in, some.values())):
            return dataclasses.replace(spec, name=name)
    raise ValueError(
        f"{files}: the first records can be read in different ways; expected one of {', '.join(some)} "
        f"as `name`, in place of {AUTO!r}"
    )


def _one_name_each() -> Iterator[str]:
    """Yield the first name of every format."""
    seen: list[object] = []
    for name, record_format in FORMATS.items():
        if record_format not in seen:
            seen.append(record_format)
            yield name


def _attempt(spec: DatasetSpec, name: str, contents: Sequence[FileContent]) -> Attempt:
    """Read the first records in a format."""
    attempt = Attempt()
    try:
        named = dataclasses.replace(spec, name=name)
        for entry, source in islice(locate_records(contents, name, find_format(name)), FIRST):
            try:
                if isinstance(entry, RecordError):
                    raise entry
                attempt.conversations[source] = _read(named, entry, source, attempt)
            except RecordError as error:
                attempt.problems[error.problem] += 1
    except ValueError as error:  # a prompt, or a file, that is none of this format
        attempt.problems[str(error)] += 1
    return attempt


def _read(spec: DatasetSpec, record: Record, source: RecordId, attempt: Attempt) -> Conversation:
    """Read a record without its unknown keys, which are counted."""
    while True:
        try:
            return spec.read(record, source)
        except UnknownKeysError as error:
            shorter = without_keys(record, error.keys)
            if shorter == record:  # in an object where no key can be left out
                raise
            record = shorter
            attempt.unknown += len(error.keys)


def _why_in_none(attempts: dict[str, Attempt]) -> str:
    """Tell what is wrong with the first records in those formats that know most of their keys."""
    problems = {name: next(iter(attempt.problems.most_common(1)), None) for name, attempt in attempts.items()}
    told = {name: problem[0] for name, problem in problems.items() if problem}
    if not told:
        return "there is no record"
    if len(set(told.values())) == 1:
        return f"none of the first records can be read: {next(iter(told.values()))}"
    names = sorted(told, key=lambda name: (attempts[name].unknown, "would be ignored" in told[name]))[:_NEAREST]
    nearest = "\n".join(f"  {name}: {told[name]}" for name in names)
    return (
        f"the first records are in no format that is known. Nearest are\n{nearest}\n"
        "Name the format as `name`, and keys that it calls otherwise in `columns`."
    )
