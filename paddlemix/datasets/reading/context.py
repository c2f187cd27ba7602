"""What reading a record needs beside it: where it comes from, what its set asks for, what is to be told of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from paddlemix.conversation import RecordError, RecordId
from paddlemix.printable import in_one_line

Placeholders = Literal["exact", "any"]


@dataclass(frozen=True)
class ReadOptions:
    """What a set's entry in the config says about reading its records.

    Attributes:
        markup: whether `<ref>`, `<box>` and `<quad>` in texts are markup; None leaves it to the format.
        placeholders: "any" takes other spellings of `<image>` and `<video>` for placeholders too, such as `<Image>`,
            `<image1>` or `<|image_1|>`.
        join_turns: whether consecutive turns of one role are joined, with a line end between them; else they are an
            error.
    """

    markup: bool | None = None
    placeholders: Placeholders = "exact"
    join_turns: bool = False


@dataclass(frozen=True)
class Reading:
    """The reading of one record.

    Attributes:
        source: the record, to name in errors.
        root: the folder of relative image paths.
        options: of its set.
    """

    source: RecordId
    root: Path
    options: ReadOptions = ReadOptions()
    _notes: dict[str, None] = field(default_factory=dict)

    def error(self, problem: str) -> RecordError:
        """Make the error of a record that cannot be used; `problem` says why and what was expected."""
        return RecordError(self.source, problem)

    def note(self, sentence: str) -> None:
        """Remember what a user should know of how the record was read; see `Conversation.notes`."""
        self._notes[in_one_line(sentence)] = None

    @property
    def notes(self) -> tuple[str, ...]:
        """What was noted, each once, in its order."""
        return tuple(self._notes)


def renamed(record: Mapping[str, object], columns: Mapping[str, str], source: RecordId) -> dict[str, object]:
    """Give keys of a record the names that its format reads.

    Args:
        record: as its file has it.
        columns: the format's name for each key of the file, a set's `columns`.
        source: the record, to name in errors.

    Returns:
        The record with the other names; keys that `columns` does not name stay.

    Raises:
        RecordError: two keys would have one name.
    """
    names = [columns.get(key, key) for key in record]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise RecordError(source, f"`columns` gives a second key the name `{twice}`, which the record has already")
    return dict(zip(names, record.values(), strict=True))
