"""Decoding all that records show before training: a header may be good where the pixels behind it break off."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from paddlemix.contract import ConversationProcessor
from paddlemix.conversation import Conversation, RecordError, RecordId, Text, Turn, result_or_error
from paddlemix.datasets.loading.measure import Measured, Parse
from paddlemix.datasets.loading.media_table import MediaTable, Medium, digest_of, media_of
from paddlemix.datasets.loading.processes import mapping
from paddlemix.datasets.loading.sizes import UNUSABLE
from paddlemix.datasets.records.json_files import Located
from paddlemix.media.images import ImageError, open_image

# Images and videos decoded together: few enough that the bar moves.
_CHUNK = 64

# The number of each medium that was looked at, and what is wrong with it.
Found = list[tuple[int, str | None]]


@dataclass(frozen=True)
class Decoding:
    """How what a set's records show is decoded.

    Attributes:
        located: `located(rows)` reads records.
        parse: makes conversations of them.
        processor: decodes videos, whose frames it chooses.
        title: of the progress bar.
    """

    located: Callable[[Iterable[int]], Iterator[Located]]
    parse: Parse
    processor: ConversationProcessor
    title: str

    def check(self, rows: np.ndarray, measured: Measured) -> Measured:
        """Decode what usable records show, each image and video once, in several processes.

        Args:
            rows: int64[n], the records.
            measured: what is known of them. What is decoded is marked in it at once, so that it can be kept if this
                does not come to its end.

        Returns:
            What is known now; records that show what cannot be decoded are bad.
        """
        media, wanted, users = measured.media, *_not_decoded(measured)
        if not len(wanted):
            return measured
        problems: dict[int, str] = {}

        def decode_chunk(start: int) -> Found:
            stop = start + _CHUNK
            return self._decode(media, wanted[start:stop], rows[users[start:stop]])

        starts = range(0, len(wanted), _CHUNK)
        bar = tqdm(total=len(wanted), desc=f"{self.title}: decoding", unit=" files", disable=None)
        with mapping(decode_chunk, len(starts)) as each, bar:
            for found in each(starts):
                media.decoded[[number for number, problem in found if problem is None]] = True
                problems |= {number: problem for number, problem in found if problem is not None}
                bar.update(len(found))
        return self._without(problems, rows, measured) if problems else measured

    def _decode(self, media: MediaTable, wanted: np.ndarray, rows: np.ndarray) -> Found:
        """Decode media; of each a record that shows it is given, whose neighbours mostly are one record."""
        found: Found = []
        for row in dict.fromkeys(rows.tolist()):
            numbers = {int(media.digests[number]): int(number) for number in wanted[rows == row]}
            (located,) = self.located([row])
            conversation = result_or_error(self.parse, located)
            if isinstance(conversation, RecordError):  # its file has changed since
                found += [(number, conversation.problem) for number in numbers.values()]
                continue
            shown = {digest_of(medium): medium for medium in media_of(conversation)}
            found += [(number, self._problem(shown[digest], conversation.source)) for digest, number in numbers.items()]
        return found

    def _problem(self, medium: Medium, source: RecordId) -> str | None:
        try:
            if isinstance(medium, str):
                open_image(medium)
            else:
                turns = (Turn("user", (medium, Text("?"))), Turn("assistant", (Text("!"),)))
                self.processor.encode(Conversation(turns, source))
        except ImageError as error:
            return str(error)
        except RecordError as error:
            return error.problem
        return None

    def _without(self, problems: dict[int, str], rows: np.ndarray, measured: Measured) -> Measured:
        """Take the records that show any of the media with problems for bad."""
        uses = measured.media.uses
        is_usable = measured.table[:, 0] != UNUSABLE
        showing = uses[np.isin(uses[:, 1], list(problems)) & is_usable[uses[:, 0]]].tolist()
        first = {place: problems[number] for place, number in reversed(showing)}
        places = np.array(sorted(first))
        sources = (source for _, source in self.located(rows[places]))
        errors = [
            (place, RecordError(source, first[place])) for place, source in zip(places.tolist(), sources, strict=True)
        ]
        table = np.array(measured.table)
        table[places] = UNUSABLE
        return Measured(
            table,
            sorted([*measured.errors, *errors], key=lambda found: found[0]),
            measured.media,
            measured.notes.without(places),
            measured.unknown_keys,
        )


def _not_decoded(measured: Measured) -> tuple[np.ndarray, np.ndarray]:
    """Find the media of usable records that are not decoded yet, and the place of the first record of each."""
    uses = measured.media.uses
    is_wanted = (measured.table[uses[:, 0], 0] != UNUSABLE) & ~measured.media.decoded[uses[:, 1]]
    uses = uses[is_wanted]
    uses = uses[np.argsort(uses[:, 0], kind="stable")]
    wanted, first = np.unique(uses[:, 1], return_index=True)
    users = uses[first, 0]
    order = np.argsort(users, kind="stable")
    return wanted[order], users[order]
