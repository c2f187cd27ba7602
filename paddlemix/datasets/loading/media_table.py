"""The images and videos of a set's records, each once: what its file was when it was looked at, and whose it is."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields

import numpy as np
from tqdm import tqdm

from paddlemix.conversation import Conversation, Image, Video
from paddlemix.media.data_url import is_data_url
from paddlemix.media.fetch import is_address

Medium = str | Video
"""What is decoded on its own: the path of an image or of a listed frame, or a video as its record shows it."""

# In place of a file's size and time: there is none; it is not here (an address, a data: URL) and not looked at again;
# it was looked at twice and had changed between.
_MISSING, _ELSEWHERE, _UNSTEADY = (-1, -1), (-2, -2), (-3, -3)
# Records may name files that no system can have.
_ENCODING = "utf-8", "surrogatepass"
# Files that a thread looks at, and paths that are copied, at once.
_BLOCK = 4096
_THREADS = 16
# Seconds after which a progress bar is worth showing.
_PATIENCE = 2.0


@dataclass(frozen=True)
class MediaTable:
    """What records show, a hundred bytes or so each.

    Attributes:
        digests: uint64[m], of what each medium is known by.
        paths: uint8[bytes], their absolute paths one after the other; none of what is not on this machine.
        ends: int64[m], where each path ends.
        status: int64[m, 2], size in bytes and time of the last change in ns of the file, before it was opened.
        decoded: bool[m], whether all of it was decoded since then.
        uses: int32[u, 2], the place of a record and the number of a medium that it shows.
    """

    digests: np.ndarray
    paths: np.ndarray
    ends: np.ndarray
    status: np.ndarray
    decoded: np.ndarray
    uses: np.ndarray

    @classmethod
    def of(cls, conversations: Iterable[tuple[int, Conversation]]) -> MediaTable:
        """Look at the files of some records.

        Args:
            conversations: each with its place.

        Returns:
            The table; nothing is decoded.
        """
        numbers: dict[Medium, int] = {}
        uses = [
            (place, numbers.setdefault(medium, len(numbers)))
            for place, conversation in conversations
            for medium in media_of(conversation)
        ]
        paths = [local_path(medium) for medium in numbers]
        status = [_ELSEWHERE if path is None else file_status(path) for path in paths]
        encoded = [b"" if path is None else path.encode(*_ENCODING) for path in paths]
        return cls(
            np.array([digest_of(medium) for medium in numbers], dtype=np.uint64),
            np.frombuffer(b"".join(encoded), dtype=np.uint8),
            np.cumsum([len(path) for path in encoded], dtype=np.int64),
            np.array(status, dtype=np.int64).reshape(-1, 2),
            np.zeros(len(numbers), dtype=np.bool_),
            np.array(uses, dtype=np.int32).reshape(-1, 2),
        )

    @classmethod
    def joined(cls, parts: Sequence[tuple[MediaTable, np.ndarray]]) -> MediaTable:
        """Join tables.

        Args:
            parts: each with int[records], the place that each of its records has in the whole.

        Returns:
            The table of all of them, every medium once.
        """
        tables = [table for table, _ in parts]
        whole = cls(*(np.concatenate([getattr(one, field.name) for one in tables]) for field in fields(cls)))
        offsets = np.cumsum([0, *(len(one) for one in tables)])
        bytes_before = np.cumsum([0, *(len(one.paths) for one in tables)])
        uses = [
            np.stack([places[one.uses[:, 0]], one.uses[:, 1] + offset], axis=1)
            for (one, places), offset in zip(parts, offsets, strict=False)
        ]
        ends = [one.ends + before for one, before in zip(tables, bytes_before, strict=False)]
        return cls(
            whole.digests,
            whole.paths,
            np.concatenate(ends),
            whole.status,
            whole.decoded,
            np.concatenate(uses).astype(np.int32),
        )._each_once()

    def __len__(self) -> int:
        return len(self.digests)

    def changed(self, title: str) -> np.ndarray:
        """Look at every file again, in several threads and with a progress bar where it takes long.

        Args:
            title: of the bar.

        Returns:
            bool[m], whether its file has changed, vanished or come since.
        """
        now = np.empty_like(self.status)
        with (
            ThreadPoolExecutor(_THREADS) as pool,
            tqdm(total=len(self), desc=title, unit=" files", delay=_PATIENCE, disable=None) as bar,
        ):
            starts = range(0, len(self), _BLOCK)
            for start, found in zip(starts, pool.map(self._status_now, starts), strict=True):
                now[start : start + _BLOCK] = found
                bar.update(len(found))
        return (now != self.status).any(axis=1)

    def users(self, media: np.ndarray) -> np.ndarray:
        """Find the records that show any of the media that bool[m] marks: their places, int32[n], ascending."""
        return np.unique(self.uses[media[self.uses[:, 1]], 0])

    def without(self, places: np.ndarray) -> MediaTable:
        """Forget the records at int[n] places, and what only they show."""
        kept = self.uses[~np.isin(self.uses[:, 0], places)]
        return MediaTable(self.digests, self.paths, self.ends, self.status, self.decoded, kept)._used_alone()

    def shown_in_order(self) -> np.ndarray:
        """Return the `status` of what is shown, in the order of the records and within each, int64[u, 2]."""
        order = np.argsort(self.uses[:, 0], kind="stable")
        return self.status[self.uses[order, 1]]

    def fits(self, count: int) -> bool:
        """Tell whether it can be the table of what so many records show."""
        media = len(self.digests) if self.digests.ndim == 1 else -1
        kinds = [
            (self.digests, np.uint64, (media,)),
            (self.paths, np.uint8, (self.paths.size,)),
            (self.ends, np.int64, (media,)),
            (self.status, np.int64, (media, 2)),
            (self.decoded, np.bool_, (media,)),
            (self.uses, np.int32, (len(self.uses) if self.uses.ndim else -1, 2)),
        ]
        if any(array.dtype != kind or array.shape != shape for array, kind, shape in kinds):
            return False
        ends = np.concatenate([[0], self.ends, [self.paths.size]])
        is_there = (self.uses >= 0) & (self.uses < [count, media])
        return (
            bool((ends[:-1] <= ends[1:]).all())
            and (not media or int(self.ends[-1]) == self.paths.size)
            and bool(is_there.all())
        )

    def arrays(self) -> dict[str, np.ndarray]:
        """Return what `of_arrays` takes."""
        return {f"media_{field.name}": getattr(self, field.name) for field in fields(self)}

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, np.ndarray]) -> MediaTable:
        """Make the table again of what `arrays` gave."""
        return cls(*(arrays[f"media_{field.name}"] for field in fields(cls)))

    def _status_now(self, start: int) -> list[tuple[int, int]]:
        stop = min(start + _BLOCK, len(self))
        first = int(self.ends[start - 1]) if start else 0
        ends, content = self.ends[start:stop].tolist(), self.paths[first : int(self.ends[stop - 1])].tobytes()
        begins = [first, *ends[:-1]]
        paths = [content[begin - first : end - first] for begin, end in zip(begins, ends, strict=True)]
        return [file_status(path.decode(*_ENCODING)) if path else _ELSEWHERE for path in paths]

    def _each_once(self) -> MediaTable:
        """Join what is the same medium; one that was found in two states is looked at again at the next start."""
        digests, first, number = np.unique(self.digests, return_index=True, return_inverse=True)
        if len(digests) == len(self):
            return self
        status, decoded = self.status[first], np.zeros(len(first), dtype=np.bool_)
        decoded[number[self.decoded]] = True
        unsteady = number[(status[number] != self.status).any(axis=1)]
        status[unsteady], decoded[unsteady] = _UNSTEADY, False
        uses = np.stack([self.uses[:, 0], number[self.uses[:, 1]]], axis=1).astype(np.int32)
        return MediaTable(digests, *self._paths_of(first), status, decoded, uses)

    def _used_alone(self) -> MediaTable:
        """Leave out what no record shows."""
        used, number = np.unique(self.uses[:, 1], return_inverse=True)
        if len(used) == len(self):
            return self
        uses = np.stack([self.uses[:, 0], number], axis=1).astype(np.int32)
        return MediaTable(self.digests[used], *self._paths_of(used), self.status[used], self.decoded[used], uses)

    def _paths_of(self, media: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return `paths` and `ends` of some media alone."""
        begins = np.concatenate([[0], self.ends[:-1]]).astype(np.int64)[media]
        lengths = self.ends[media] - begins
        parts = [np.empty(0, np.uint8)]
        for start in range(0, len(media), _BLOCK):  # the index of every byte takes eight times as much as the bytes
            length = lengths[start : start + _BLOCK]
            within = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)
            parts.append(self.paths[np.repeat(begins[start : start + _BLOCK], length) + within])
        return np.concatenate(parts), np.cumsum(lengths)


def media_of(conversation: Conversation) -> Iterator[Medium]:
    """List what a conversation shows: the paths of images and of listed frames, and its other videos."""
    for part in conversation.parts:
        if isinstance(part, Image):
            yield part.path
        elif isinstance(part, Video):
            yield from (part,) if isinstance(part.path, str) else part.path


def local_path(medium: Medium) -> str | None:
    """Return the absolute path of a medium; None where it is an address or a data: URL."""
    path = medium if isinstance(medium, str) else str(medium.path)
    return None if is_address(path) or is_data_url(path) else os.path.join(os.getcwd(), path)


def digest_of(medium: Medium) -> int:
    """Name a medium by 64 bits; that two of a million are named alike has a probability of 3e-8."""
    words = local_path(medium) or medium
    if isinstance(medium, Video):
        words = f"{words}\0{medium.settings}"
    digest = hashlib.blake2b(str(words).encode(*_ENCODING), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def file_status(path: str) -> tuple[int, int]:
    """Return a file's size in bytes and the time of its last change in ns; of a folder, what stands for its files'."""
    try:
        found = os.stat(path)
        if stat.S_ISDIR(found.st_mode):
            return _folder_status(path)
    except (OSError, ValueError):  # ValueError: no file can have such a name
        return _MISSING
    return found.st_size, found.st_mtime_ns


def _folder_status(path: str) -> tuple[int, int]:
    with os.scandir(path) as entries:
        files = sorted((entry.name, entry.stat().st_size, entry.stat().st_mtime_ns) for entry in entries)
    digest = hashlib.blake2b(repr(files).encode(*_ENCODING), digest_size=7).digest()
    return sum(size for _, size, _ in files), int.from_bytes(digest, "little")
