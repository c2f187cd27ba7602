"""What a record format is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from paddlemix.conversation import Conversation, Task
from paddlemix.datasets.records.json_files import Located, Record


@dataclass(frozen=True)
class Format:
    """One way of writing records.

    Attributes:
        parse: `parse(record, reading)` makes the conversation. Raises `RecordError`.
        expand: `expand(documents)` turns files that are one object each, by their names, into records; None where the
            format has no such files. Raises `ValueError` naming a file.
        takes_prompt: whether `parse` has a `prompt` keyword, the `prompt` of the data set's entry.
        prompt_holds: what such a prompt must hold, such as "{phrase}".
        task: of all conversations that `parse` makes.
    """

    parse: Callable[..., Conversation]
    expand: Callable[[Mapping[str, Record]], Iterable[Located]] | None = None
    takes_prompt: bool = False
    prompt_holds: str = ""
    task: Task = "chat"
