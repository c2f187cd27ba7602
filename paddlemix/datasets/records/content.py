"""What a set's files held when a run began, in a few numbers: whether they hold it still when the run goes on."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

# Bytes of a file that is read whole, and of all such files of a set: half a second. Others are read in places.
_WHOLE, _WHOLE_OF_SET = 64 << 20, 512 << 20
_BLOCK, _PLACES = 1 << 16, 64


@dataclass(frozen=True)
class SetContent:
    """What is known of a set's content.

    Attributes:
        name: the set's format.
        files: of each record file its name, `bytes`, `changed` (ns), `digest`, and whether that is of the `whole`.
        media_sizes: a digest of the sizes of all that the records show, in their order.
        media_times: likewise, of sizes and times of the last change.
    """

    name: str
    files: Sequence[Mapping[str, Any]]
    media_sizes: str
    media_times: str

    @classmethod
    def of(cls, name: str, files: Iterable[str], media: np.ndarray) -> SetContent:
        """Look at a set.

        Args:
            name: its format.
            files: its record files.
            media: int64[n, 2], size in bytes and time of the last change in ns of what its records show, in order.

        Returns:
            What is known of it.

        Raises:
            OSError: a record file cannot be read.
        """
        return cls(name, list(_states(files)), _digest_of(media[:, 0]), _digest_of(media))

    def as_json(self) -> dict[str, Any]:
        """Return what `SetContent(**...)` takes."""
        return asdict(self)

    def changes_since(self, earlier: SetContent) -> list[str]:
        """Say what has changed, or may have.

        Args:
            earlier: of the same set, when it was read before.

        Returns:
            A clause for each change; none where all is as it was.
        """
        if len(self.files) != len(earlier.files):
            found = [f"its records are in {len(self.files)} files now and were in {len(earlier.files)}"]
        else:
            pairs = zip(earlier.files, self.files, strict=True)
            found = [change for before, now in pairs if (change := _change(before, now))]
        if self.media_sizes != earlier.media_sizes:
            found.append("images or videos that it shows have other sizes in bytes")
        elif self.media_times != earlier.media_times:
            found.append("images or videos that it shows were written anew, in files of the same sizes")
        return found


def _states(files: Iterable[str]) -> Iterator[dict[str, Any]]:
    room = _WHOLE_OF_SET
    for file in files:
        with open(file, "rb") as opened:
            status = os.fstat(opened.fileno())
            is_whole = status.st_size <= min(_WHOLE, room)
            room -= status.st_size if is_whole else 0
            yield {
                "name": Path(file).name,
                "bytes": status.st_size,
                "changed": status.st_mtime_ns,
                "digest": _digest(opened.fileno(), status.st_size, is_whole=is_whole),
                "whole": is_whole,
            }


def _digest(file: int, size: int, *, is_whole: bool) -> str:
    last = max(size - _BLOCK, 0)
    starts = range(0, size, _BLOCK) if is_whole else np.linspace(0, last, _PLACES, dtype=np.int64).tolist()
    digest = hashlib.blake2b(digest_size=16)
    for start in starts:
        digest.update(os.pread(file, _BLOCK, start))
    return digest.hexdigest()


def _digest_of(numbers: np.ndarray) -> str:
    return hashlib.blake2b(np.ascontiguousarray(numbers).tobytes(), digest_size=16).hexdigest()


def _change(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    if all(before[key] == now[key] for key in ("bytes", "changed")):
        return ""
    if before["whole"] == now["whole"] and before["digest"] != now["digest"]:
        return f"{now['name']} holds something else"
    if before["bytes"] != now["bytes"]:
        return f"{now['name']} has {now['bytes']} bytes and had {before['bytes']}"
    return "" if now["whole"] and before["whole"] else f"{now['name']} was written anew, and may hold something else"
