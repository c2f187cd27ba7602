"""From one entry of a config to checked conversations with their sizes, before any step is trained."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from paddlemix.conversation import Conversation, RecordError, RecordId
from paddlemix.datasets.formats import find_format
from paddlemix.datasets.records import Entry, read_records, result_or_error
from paddlemix.datasets.size_cache import SizeCache
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
        spec: the set's entry in the config.
        conversations: the usable records, in their order.
        sizes: what each of them will cost.
        errors: why each of the others cannot be used.
    """

    spec: DatasetSpec
    conversations: tuple[Conversation, ...]
    sizes: tuple[SampleSize, ...]
    errors: tuple[RecordError, ...]


def load_set(spec: DatasetSpec, processor: ConversationProcessor) -> LoadedSet:
    """Parse every record of a set, and measure what no earlier run has measured, with a progress bar.

    Args:
        spec: the set.
        processor: what measures; called from several threads at once.

    Returns:
        The usable records with their sizes, and why the others are not.

    Raises:
        FileNotFoundError: a record file does not exist.
        ValueError: a record file as a whole cannot be read, or `image_root` is no folder.
    """
    if spec.image_root is not None and not Path(spec.image_root).is_dir():
        raise ValueError(f"{spec.name}: `image_root` is {spec.image_root!r}; expected a folder that exists")
    entries = list(islice(_read_entries(spec), spec.max_samples))
    # Of several record sets the pictures' folders tell apart what the record files alone may not.
    folders = [str(spec.picture_root(file).resolve()) for file in spec.files]
    settings = f"{spec.name} {spec.prompt!r} {folders} {len(entries)} {processor.fingerprint()}"
    cache = SizeCache(spec.files, settings)
    known = cache.load(len(entries))
    check = partial(_check, spec, processor)
    results = list(
        _in_threads(partial(result_or_error, check), list(zip(entries, known, strict=True)), description=spec.name)
    )
    sizes = [None if isinstance(result, RecordError) else result[1] for result in results]
    if sizes != known:
        cache.save(sizes)
    usable = [result for result in results if not isinstance(result, RecordError)]
    return LoadedSet(
        spec,
        conversations=tuple(conversation for conversation, _ in usable),
        sizes=tuple(size for _, size in usable),
        errors=tuple(result for result in results if isinstance(result, RecordError)),
    )


def _read_entries(spec: DatasetSpec) -> Iterator[tuple[Entry, RecordId]]:
    for file in spec.files:
        yield from ((entry, RecordId(file, index)) for index, entry in enumerate(_read_file(file, spec)))


def _read_file(file: str, spec: DatasetSpec) -> list[Entry]:
    content = read_records(file)
    if isinstance(content, list):
        return content
    expand = find_format(spec.name).expand
    if expand is None:
        raise ValueError(f"{file}: the file holds one object; {spec.name} expects a list of records")
    return expand(content, file)


def _check(
    spec: DatasetSpec,
    processor: ConversationProcessor,
    item: tuple[tuple[Entry, RecordId], SampleSize | None],
) -> tuple[Conversation, SampleSize]:
    (entry, source), known = item
    if isinstance(entry, RecordError):
        raise entry
    conversation = spec.parse(entry, source, spec.picture_root(source.file))
    return conversation, known or processor.measure(conversation)


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
