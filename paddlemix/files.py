"""Files that are written whole or not at all, and opened only where they are files."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from shlex import quote
from typing import Any

from paddlemix.bounded_json import (
    SETTINGS,
    VOCABULARY,
    JsonLimits,
    check_file_size,
    parse_json_object,
    without_surrogates,
)
from paddlemix.staging import clear_dead, clear_dead_once, delete, name_beside

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"


@contextmanager
def replacing(path: str | os.PathLike[str], *, in_folder: bool = False) -> Iterator[Path]:
    """Lend a path beside `path` to write to, and rename it to `path` when the block ends well.

    A reader, or a run that starts after a crash, sees the old file or the new one, never half of one. When the block
    raises, `path` stays as it was and the file beside it is removed; where the process is killed, a later one removes
    it. Missing folders are made. The file gets the mode of any new file, whatever mode its writer gives it.

    Args:
        path: the file to write.
        in_folder: lend a path in a hidden folder of its own. For writers that make files beside theirs, as safetensors
            does: what they leave where they are killed is then known as ours.

    Yields:
        The path to write to; it has the suffix of `path`, from which writers tell the format.

    Raises:
        FileNotFoundError: the block ended without having written the file.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    clear_dead_once(str(target.parent.absolute()))
    # Not tempfile: its files are closed to everyone but their owner, and so would the renamed one be.
    staged = name_beside(target)
    if in_folder:
        staged.mkdir()
    beside = staged / target.name if in_folder else staged
    try:
        yield beside
        _open_as_new_files_are(beside)
        flush_to_disk(beside)
        os.replace(beside, target)
    finally:
        delete(staged)


def _open_as_new_files_are(path: Path) -> None:
    """Give a file the mode of any new one, where its writer has closed it to everyone but its owner."""
    if stat.S_IMODE(path.stat().st_mode) != 0o600:
        return
    sample = name_beside(path.with_name("mode"))
    # A file tells the umask; `os.umask` would change it for other threads meanwhile.
    descriptor = os.open(sample, os.O_CREAT | os.O_EXCL, 0o666)
    try:
        path.chmod(stat.S_IMODE(os.fstat(descriptor).st_mode))
    finally:
        os.close(descriptor)
        sample.unlink()


class NotAFileError(ValueError):
    """Something without a content of its own where a file is expected.

    Args:
        path: of it.
        problem: the message without the path, which it goes on from.

    Attributes:
        problem: as it was given.
    """

    problem: str

    def __init__(self, path: str | os.PathLike[str], problem: str) -> None:
        super().__init__(f"{os.fspath(path)} {problem}")
        self.problem = problem


def open_regular(path: str | os.PathLike[str]) -> BufferedReader:
    """Open a file for reading; a pipe would let a reader wait for ever, and some devices never end.

    Args:
        path: of a regular file, or of links that lead to one.

    Returns:
        The file, to be closed.

    Raises:
        NotAFileError: it is a folder, a pipe, a socket or a device.
        OSError: it does not exist, or may not be read.
    """
    _check_regular(path, os.stat(path).st_mode)  # first: to open a device may do something, and to open a pipe waits
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _check_regular(path, os.fstat(descriptor).st_mode)  # again: another may stand there since
        return open(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def _check_regular(path: str | os.PathLike[str], mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise NotAFileError(path, f"is {_KINDS.get(stat.S_IFMT(mode), 'something else')}; expected a file.")


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
        ValueError: it is no such text, or a pointer of Git LFS; the message names file and key, or file and line.
    """
    if missing_ok and not path.exists():  # a pipe or a folder is not missing
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
        ValueError: it is larger, a pointer of Git LFS, or no file, such as a pipe.
    """
    with open_regular(path) as file:
        check_file_size(os.fstat(file.fileno()).st_size, path, limits)
        content = file.read(limits.size)
    _refuse_pointer(path, content)
    return content


def copy_settings_file(file: Path, target: Path) -> None:
    """Copy a file of a tokenizer, a processor or other settings, which is no larger than a vocabulary.

    Args:
        file: to copy.
        target: where to.

    Raises:
        OSError: it cannot be read or written.
        ValueError: it is larger, or no regular file.
    """
    with open_regular(file) as opened:
        check_file_size(os.fstat(opened.fileno()).st_size, file, VOCABULARY)
    shutil.copyfile(file, target)


def refuse_pointer(file: Path) -> None:
    """Refuse a file of Git LFS that stands for another one.

    Args:
        file: which is to be read.

    Raises:
        ValueError: it is such a pointer, or no regular file.
    """
    with open_regular(file) as opened:
        _refuse_pointer(file, opened.read(len(_LFS_POINTER)))


def _refuse_pointer(file: Path, beginning: bytes) -> None:
    if beginning.startswith(_LFS_POINTER):
        raise ValueError(
            f"{file}: holds no content, only the pointer to it that Git LFS keeps. Fetch the content: `cd "
            f"{quote(str(file.parent))} && git lfs pull`."
        )


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
    beside = name_beside(target)
    try:
        beside.mkdir(parents=True)
        clear_dead(beside.parent)
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
