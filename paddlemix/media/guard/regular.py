"""Images and videos of strangers opened without waiting for anyone, and the errors about them."""

from __future__ import annotations

import os
from typing import IO

from paddlemix.files import NotAFileError
from paddlemix.files import open_regular as open_file


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
        OSError: it does not exist or may not be read.
        RefusedError: it is a folder, a pipe, a socket or a device.
    """
    try:
        return open_file(path)
    except NotAFileError as error:
        raise RefusedError(error.problem) from error


def length_of(file: IO[bytes]) -> int:
    """Return the number of bytes of an open file, which is left at its beginning."""
    length = file.seek(0, os.SEEK_END)
    file.seek(0)
    return length
