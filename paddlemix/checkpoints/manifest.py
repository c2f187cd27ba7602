"""What a checkpoint is made of, with sizes and SHA-256, so that half a checkpoint or a damaged one is known as such."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, TypeVar

from paddlemix._environment import usable_cores
from paddlemix.files import flush_to_disk, write_json

FILE = "manifest.json"
# Bytes that are read at once: more than a core's cache holds are read slower than they are digested.
_BLOCK = 1 << 17
# Bytes of the largest list that is read, of some ten thousand files, and threads that digest a file each.
_MAX_BYTES, _THREADS = 8 << 20, 8
_SHA256 = re.compile(r"[0-9a-f]{64}")

T = TypeVar("T")
R = TypeVar("R")


class _Listed(NamedTuple):
    size: int
    sha256: str


def write_manifest(folder: Path) -> None:
    """Flush all files of `folder` to the disk, and then a list of them.

    Args:
        folder: of a checkpoint that is written to its end.

    Raises:
        OSError: something cannot be read or written.
    """
    files = sorted(_files(folder))
    for file in files:
        flush_to_disk(file)
    digests = _of_each(_sha256, files)
    listed = {
        file.relative_to(folder).as_posix(): {"bytes": file.stat().st_size, "sha256": digest}
        for file, digest in zip(files, digests, strict=True)
    }
    write_json(folder / FILE, {"files": listed})
    for each in {folder, *(file.parent for file in files)}:
        flush_to_disk(each)


def find_damage(folder: Path, *, contents: bool = True) -> str | None:
    """Look for the first thing in which a checkpoint differs from its manifest.

    Args:
        folder: of the checkpoint.
        contents: compare the SHA-256 of files too, which reads all of them; sizes are always compared.

    Returns:
        What differs, as the end of a sentence; None where nothing does. Files that the manifest does not list are
        no damage.
    """
    try:
        listed = _read(folder / FILE)
    except FileNotFoundError:
        return f"{FILE} is missing"
    except OSError as error:
        return f"{FILE} cannot be read ({error.strerror})"
    except (ValueError, RecursionError) as error:
        return f"{FILE} cannot be read ({error})"
    sizes = (_wrong_size(folder / name, name, wanted.size) for name, wanted in listed.items())
    damage = next((found for found in sizes if found), None)
    if damage or not contents:
        return damage
    return next((found for found in _of_each(partial(_wrong_content, folder), list(listed.items())) if found), None)


def _read(file: Path) -> dict[str, _Listed]:
    """Read what a manifest lists, by name; ValueError where it is of any other shape than ours."""
    if (problem := _unreadable(file.stat())) is not None:
        raise ValueError(problem)
    if file.stat().st_size > _MAX_BYTES:
        raise ValueError(f"it has {file.stat().st_size} bytes, and no list of ours more than {_MAX_BYTES}")
    found = json.loads(file.read_bytes(), object_pairs_hook=_without_repeats)
    files = found.get("files") if isinstance(found, dict) and set(found) == {"files"} else None
    if not isinstance(files, dict) or not files:
        raise ValueError("expected one key, `files`, with an object that lists some")
    return {name: _listed(name, wanted) for name, wanted in files.items()}


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object; of a key that comes twice, as one flipped bit may have it, one value would go unseen."""
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError("a key comes twice in one object")
    return made


def _listed(name: str, wanted: object) -> _Listed:
    parts = PurePosixPath(name).parts
    if not parts or "\0" in name or parts[0] == "/" or ".." in parts or name != "/".join(parts):
        raise ValueError(f"{name!r} names no file in the folder")
    if not isinstance(wanted, dict) or set(wanted) != {"bytes", "sha256"}:
        raise ValueError(f"{name!r} has other keys than `bytes` and `sha256`")
    size, sha256 = wanted["bytes"], wanted["sha256"]
    if type(size) is not int or size < 0 or not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        raise ValueError(f"{name!r} has no number of bytes, or no SHA-256")
    return _Listed(size, sha256)


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file() and path != folder / FILE)


def _wrong_size(file: Path, name: str, wanted: int) -> str | None:
    try:
        found = file.stat()
    except FileNotFoundError:
        return f"{name} is missing"
    except (OSError, ValueError) as error:  # ValueError: no file can have such a name
        return f"{name} cannot be read ({getattr(error, 'strerror', None) or error})"
    if (problem := _unreadable(found)) is not None:
        return f"{name} cannot be read ({problem})"
    return None if found.st_size == wanted else f"{name} has {found.st_size} bytes, expected {wanted}"


def _unreadable(found: os.stat_result) -> str | None:
    """Say why something is not to be opened: of a device or a pipe a reader finds no end, or never a beginning."""
    return None if stat.S_ISREG(found.st_mode) else "it is no file with a content"


def _wrong_content(folder: Path, named: tuple[str, _Listed]) -> str | None:
    name, wanted = named
    try:
        is_same = _sha256(folder / name) == wanted.sha256
    except OSError as error:
        return f"{name} cannot be read ({error.strerror})"
    return None if is_same else f"{name} has another SHA-256 than when it was written"


def _of_each(function: Callable[[T], R], each: Sequence[T]) -> list[R]:
    """Read files side by side; Python's lock is free while one is read or digested."""
    with ThreadPoolExecutor(max(min(len(each), usable_cores(), _THREADS), 1)) as pool:
        return list(pool.map(function, each))


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    # One block for all of a file: its pages are touched once, and so the core finds them in its cache.
    block = memoryview(bytearray(_BLOCK))
    with open(file, "rb", buffering=0) as opened:
        while count := opened.readinto(block):
            digest.update(block[:count])
    return digest.hexdigest()
