"""Records that turned out to be bad while a run went on: each is named once, in the log and in a file."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
from contextlib import suppress
from pathlib import Path

from paddlemix.conversation import RecordError, RecordId

logger = logging.getLogger(__name__)

FILE = "bad_records.jsonl"

# A file, an index, and whether another record was trained in the record's place.
_Key = tuple[str, int, bool]


class BadRecords:
    """Names bad records, each once for all data workers, ranks and resumed runs that write into the same file.

    Args:
        path: one record a line is added to it; None names records in the log alone, once a process.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self._known: set[_Key] = set()
        self._read = 0  # bytes of the file

    def add(self, error: RecordError, set_name: str, replacement: RecordId | None) -> None:
        """Name a record, unless it was named before.

        Args:
            error: names it, and says what is wrong.
            set_name: the format of its set.
            replacement: what was read in its place; None where it is left out of an evaluation.
        """
        source = error.source
        key = source.file, source.index, replacement is not None
        if key in self._known:
            return
        replaced_by = None if replacement is None else {"file": replacement.file, "index": replacement.index}
        line = {
            "file": source.file,
            "index": source.index,
            "set": set_name,
            "problem": error.problem,
            "replaced_by": replaced_by,
        }
        if self._is_new(key, line):
            what = "it is left out of the evaluation" if replacement is None else f"{replacement} takes its place"
            logger.warning("%s; %s.", str(error).rstrip("."), what)

    def count_replaced(self) -> int:
        """Count the records in whose places others were trained, also by other ranks and before the run was resumed."""
        if self.path is not None and self.path.is_file():
            with open(self.path, "rb") as file:
                self._read_on(file.fileno())
        return sum(replaced for _, _, replaced in self._known)

    def _is_new(self, key: _Key, line: dict[str, object]) -> bool:
        """Add a line to the file, if nobody has; tell whether it is added."""
        if self.path is None:
            self._known.add(key)
            return True
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "a+b") as file:
                _lock(file.fileno())
                self._read_on(file.fileno())
                is_new = key not in self._known
                self._known.add(key)
                if is_new:
                    # Names of files may hold bytes that are no text; JSON has a spelling for them.
                    text = json.dumps(line, ensure_ascii=False).encode("utf-8", "backslashreplace")
                    self._write(file.fileno(), text + b"\n")
                return is_new
        except OSError as error:  # a run of hours does not end because of a list
            self._known.add(key)
            logger.warning("%s cannot be written: %s", self.path, error.strerror)
            return True

    def _write(self, file: int, line: bytes) -> None:
        """Write a whole line or none, in place of half a one that a killed process has left."""
        os.ftruncate(file, self._read)
        if os.write(file, line) < len(line):
            os.ftruncate(file, self._read)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._read += len(line)

    def _read_on(self, file: int) -> None:
        """Read the whole lines that were written since."""
        size = os.fstat(file).st_size
        self._read = self._read if self._read <= size else 0
        content = os.pread(file, size - self._read, self._read)
        whole = content[: content.rfind(b"\n") + 1]
        self._read += len(whole)
        for text in whole.splitlines():
            with suppress(ValueError, KeyError, TypeError, RecursionError):  # somebody has edited it
                line = json.loads(text)
                self._known.add((line["file"], line["index"], line["replaced_by"] is not None))


def _lock(file: int) -> None:
    """Let other processes wait until the file is closed; the system lets go of it for the dead."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError as error:  # some network folders cannot: then a record may be named twice
        logger.info("a list of bad records cannot be locked: %s", error)
