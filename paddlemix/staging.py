"""Names beside what is being written: no two processes take the same, and those that dead ones have left are known."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import socket
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

# Host, process, when that began, and a number that is drawn for each name.
_NAME = re.compile(r"\..*\.([0-9a-f]{8})-(\d+)-(\d+)-[0-9a-f]{8}\.part(\.[^.]+)?")
# Characters of the final name that are kept in it: file systems take 255 bytes.
_KEPT = 48
# Seconds after which a name of another host, whose processes cannot be asked for, is taken for a dead one's.
_FORGOTTEN = 24 * 3600


def name_beside(target: Path) -> Path:
    """Choose a hidden name beside a file or folder that is about to be written.

    Args:
        target: what it will become.

    Returns:
        A path in the same folder and with the same suffix, from which writers tell the format. No other call gives it,
        in whichever process of whichever host.
    """
    process = os.getpid()
    owner = f"{_host()}-{process}-{_began(process) or 0}-{secrets.token_hex(4)}"
    return target.with_name(f".{target.stem[:_KEPT]}.{owner}.part{target.suffix}")


def is_staged(path: Path) -> bool:
    """Tell whether a name is one that `name_beside` gives."""
    return _NAME.fullmatch(path.name) is not None


def clear_dead(folder: Path) -> list[Path]:
    """Delete what killed processes have left half written in a folder.

    Args:
        folder: it may be missing.

    Returns:
        What was deleted; what belongs to a process that lives, or to another host's of today, stays.
    """
    found = []
    with suppress(OSError), os.scandir(folder) as entries:
        found = [Path(entry.path) for entry in entries if _is_dead(entry.name, entry)]
    for path in found:
        with suppress(OSError):  # another process has deleted it, or it is another user's
            delete(path)
    return found


@cache
def clear_dead_once(folder: str) -> None:
    """Do `clear_dead` at this process's first call for a folder: a listing at every write would be dear."""
    clear_dead(Path(folder))


def delete(path: Path) -> None:
    """Delete a file, a folder with all that is in it, or a link, never what a link leads to.

    Args:
        path: of it; one that is gone already is none to complain about.
    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _is_dead(name: str, entry: os.DirEntry[str]) -> bool:
    match = _NAME.fullmatch(name)
    if match is None:
        return False
    host, process, began = match[1], int(match[2]), int(match[3])
    if host != _host():
        return time.time() - entry.stat(follow_symlinks=False).st_mtime > _FORGOTTEN
    return not _is_alive(process, began)


def _is_alive(process: int, began: int) -> bool:
    """Tell whether a process is there, and is the one that began then: numbers of processes come again."""
    if began:
        return _began(process) == began
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _began(process: int) -> int | None:
    """Return when a process began, in ticks since the system did; None where it is not there, or no /proc."""
    try:
        with open(f"/proc/{process}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return None


@cache
def _host() -> str:
    """Name what numbers its own processes: a host, or a container on one."""
    try:
        numbering = os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        numbering = 0
    return hashlib.blake2b(f"{socket.gethostname()} {numbering}".encode(), digest_size=4).hexdigest()
