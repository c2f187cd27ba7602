"""From one entry of a config to checked conversations with their sizes, before any step is trained."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from paddlemix.conversation import Conversation, RecordError
from paddlemix.datasets.formats import AUTO, find_format
from paddlemix.datasets.recognise import recognise
from paddlemix.datasets.record_files import FileContent, locate_records, read_files
from paddlemix.datasets.records import Located, result_or_error
from paddlemix.datasets.spec import DatasetSpec
from paddlemix.processors.interface import ConversationProcessor, SampleSize

# Picture headers are waited for more than computed: threads beyond the cores pay off where disks are far away.
_THREADS = 8
# Records handed to the threads at once: bounds the memory of what is queued.
_CHUNK = 1024

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class LoadedSet:
    """The records of one set.

    Attributes:
        spec: the set's entry in the config; its `name` is the format that the records are in.
        conversations: the usable records, in their order.
        sizes: what each of them will cost.
        errors: why each of the others cannot be used.
        is_recognised: whether the format was found out from the records.
    """

    spec: DatasetSpec
    conversations: tuple[Conversation, ...]
    sizes: tuple[SampleSize, ...]
    errors: tuple[RecordError, ...]
    is_recognised: bool = False


def load_set(spec: DatasetSpec, processor: ConversationProcessor) -> LoadedSet:
    """Parse and measure every record of a set, with a progress bar.

    Args:
        spec: the set.
        processor: what measures; called from several threads at once.

    Returns:
        The usable records with their sizes, and why the others are not.

    Raises:
        FileNotFoundError: a record file does not exist.
        ValueError: a record file as a whole cannot be read, `image_root` is no folder, or `name` is "auto" and the
            records are in no format, or could be in several.
    """
    if spec.image_root is not None and not Path(spec.image_root).is_dir():
        raise ValueError(f"{spec.name}: `image_root` is {spec.image_root!r}; expected a folder that exists")
    is_recognised = spec.name == AUTO
    contents: Iterable[FileContent] = read_files(spec.files)
    if is_recognised:
        contents = list(contents)
        spec = recognise(spec, contents)
    entries = list(islice(locate_records(contents, spec.name, find_format(spec.name)), spec.max_samples))
    check = partial(_check, spec, processor)
    results = list(_in_threads(partial(result_or_error, check), entries, description=spec.name))
    usable = [result for result in results if not isinstance(result, RecordError)]
    return LoadedSet(
        spec,
        conversations=tuple(conversation for conversation, _ in usable),
        sizes=tuple(size for _, size in usable),
        errors=tuple(result for result in results if isinstance(result, RecordError)),
        is_recognised=is_recognised,
    )


def _check(spec: DatasetSpec, processor: ConversationProcessor, located: Located) -> tuple[Conversation, SampleSize]:
    entry, source = located
    if isinstance(entry, RecordError):
        raise entry
    conversation = spec.parse(entry, source, spec.picture_root(source.file))
    return conversation, processor.measure(conversation)


def _in_threads(function: Callable[[T], R], items: Sequence[T], description: str) -> Iterator[R]:
    """What the function returns for each item, in order, while a bar counts them."""
    # None switches the bar off where there is no terminal.
    off = True if os.environ.get("PADDLE_TRAINER_ID", "0") != "0" else None
    with (
        ThreadPoolExecutor(_THREADS) as pool,
        tqdm(total=len(items), desc=description, unit=" records", disable=off) as bar,
    ):
        for start in range(0, len(items), _CHUNK):
            for result in pool.map(function, items[start : start + _CHUNK]):
                bar.update()
                yield result
