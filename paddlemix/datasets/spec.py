"""One entry of a config's `dataset.train` or `dataset.eval` list."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from paddlemix.conversation import Conversation, RecordId
from paddlemix.datasets.formats import AUTO, find_format
from paddlemix.datasets.reading.context import Placeholders, Reading, ReadOptions, renamed
from paddlemix.datasets.reading.ignored_keys import without_keys
from paddlemix.datasets.records.json_files import Record
from paddlemix.datasets.records.selection import split_bounds
from paddlemix.datasets.train_on import CHOICES, TrainOn, with_weights


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
        columns: the name that the format reads for a key of the records that has another.
        markup: see `ReadOptions`.
        placeholders: likewise.
        join_turns: likewise.
        train_on: which turns are learned; see `paddlemix.datasets.train_on.with_weights`.
        ignore_keys: keys that are taken out of every record before it is read, as `without_keys` takes them.
        unpack_limit: bytes that a gzipped or Parquet file may hold; None lets its size decide, see `unpacked`.

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
    columns: dict[str, str] = field(default_factory=dict)
    markup: bool | None = None
    placeholders: Placeholders = "exact"
    join_turns: bool = False
    train_on: TrainOn = "assistant"
    ignore_keys: list[str] | None = None
    unpack_limit: int | None = None

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
        if self.unpack_limit is not None and self.unpack_limit < 1:
            raise ValueError(f"{self.name}: `unpack_limit` is {self.unpack_limit}; expected 1 or more, or null")
        if self.train_on not in CHOICES:
            raise ValueError(f"{self.name}: `train_on` is {self.train_on!r}; expected one of {', '.join(CHOICES)}")
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

    def read(self, record: Record, source: RecordId) -> Conversation:
        """Make a conversation of one of the set's records.

        Args:
            record: as its file has it.
            source: where it comes from.

        Returns:
            The conversation.

        Raises:
            RecordError: the record cannot be used.
        """
        reading = Reading(source, self.media_root(source.file), self.options)
        if self.ignore_keys:
            record = without_keys(record, self.ignore_keys)
        if self.columns:
            record = renamed(record, self.columns, source)
        prompt = {} if self.prompt is None else {"prompt": self.prompt}
        return with_weights(find_format(self.name).parse(record, reading, **prompt), self.train_on)

    @cached_property
    def options(self) -> ReadOptions:
        """What formats are told of how to read the records."""
        return ReadOptions(self.markup, self.placeholders, self.join_turns)

    @property
    def reading_keys(self) -> tuple[Any, ...]:
        """All that decides on what a record of given content is read as."""
        ignored, columns = sorted(self.ignore_keys or ()), sorted(self.columns.items())
        return self.prompt, self.train_on, ignored, columns, self.options

    def media_root(self, file: str) -> Path:
        """Tell where relative image paths of one record file start.

        Args:
            file: the record file.

        Returns:
            `image_root`, or the file's own folder.
        """
        return _folder_of(file) if self.image_root is None else Path(self.image_root)


@lru_cache(maxsize=1024)
def _folder_of(file: str) -> Path:
    """Return the folder of a record file; asked for with each record of it."""
    return Path(file).parent
