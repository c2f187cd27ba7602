"""What is computed once and kept from run to run, below `$PADDLEMIX_CACHE` or `~/.cache/paddlemix`."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np

from paddlemix.files import replacing
from paddlemix.staging import clear_dead_once

logger = logging.getLogger(__name__)

CACHE_VARIABLE = "PADDLEMIX_CACHE"
# Bytes of a file that are read, in places spread evenly over it: with its size and the time of its last change
# they tell one content from another without reading a large file at every start.
_LOOKED_AT, _PLACES = 1 << 16, 16


def cache_folder(kind: str) -> Path:
    """Find a folder that can be written to.

    Args:
        kind: what it is for; its name.

    Returns:
        The folder; one that goes with this process, and a warning, where the cache cannot be written to.
    """
    root = Path(os.environ.get(CACHE_VARIABLE) or Path.home() / ".cache" / "paddlemix").expanduser()
    try:
        (root / kind).mkdir(parents=True, exist_ok=True)
        clear_dead_once(str((root / kind).absolute()))
        with tempfile.TemporaryFile(dir=root / kind):
            return root / kind
    except OSError as error:
        return _passing_folder(str(root), str(error.strerror)) / kind


def identity(path: str | os.PathLike[str]) -> str:
    """Return a text that another content of the file would not have.

    Args:
        path: the file.

    Returns:
        Its digest, of size, time of the last change and stretches of the content.
    """
    digest = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as file:
        status = os.fstat(file.fileno())
        digest.update(f"{status.st_size} {status.st_mtime_ns}".encode())
        for start in np.linspace(0, max(status.st_size - _LOOKED_AT, 0), _PLACES, dtype=np.int64).tolist():
            digest.update(os.pread(file.fileno(), _LOOKED_AT, start))
    return digest.hexdigest()


def digest_of(*parts: object) -> str:
    """Name what was computed from `parts`, whose words say all that it depends on."""
    return hashlib.blake2b("\0".join(map(str, parts)).encode(), digest_size=16).hexdigest()


def kept(path: Path, make: Callable[[], np.ndarray]) -> np.ndarray:
    """Return an array from the cache; make it first where it is not there.

    Of several processes that ask for it at once, ranks of a run or runs side by side, one makes it while the others
    wait. Where the one that makes it dies, the next goes on: the system takes the lock back from the dead.

    Args:
        path: where it is kept; ends in `.npy`.
        make: makes the array; what it raises is raised, and nothing kept.

    Returns:
        The array, mapped from the file and not held in memory.
    """
    array = _found(path)
    if array is None:
        with only_one(path.with_suffix(".lock")):
            array = _found(path)
            if array is None:
                with replacing(path) as beside:
                    np.save(beside, make(), allow_pickle=False)
                array = np.load(path, mmap_mode="r", allow_pickle=False)
    return array


def _found(path: Path) -> np.ndarray | None:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False) if path.is_file() else None
    except (ValueError, OSError) as error:
        logger.warning("%s cannot be read (%s); it is made again.", path, error)
        return None


@contextmanager
def only_one(path: Path) -> Iterator[None]:
    """Wait until no other process is in such a block of the same path; the system lets go of it for the dead.

    Args:
        path: a file that is made for this alone.

    Yields:
        Nothing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:  # some network folders cannot: then several do the same work, each for itself
            logger.info("%s cannot be locked: %s", path, error)
        yield


@cache
def _passing_folder(root: str, problem: str) -> Path:
    folder = tempfile.TemporaryDirectory(prefix="paddlemix-")
    _passing.append(folder)
    logger.warning(
        "%s cannot be written to (%s), so every start indexes and measures the records anew. Set %s to a folder that "
        "can be.", root, problem, CACHE_VARIABLE,
    )  # fmt: skip
    return Path(folder.name)


# Removed when the process ends.
_passing: list[tempfile.TemporaryDirectory[str]] = []
