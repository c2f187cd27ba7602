"""One run at a time in an `output_dir`: the first rank holds a lock that the system takes back from the dead."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from paddlemix.files import NotAFileError

logger = logging.getLogger(__name__)

FILE = ".run.lock"
# What a system says where another process holds the lock. Whatever else it says, the folder cannot be locked.
_HELD = (errno.EWOULDBLOCK, errno.EACCES)
# Times that the file is opened again because the run that held it has just deleted it.
_TRIES = 20


@contextmanager
def only_run_in(folder: Path) -> Iterator[bool]:
    """Hold the lock of a run's folder while the block runs; the folder is made where it is missing.

    Local disks have such locks, and NFS and Lustre (mounted with `flock`) between their hosts. Where a folder has none,
    a warning says so.

    Args:
        folder: `output_dir`.

    Yields:
        Whether the lock is held: then no other run is at work in the folder.

    Raises:
        OSError: another run holds it; or the file cannot be made.
    """
    made = _make(folder)
    descriptor = _open_locked(folder / FILE)
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            # While it is still held: who has opened it meanwhile finds that it is not the folder's any more.
            (folder / FILE).unlink(missing_ok=True)
            _close(descriptor)
            for each in made:
                with suppress(OSError):  # it is in use
                    each.rmdir()


def _make(folder: Path) -> list[Path]:
    """Make a folder; return what was missing of its path, the innermost first."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def _open_locked(file: Path) -> int | None:
    """Lock a file; None where the system cannot."""
    for _ in range(_TRIES):
        # For writing, which NFS asks of whoever locks.
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise NotAFileError(file, "is no regular file; expected that of a run, or nothing. Move it away.")
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = _holder(descriptor)
            os.close(descriptor)
            if error.errno in _HELD:
                raise OSError(_refusal(file.parent, holder)) from None
            file.unlink(missing_ok=True)
            logger.warning(
                "%s cannot be locked (%s), so nothing keeps a second run out of it, and what killed runs have left in "
                "it stays. Give every run an `output_dir` of its own.", file.parent, error.strerror,
            )  # fmt: skip
            return None
        if _is_the_file(descriptor, file):
            _say_who(descriptor)
            _held.add(descriptor)
            return descriptor
        os.close(descriptor)
    raise OSError(f"{file} changes all the time: runs start and end in its folder. Give another `output_dir`.")


def _is_the_file(descriptor: int, file: Path) -> bool:
    """Tell whether an open file is the one that has the name: the run before deletes its own when it ends."""
    try:
        return os.path.samestat(os.fstat(descriptor), file.stat())
    except FileNotFoundError:
        return False


def _say_who(descriptor: int) -> None:
    who = {"host": socket.gethostname(), "process": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(who).encode(), 0)


def _holder(descriptor: int) -> str:
    try:
        who = json.loads(os.pread(descriptor, 4096, 0))
        return f"process {who['process']} on host {who['host']}, since {who['since']}"
    except (OSError, ValueError, KeyError, TypeError, RecursionError):  # it has not written it yet
        return "another process"


def _refusal(folder: Path, holder: str) -> str:
    return (
        f"`output_dir` {folder} is in use by another run ({holder}). Wait until it has ended, end it, or give this run "
        "another `output_dir`."
    )


def _close(descriptor: int) -> None:
    _held.discard(descriptor)
    os.close(descriptor)


def _close_all() -> None:
    for descriptor in list(_held):
        _close(descriptor)


# A forked worker that outlives its run must not keep the lock, as every copy of an open file does.
_held: set[int] = set()
os.register_at_fork(after_in_child=_close_all)
