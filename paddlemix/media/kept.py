"""What was fetched once, kept for later epochs and runs, until someone wants all of it asked for again."""

from __future__ import annotations

import hashlib
import logging
import math
import os
import time
from collections.abc import Callable
from pathlib import Path

from paddlemix.cache import cache_folder, warn_of_no_room, written
from paddlemix.files import replacing
from paddlemix.media.fetch import FetchError, fetch
from paddlemix.printable import in_one_line

logger = logging.getLogger(__name__)

Check = Callable[[bytes], "str | None"]
"""Tells what is wrong with a body, as a sentence without its subject; None where it is what was expected."""

_FOLDER = "fetched"
# Holds the time of the last refetch. What was kept before it is asked for again, by whichever process comes to it.
_REFETCH_FILE = "refetch"


def fetch_kept(
    address: str, *, check: Check | None = None, max_bytes: int | None = None, max_seconds: float | None = None
) -> bytes:
    """Get what stands at `address`, or stood there when it was first asked for.

    Kept below `$PADDLEMIX_CACHE` (`~/.cache/paddlemix`) in `fetched` until that folder is removed, so that every epoch
    and every run sees the same image. After `begin_refetch` each address is asked once more; where that fails, what was
    kept is used with a warning.

    Args:
        address: http(s).
        check: what fails it is not kept, and asked for again where it was; None keeps anything.
        max_bytes: see `fetch`.
        max_seconds: see `fetch`.

    Returns:
        The body.

    Raises:
        FetchError: see `fetch`; or the body fails `check`.
    """
    folder = cache_folder(_FOLDER)
    file = _file_of(address, folder)
    kept, is_whole, since = _read(file, check)
    if kept is not None and is_whole and since >= _time_in(folder / _REFETCH_FILE):
        return kept
    try:
        body = _fetch_checked(address, check, max_bytes=max_bytes, max_seconds=max_seconds)
    except FetchError as error:
        if kept is None:
            raise
        logger.warning("%s What was kept of it is used.", error)
        body = kept
    _keep(file, body, address)
    return body


def begin_refetch(now: float) -> None:
    """Have every address asked again that was asked before, once, in this run and in others.

    Args:
        now: seconds since the epoch. Ranks of a run give the same, so that none asks for what another has just got.
    """
    written(cache_folder(_FOLDER) / _REFETCH_FILE, lambda beside: beside.write_text(repr(now)))


def last_refetch() -> float:
    """Return when `begin_refetch` was last called, in seconds since the epoch; 0 where it never was."""
    return _time_in(cache_folder(_FOLDER) / _REFETCH_FILE)


def _file_of(address: str, folder: Path) -> Path:
    # A lone surrogate, which JSON may hold, is no reason to fail here: who asks for the address says what is wrong.
    name = hashlib.blake2b(address.encode("utf-8", "surrogatepass"), digest_size=20).hexdigest()
    return folder / name[:2] / name[2:]


def _read(file: Path, check: Check | None) -> tuple[bytes | None, bool, float]:
    """Read what is kept.

    Args:
        file: where it is kept.
        check: what fails it counts as not there, as earlier releases kept everything.

    Returns:
        The body, or None; whether its end says that it is whole, which those that earlier releases kept cannot say; and
        when it was kept, in seconds since the epoch.
    """
    try:
        since, content = file.stat().st_mtime, file.read_bytes() if file.is_file() else b""
    except OSError:
        return None, False, 0.0
    body, end = content[: -len(_end_of(b""))], content[-len(_end_of(b"")) :]
    is_whole = end == _end_of(body)
    if not is_whole:
        body = content
    return (None if not content or (check and check(body)) else body), is_whole, since


def _end_of(body: bytes) -> bytes:
    """Make what is kept behind a body, which programs that open images pass over."""
    return hashlib.blake2b(body, digest_size=16, person=b"paddlemix").digest()


def _time_in(file: Path) -> float:
    try:
        seconds = float(file.read_text("utf-8")) if file.is_file() else 0.0
    except (OSError, ValueError):
        return 0.0
    return seconds if math.isfinite(seconds) else 0.0


def _fetch_checked(address: str, check: Check | None, *, max_bytes: int | None, max_seconds: float | None) -> bytes:
    body = fetch(address, max_bytes=max_bytes, max_seconds=max_seconds)
    if check and (problem := check(body)):
        raise FetchError(f"{address} {problem}")
    return body


def _keep(file: Path, body: bytes, address: str) -> None:
    try:
        with replacing(file) as beside:
            beside.write_bytes(body + _end_of(body))
        # By this machine's clock, which the time of a refetch is of too; a server of files may have another.
        now = time.time()
        os.utime(file, (now, now))
    except OSError as error:  # a full disk is no reason to do without the image
        logger.debug("%s cannot be kept: %s", in_one_line(address), error)
        warn_of_no_room(cache_folder(_FOLDER), error)
