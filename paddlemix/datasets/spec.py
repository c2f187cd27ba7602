"""One entry of a config's `dataset.train` or `dataset.eval` list."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from paddlemix.conversation import Conversation, RecordId
from paddlemix.datasets.formats import AUTO, find_format
from paddlemix.datasets.ignored_keys import without_keys
from paddlemix.datasets.records.json_files import Record
from paddlemix.datasets.records.selection import split_bounds


@dataclass(frozen=True)
class DatasetSpec:
    """Which records to use, and how to read them.

    Attributes:
        name: the record format, a key of `paddlemix.datasets.formats.FORMATS`, or "auto" for the one that the first
            records are in.
        data_files: one record file or several, folders of them, or patterns; relative paths start at the working
            directory.
        image_root: the folder of relative image paths; the record file's own folder when None.
        prompt: what the user asks about every image, for formats whose records hold no question.
        max_samples: how many records to use at most; all when None.
        splits: which stretches of the records to use, such as ":90%"; all when None.
        seed: shuffles the records before `splits` and `max_samples` choose among them; None keeps their order.
        weight: probability mass where sets are interleaved; 1 when None.
        repeat: how often an epoch goes through the set.
        ignore_keys: keys that are taken out of every record before it is read, as `without_keys` takes them.

    Raises:
        ValueError: a value cannot be used; checked when the spec is made.
    """

    name: str
    data_files: str | list[str]
    image_root: str | None = None
    prompt: str | None = None
    max_samples: int | None = None
    splits: str | list[str] | None = None
    seed: int | None = None
    weight: float | None = None
    repeat: float = 1.0
    ignore_keys: list[str] | None = None

    def __post_init__(self) -> None:
        if self.name != AUTO:
            self._check_prompt()
        if not self.files or not all(self.files):
            raise ValueError(f"{self.name}: `data_files` is {self.data_files!r}; expected one path or a list of paths")
        if self.prompt is not None and not self.prompt.strip():
            raise ValueError(f"{self.name}: `prompt` is blank; expected a text, or null for the format's own")
        if self.max_samples is not None and self.max_samples < 1:
            raise ValueError(f"{self.name}: `max_samples` is {self.max_samples}; expected 1 or more, or null for all")
        for split in self.split_list:
            split_bounds(split, 0)
        if self.ignore_keys is not None and not all(self.ignore_keys):
            raise ValueError(f'{self.name}: `ignore_keys` is {self.ignore_keys}; expected names such as "score"')
        for key, value in (("weight", self.weight), ("repeat", self.repeat)):
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{self.name}: `{key}` is {value}; expected a number of more than 0")

    @property
    def split_list(self) -> list[str]:
        """The stretches of records to use, also where there is only one; none for all records."""
        return [self.splits] if isinstance(self.splits, str) else self.splits or []

    def _check_prompt(self) -> None:
        record_format = find_format(self.name)
        if self.prompt is not None and not record_format.takes_prompt:
            raise ValueError(f"{self.name}: `prompt` is not read, the records hold their own; remove the key")
        if self.prompt is not None and record_format.prompt_holds not in self.prompt:
            raise ValueError(f"{self.name}: `prompt` is {self.prompt!r}; expected `{record_format.prompt_holds}` in it")

    @property
    def files(self) -> tuple[str, ...]:
        """The record files as the config names them, also where there is only one."""
        return (self.data_files,) if isinstance(self.data_files, str) else tuple(self.data_files)

    @property
    def parse(self) -> Callable[..., Conversation]:
        """The format's `parse(record, source, root)`, with this set's prompt and without the keys that it ignores."""
        parse = find_format(self.name).parse
        if self.prompt is not None:
            parse = partial(parse, prompt=self.prompt)
        return partial(_parse_rest, parse, tuple(self.ignore_keys)) if self.ignore_keys else parse

    def media_root(self, file: str) -> Path:
        """Tell where relative image paths of one record file start.

        Args:
            file: the record file.

        Returns:
            `image_root`, or the file's own folder.
        """
        return Path(file).parent if self.image_root is None else Path(self.image_root)


def _parse_rest(
    parse: Callable[..., Conversation], ignored: tuple[str, ...], record: Record, source: RecordId, root: Path
) -> Conversation:
    return parse(without_keys(record, ignored), source, root)
