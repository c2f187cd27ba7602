"""From one entry of a config to checked records with their sizes, before any step is trained."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np

import paddlemix
from paddlemix.cache import cache_folder, digest_of, identity, kept
from paddlemix.contract import ConversationProcessor
from paddlemix.conversation import Conversation, RecordError
from paddlemix.datasets.formats import AUTO, find_format
from paddlemix.datasets.loading.measure import Measured, Measuring
from paddlemix.datasets.loading.sequences import Conversations, RecordSequence, parse_located
from paddlemix.datasets.loading.sizes import UNUSABLE, SizeTable
from paddlemix.datasets.records.data_files import FileContent, divide_contents, read_files
from paddlemix.datasets.records.indexed_file import expanded
from paddlemix.datasets.records.recognise import recognise
from paddlemix.datasets.records.selection import select
from paddlemix.datasets.spec import DatasetSpec
from paddlemix.files import replacing


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
    conversations: Sequence[Conversation]
    sizes: SizeTable
    errors: tuple[RecordError, ...]
    is_recognised: bool = False


def load_set(spec: DatasetSpec, processor: ConversationProcessor) -> LoadedSet:
    """Check and measure the records of a set that no earlier run has measured, with a progress bar.

    Args:
        spec: the set.
        processor: what measures; several processes do so at once.

    Returns:
        The usable records with their sizes, and why the others are not.

    Raises:
        FileNotFoundError: a record file does not exist.
        ValueError: a record file as a whole cannot be read, `image_root` is no folder, or `name` is "auto" and the
            records are in no format, or could be in several.
    """
    if spec.image_root is not None and not Path(spec.image_root).is_dir():
        raise ValueError(f"{spec.name}: `image_root` is {spec.image_root!r}; expected a folder that exists")
    contents = list(read_files(spec.files))
    is_recognised = spec.name == AUTO
    spec = recognise(spec, contents) if is_recognised else spec
    records = join_files(contents, spec)
    rows = select(len(records), splits=spec.split_list, max_samples=spec.max_samples, seed=spec.seed)
    measuring = Measuring(records.located, partial(parse_located, spec), processor, spec.name)
    table, errors = _measured(measuring, rows, _size_file(spec, contents, rows, processor))
    is_usable = table[:, 0] != UNUSABLE
    return LoadedSet(
        spec,
        conversations=Conversations(spec, records, rows[is_usable]),
        sizes=SizeTable(table[is_usable]),
        errors=tuple(error for _, error in errors),
        is_recognised=is_recognised,
    )


def join_files(contents: Iterable[FileContent], spec: DatasetSpec) -> RecordSequence:
    """Join the records of a set's files, not yet parsed.

    Args:
        contents: of its files.
        spec: the set; its `name` is a format's.

    Returns:
        The records of all its files; those that are made of whole files come after the others.

    Raises:
        ValueError: a file holds one object that the format neither reads nor expands.
    """
    lists, documents = divide_contents(contents, spec.name, find_format(spec.name))
    expand = find_format(spec.name).expand
    if not documents or expand is None:
        return RecordSequence(lists)
    depends_on = [_code(), *map(identity, documents)]
    return RecordSequence([*lists, expanded(partial(expand, documents), list(documents), spec.name, depends_on)])


def _measured(measuring: Measuring, rows: np.ndarray, path: Path | None) -> Measured:
    """Return the table, kept between runs; bad records are measured again, since they may have been mended."""
    found: list[tuple[int, RecordError]] | None = None

    def measure() -> np.ndarray:
        nonlocal found
        table, found = measuring.measure(rows)
        return table

    if path is None:
        return measure(), found or []
    table = kept(path, measure)
    if found is not None:
        return table, found
    return _measured_again(measuring, rows, np.array(table), path)


def _measured_again(measuring: Measuring, rows: np.ndarray, table: np.ndarray, path: Path) -> Measured:
    places = np.flatnonzero(table[:, 0] == UNUSABLE)
    if not len(places):
        return table, []
    again, errors = measuring.measure(rows[places])
    if len(errors) < len(places):
        table[places] = again
        with replacing(path) as beside:
            np.save(beside, table, allow_pickle=False)
    return table, [(int(places[place]), error) for place, error in errors]


def _size_file(
    spec: DatasetSpec, contents: Sequence[FileContent], rows: np.ndarray, processor: ConversationProcessor
) -> Path:
    """Name the file of the sizes after all that they depend on, except for the images, which may be a million."""
    files = [(identity(file), spec.media_root(file).absolute()) for file, _ in contents]
    chosen = hashlib.blake2b(rows.tobytes(), digest_size=16).hexdigest()
    name = digest_of(_code(), *files, spec.name, spec.prompt, spec.train_on, chosen, processor.fingerprint())
    return cache_folder("sizes") / f"{name}.npy"


@cache
def _code() -> str:
    """Return a digest of the source code that decides what is measured."""
    home = Path(paddlemix.__file__).parent
    files = [home / f"{module}.py" for module in ("conversation", "contract", "names")]
    for room in ("media", "processors", "datasets", "models"):
        files += sorted((home / room).rglob("*.py"))
    return digest_of(*(file.read_text("utf-8") for file in files))
