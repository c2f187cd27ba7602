"""Writing files that are whole or not there at all."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from paddlemix.bounded_json import SETTINGS, JsonLimits, check_file_size, parse_json_object, without_surrogates


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Lend a path beside `path` to write to, and rename it to `path` when the block ends well.

    A reader, or a run that starts after a crash, sees the old file or the new one, never half of one. When the block
    raises, `path` stays as it was and the file beside it is removed. Missing folders are made.

    Args:
        path: the file to write.

    Yields:
        The path to write to; it has the suffix of `path`, from which writers tell the format.

    Raises:
        FileNotFoundError: the block ended without having written the file.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    # Not tempfile: its files are closed to everyone but their owner, and so would the renamed one be.
    beside = target.with_name(f".{target.stem}.{os.getpid()}{target.suffix}")
    try:
        yield beside
        flush_to_disk(beside)
        os.replace(beside, target)
    finally:
        beside.unlink(missing_ok=True)


def flush_to_disk(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk.

    Args:
        path: of the file or folder.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: str | os.PathLike[str], obj: Any) -> None:
    """Write `obj` as indented UTF-8 JSON, whole or not at all; Chinese stays readable.

    Args:
        path: the file to write.
        obj: dicts with string keys, lists, strings, finite numbers, booleans and None.

    Raises:
        TypeError: `obj` holds something else.
        ValueError: `obj` holds NaN or an infinity, which JSON has no word for, or half of a surrogate pair.
    """
    text = json.dumps(obj, ensure_ascii=False, indent=2, allow_nan=False)
    if not without_surrogates(text):
        raise ValueError(f"{path}: a text to be written holds half of a surrogate pair, which is no text in UTF-8.")
    with replacing(path) as beside:
        beside.write_text(text + "\n", encoding="utf-8")


def read_json_object(path: Path, *, missing_ok: bool = False, limits: JsonLimits = SETTINGS) -> dict[str, Any]:
    """Read a file that holds one JSON object, within bounds; see `parse_json_object`.

    Args:
        path: of a UTF-8 text, a byte order mark in front of it or not.
        missing_ok: whether a file that is not there reads as an empty object.
        limits: how much it may hold.

    Returns:
        The object.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no such text; the message names file and key, or file and line.
    """
    if missing_ok and not path.is_file():
        return {}
    return parse_json_object(read_bounded(path, limits), path, limits)


def read_bounded(path: Path, limits: JsonLimits = SETTINGS) -> bytes:
    """Read a file that is no larger than its kind may be.

    Args:
        path: of the file.
        limits: how much it may hold.

    Returns:
        Its content.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is larger, or no file, such as a pipe.
    """
    if path.exists() and not path.is_file():
        raise ValueError(f"{path}: not a file; expected one that holds JSON.")
    with open(path, "rb") as file:
        check_file_size(os.fstat(file.fileno()).st_size, path, limits)
        return file.read(limits.size)


# A full disk, a full quota, a file larger than allowed.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def new_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Lend a folder beside `path` to fill, and rename it to `path` when the block ends well.

    `path` is whole or not there; when the block raises, the folder beside it is removed. Missing parents are made.

    Args:
        path: the folder to make.

    Yields:
        The folder to fill.

    Raises:
        FileExistsError: `path` is a file, or a folder that is not empty.
        OSError: a folder beside `path` cannot be made, or not be filled because there is no room.
    """
    target = Path(path)
    if target.is_file() or (target.is_dir() and any(target.iterdir())):
        raise FileExistsError(f"{target} is there already and is not overwritten; give another folder.")
    beside = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        beside.mkdir(parents=True)
    except OSError as error:
        raise OSError(f"{target} cannot be made: {error.strerror}; give a folder where you may write.") from error
    try:
        yield beside
        for file in beside.iterdir():
            flush_to_disk(file)
        os.replace(beside, target)
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise OSError(
            f"{target} cannot be written: {error.strerror}; make room there. Nothing of it was kept."
        ) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
