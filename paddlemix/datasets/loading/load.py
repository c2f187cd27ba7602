"""From one entry of a config to checked records with their sizes, before any step is trained."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path

import numpy as np

import paddlemix
from paddlemix.cache import cache_folder, digest_of, identity
from paddlemix.contract import ConversationProcessor
from paddlemix.conversation import Conversation, RecordError, RecordId, UnknownKeysError
from paddlemix.datasets.formats import AUTO, find_format
from paddlemix.datasets.loading.checking import Checking, Start
from paddlemix.datasets.loading.measure import Measured
from paddlemix.datasets.loading.sequences import Conversations, RecordSequence
from paddlemix.datasets.loading.sizes import UNUSABLE, SizeTable
from paddlemix.datasets.loading.tallies import Tally
from paddlemix.datasets.records.data_files import FileContent, divide_contents, read_files
from paddlemix.datasets.records.indexed_file import expanded
from paddlemix.datasets.records.recognise import recognise
from paddlemix.datasets.records.selection import select
from paddlemix.datasets.spec import DatasetSpec
from paddlemix.printable import short_line

logger = logging.getLogger(__name__)

# How many records with keys that nothing reads become errors of their own; a million may have the same key.
_LISTED = 20
_MENDED = "it was bad when the run began, which draws the same records until its end."


@dataclass(frozen=True)
class LoadedSet:
    """The records of one set.

    Attributes:
        spec: the set's entry in the config; its `name` is the format that the records are in.
        conversations: the usable records, in their order.
        sizes: what each of them will cost.
        errors: why each of the others cannot be used; of those with keys that nothing reads the first 20.
        became_bad: why records cannot be used that the run that goes on draws.
        is_recognised: whether the format was found out from the records.
        unknown_keys: the keys that nothing reads.
        table: int32[records, columns] of all records, `UNUSABLE` where one is not used.
        key: the name under which what is known of the set is kept.
        files: its record files.
        media: int64[n, 2], size and time of the last change of what the records show, in their order.
    """

    spec: DatasetSpec
    conversations: Sequence[Conversation]
    sizes: SizeTable
    errors: tuple[RecordError, ...]
    became_bad: tuple[RecordError, ...] = ()
    is_recognised: bool = False
    unknown_keys: tuple[Finding, ...] = ()
    table: np.ndarray | None = None
    key: str = ""
    files: tuple[str, ...] = ()
    media: np.ndarray = field(default_factory=lambda: np.empty((0, 2), np.int64))


@dataclass(frozen=True)
class Finding:
    """What holds of several records of a set.

    Attributes:
        text: says it.
        count: of how many records.
        first: of them.
    """

    text: str
    count: int
    first: RecordId

    @property
    def records(self) -> str:
        """How many, in words."""
        return f"{self.count:,} record{'s' if self.count > 1 else ''}"


def load_set(spec: DatasetSpec, processor: ConversationProcessor, start: Start | None = None) -> LoadedSet:
    """Check and measure the records of a set that no earlier run has measured, with a progress bar.

    What was measured earlier is measured again where an image, a video or the record file has changed. What a user
    should know of how records were read is logged.

    Args:
        spec: the set.
        processor: what measures; several processes do so at once.
        start: what all sets have in common; None looks at every file, and at no more than headers.

    Returns:
        The usable records with their sizes, and why the others are not.

    Raises:
        FileNotFoundError: a record file does not exist.
        ValueError: a record file as a whole cannot be read, `splits` takes no record, `image_root` is no folder, or
            `name` is "auto" and the records are in no format, or could be in several.
    """
    if spec.image_root is not None and not Path(spec.image_root).is_dir():
        raise ValueError(f"{spec.name}: `image_root` is {spec.image_root!r}; expected a folder that exists")
    start = start or Start()
    contents = list(read_files(spec.files, spec.unpack_limit))
    is_recognised = spec.name == AUTO
    spec = recognise(spec, contents) if is_recognised else spec
    records = join_files(contents, spec)
    rows = select(len(records), splits=spec.split_list, max_samples=spec.max_samples, seed=spec.seed)
    if not len(rows):
        raise ValueError(
            f"{spec.name} ({', '.join(spec.files)}): `splits` {spec.split_list} takes none of the {len(records)} "
            "records; take longer stretches"
        )
    path = _kept_at(spec, contents, rows, processor)
    measured = Checking(records, spec, processor, rows).measured(path, start)
    table = measured.table if start.drawn is None else start.drawn.tables.get(path.stem, measured.table)
    is_usable = table[:, 0] != UNUSABLE
    loaded = LoadedSet(
        spec,
        conversations=Conversations(spec, records, rows[is_usable]),
        sizes=SizeTable(table if is_usable.all() else table[is_usable]),
        errors=_errors(measured, records, rows, is_usable),
        became_bad=tuple(error for place, error in measured.errors if is_usable[place]),
        is_recognised=is_recognised,
        unknown_keys=_findings(measured.unknown_keys, records, rows),
        table=table,
        key=path.stem,
        files=tuple(file for file, _ in contents),
        media=measured.media.shown_in_order(),
    )
    _log_notes(loaded, _findings(measured.notes, records, rows))
    return loaded


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


def _errors(
    measured: Measured, records: RecordSequence, rows: np.ndarray, is_usable: np.ndarray
) -> tuple[RecordError, ...]:
    """List why records are not used, in their order."""
    unread = measured.unknown_keys.of_first(_LISTED)
    errors = {place: error for place, error in measured.errors if not is_usable[place]}
    errors |= {place: UnknownKeysError(_source(records, rows[place]), keys) for place, keys in unread.items()}
    for place in np.flatnonzero(~is_usable & (measured.table[:, 0] != UNUSABLE)).tolist():
        errors[place] = RecordError(_source(records, rows[place]), _MENDED)
    return tuple(errors[place] for place in sorted(errors))


def _findings(tally: Tally, records: RecordSequence, rows: np.ndarray) -> tuple[Finding, ...]:
    return tuple(
        Finding(short_line(text), count, _source(records, rows[place])) for text, count, place in tally.counts()
    )


def _source(records: RecordSequence, row: int) -> RecordId:
    ((_, source),) = records.located([row])
    return source


def _log_notes(loaded: LoadedSet, notes: Sequence[Finding]) -> None:
    if notes:
        lines = (f"  {note.records}: {note.text} (first: {note.first})" for note in notes)
        logger.warning("%s (%s):\n%s", ", ".join(loaded.spec.files), loaded.spec.name, "\n".join(lines))


def _kept_at(
    spec: DatasetSpec, contents: Sequence[FileContent], rows: np.ndarray, processor: ConversationProcessor
) -> Path:
    """Name the file after all that it depends on, except for the images, which may be a million."""
    files = [(identity(file), spec.media_root(file).absolute()) for file, _ in contents]
    chosen = hashlib.blake2b(rows.tobytes(), digest_size=16).hexdigest()
    name = digest_of(_code(), *files, spec.name, spec.reading_keys, chosen, processor.fingerprint())
    return cache_folder("sizes") / f"{name}.npz"


@cache
def _code() -> str:
    """Return a digest of the source code that decides what is measured."""
    home = Path(paddlemix.__file__).parent
    files = [home / f"{module}.py" for module in ("conversation", "contract", "names")]
    for room in ("media", "processors", "datasets", "models"):
        files += sorted((home / room).rglob("*.py"))
    return digest_of(*(file.read_text("utf-8") for file in files))
