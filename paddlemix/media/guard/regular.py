"""Files of strangers opened without waiting for anyone: regular files alone, whatever links lead to them."""

from __future__ import annotations

import os
import stat
from typing import IO

_KINDS = (
    (stat.S_ISDIR, "is a folder; expected a file."),
    (stat.S_ISFIFO, "is a named pipe; expected a regular file."),
    (stat.S_ISSOCK, "is a socket; expected a regular file."),
    (stat.S_ISCHR, "is a device; expected a regular file."),
    (stat.S_ISBLK, "is a device; expected a regular file."),
)


class RefusedError(ValueError):
    """A file that would cost too much or is none; the message goes on from its name."""


class TooLargeError(RefusedError):
    """An image of more pixels than a user's own limit allows."""


def open_regular(path: str | os.PathLike[str]) -> IO[bytes]:
    """Open a regular file for reading.

    Args:
        path: of the file, or of links that lead to it.

    Returns:
        The open file.

    Raises:
        RefusedError: it is a folder, a pipe, a socket or a device.
        OSError: it does not exist or may not be read.
    """
    _check_kind(os.stat(path).st_mode)  # first: to open a device may do something, and to open a pipe waits
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        _check_kind(os.fstat(descriptor).st_mode)  # again: another may stand there since
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def length_of(file: IO[bytes]) -> int:
    """Return the number of bytes of an open file, which is left at its beginning."""
    length = file.seek(0, os.SEEK_END)
    file.seek(0)
    return length


def _check_kind(mode: int) -> None:
    for is_kind, problem in _KINDS:
        if is_kind(mode):
            raise RefusedError(problem)
    if not stat.S_ISREG(mode):
        raise RefusedError("is no regular file.")
