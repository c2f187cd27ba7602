"""A file that is read for a bounded time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import IO

from paddlemix.media.guard.regular import RefusedError


class Deadline:
    """A time after which nothing more is done for one file.

    Args:
        seconds: from now on.
        remedy: the end of the refusal, a sentence.
    """

    def __init__(self, seconds: float, remedy: str) -> None:
        self._seconds, self._remedy = seconds, remedy
        self._end = time.monotonic() + seconds

    def check(self) -> None:
        """Refuse to go on when the time is up."""
        if time.monotonic() > self._end:
            raise RefusedError(f"takes longer than {self._seconds:g} s to decode. {self._remedy}")


class MeteredFile:
    """What FFmpeg reads a file through: it stops at the deadline, whatever FFmpeg is about.

    Args:
        file: open at its beginning.
        deadline: when to stop.
        is_seekable: whether FFmpeg may go to other places; else it reads from end to end.
    """

    def __init__(self, file: IO[bytes], deadline: Deadline, *, is_seekable: bool) -> None:
        self._file, self._deadline = file, deadline
        self.name = ""  # FFmpeg must not learn where the file lies
        if is_seekable:
            self.seek: Callable[..., int] = file.seek
            self.tell: Callable[[], int] = file.tell

    def read(self, size: int) -> bytes:
        """Read up to `size` bytes.

        Args:
            size: in bytes.

        Returns:
            The bytes; none at the end.

        Raises:
            RefusedError: the time is up.
        """
        self._deadline.check()
        return self._file.read(size)
