"""What is looked at again at a start, and what is known from earlier ones."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from paddlemix.cache import only_one
from paddlemix.contract import ConversationProcessor
from paddlemix.datasets.loading.decoding import Decoding
from paddlemix.datasets.loading.drawn import DrawnRecords
from paddlemix.datasets.loading.kept_set import is_of_start, mark_start, read_kept, write_kept
from paddlemix.datasets.loading.measure import Measured, Measuring
from paddlemix.datasets.loading.sequences import RecordSequence, parse_located
from paddlemix.datasets.loading.sizes import UNUSABLE
from paddlemix.datasets.spec import DatasetSpec

CheckMedia = Literal["headers", "full"]


@dataclass(frozen=True)
class Start:
    """What the loading of all sets has in common.

    Attributes:
        check_media: "headers" reads the headers of images and videos, "full" decodes all of them.
        token: the same in all ranks of a run, and in no other run; files that one of them has looked at the others
            take as it found them. None looks at all files.
        drawn: what the run that goes on draws; its records keep their places and sizes, whatever became of them.
    """

    check_media: CheckMedia = "headers"
    token: str | None = None
    drawn: DrawnRecords | None = None

    def __post_init__(self) -> None:
        if self.check_media not in get_args(CheckMedia):
            raise ValueError(f'`check_media` is {self.check_media!r}; expected "headers" or "full"')


class Checking:
    """Measures the records of a set, and decodes what they show where that is wanted.

    Args:
        records: of the set's files.
        spec: the set.
        processor: what measures.
        rows: int64[n], which of the records.
    """

    def __init__(
        self, records: RecordSequence, spec: DatasetSpec, processor: ConversationProcessor, rows: np.ndarray
    ) -> None:
        how = records.located, partial(parse_located, spec), processor, spec.name
        self._measuring, self._decoding = Measuring(*how), Decoding(*how)
        self._rows = rows

    def measured(self, path: Path, start: Start) -> Measured:
        """Return what is known of the records, kept between runs; others that ask for it meanwhile wait.

        Args:
            path: where it is kept.
            start: decides what is looked at again.

        Returns:
            What holds now.
        """
        token = start.token and f"{start.token} {start.check_media}"
        with only_one(path.with_suffix(".lock")):
            earlier = read_kept(path, len(self._rows))
            if earlier is not None and is_of_start(path, token):
                return earlier
            now = self._measuring.measure(self._rows) if earlier is None else self._renewed(earlier)
            decoded = np.count_nonzero(now.media.decoded)
            try:
                now = self._decoding.check(self._rows, now) if start.check_media == "full" else now
            finally:  # what took hours until somebody stopped it is not done again
                if now is not earlier or np.count_nonzero(now.media.decoded) > decoded:
                    write_kept(path, now)
            mark_start(path, token)
        return now

    def _renewed(self, earlier: Measured) -> Measured:
        """Measure bad records again, since they may have been mended, and those that show what has changed."""
        changed = earlier.media.changed(f"{self._measuring.title}: looking for changes")
        bad = np.flatnonzero(earlier.table[:, 0] == UNUSABLE)
        places = np.union1d(bad, earlier.media.users(changed))
        if not len(places):
            return earlier
        now = earlier.renewed(self._measuring.measure(self._rows[places]), places)
        return now if changed.any() or not now.says_the_same(earlier) else earlier
