"""What is computed once and kept from run to run, below `$PADDLEMIX_CACHE` or `~/.cache/paddlemix`."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
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


def cache_folder(kind: str, *, warns: bool = True) -> Path:
    """Find a folder that can be written to.

    Args:
        kind: what it is for; its name.
        warns: whether one that is lost is worth a warning.

    Returns:
        The folder; one that goes with this process where the cache cannot be written to.
    """
    named = os.environ.get(CACHE_VARIABLE) or "~/.cache/paddlemix"
    try:
        root = Path(named).expanduser()
        (root / kind).mkdir(parents=True, exist_ok=True)
        clear_dead_once(str((root / kind).absolute()))
        with tempfile.TemporaryFile(dir=root / kind):
            return root / kind
    except (OSError, RuntimeError) as error:  # the latter of a user without a home, or of too many folders in a row
        if warns:
            _warn_of_cache(named, getattr(error, "strerror", None) or str(error))
        return passing_folder(kind)


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


def kept(path: Path, make: Callable[[], np.ndarray], *, fits: Callable[[np.ndarray], bool] | None = None) -> np.ndarray:
    """Return an array from the cache; make it first where it is not there, or not what it was.

    Of several processes that ask for it at once, ranks of a run or runs side by side, one makes it while the others
    wait. Where the one that makes it dies, the next goes on: the system takes the lock back from the dead.

    Args:
        path: where it is kept; ends in `.npy`.
        make: makes the array; what it raises is raised, and nothing kept.
        fits: tells whether an array that was kept can be what `make` would make: its dtype, shape and numbers;
            None takes any.

    Returns:
        The array, mapped from the file and not held in memory, unless the cache has no room for it.
    """
    array = _found(path, fits)
    if array is None:
        with only_one(path.with_suffix(".lock")):
            array = _found(path, fits)
            if array is None:
                made = make()
                is_kept = written(path, lambda beside: np.save(beside, made, allow_pickle=False))
                array = np.load(path, mmap_mode="r", allow_pickle=False) if is_kept else made
    return array


def written(path: Path, write: Callable[[Path], object]) -> bool:
    """Write a file of the cache, whole or not at all; where there is no room for it, one warning says so.

    Args:
        path: the file.
        write: writes the content to the path that it is given.

    Returns:
        Whether the file was written.
    """
    try:
        with replacing(path) as beside:
            write(beside)
    except OSError as error:
        warn_of_no_room(path.parent, error)
        return False
    return True


def warn_of_no_room(folder: Path, error: OSError) -> None:
    """Warn, once for each folder, that nothing more is kept in it.

    Args:
        folder: of the cache.
        error: why it cannot be written to.
    """
    if folder not in _warned_of:
        _warned_of.add(folder)
        logger.warning(
            "%s cannot be written to (%s), so nothing more is kept there, and is made or fetched again at every start. "
            "Make room there, or set %s to a folder that has some.", folder, error.strerror or error, CACHE_VARIABLE,
        )  # fmt: skip


def passing_folder(kind: str) -> Path:
    """Make a folder beside the cache that goes with this process.

    Args:
        kind: what it is for; its name.

    Returns:
        The folder.
    """
    folder = Path(_passing_root()) / kind
    folder.mkdir(exist_ok=True)
    return folder


def _found(path: Path, fits: Callable[[np.ndarray], bool] | None) -> np.ndarray | None:
    if not path.is_file():
        return None
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(array, np.ndarray) or not (fits is None or fits(array)):
            raise ValueError("it holds something else than was written there")
    except Exception as error:  # NumPy raises errors of many kinds, of its own and of those that it calls
        logger.warning("%s cannot be read (%s); it is made again.", path, error)
        return None
    return array


@contextmanager
def only_one(path: Path) -> Iterator[None]:
    """Wait until no other process is in such a block of the same path; the system lets go of it for the dead.

    Args:
        path: a file that is made for this alone.

    Yields:
        Nothing.
    """
    with ExitStack() as opened:
        # Some network folders cannot lock, and a full disk may hold no more files: then several do the same work, each
        # for itself.
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            fcntl.flock(opened.enter_context(open(path, "wb", opener=_open_at_once)), fcntl.LOCK_EX)
        except OSError as error:
            logger.info("%s cannot be locked: %s", path, error)
        yield


def _open_at_once(path: str, flags: int) -> int:
    """Open a file; OSError for a pipe, which would be waited for, without end where nobody reads it."""
    return os.open(path, flags | os.O_NONBLOCK, 0o666)


@cache
def _warn_of_cache(root: str, problem: str) -> None:
    logger.warning(
        "%s cannot be written to (%s), so every start indexes and measures the records anew. Set %s to a folder that "
        "can be.", root, problem, CACHE_VARIABLE,
    )  # fmt: skip


@cache
def _passing_root() -> str:
    folder = tempfile.TemporaryDirectory(prefix="paddlemix-")
    _passing.append(folder)
    return folder.name


# Removed when the process ends.
_passing: list[tempfile.TemporaryDirectory[str]] = []
_warned_of: set[Path] = set()
