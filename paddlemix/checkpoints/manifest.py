"""What a checkpoint is made of, with sizes and SHA-256, so that half a checkpoint or a damaged one is known as such."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from paddlemix.files import flush_to_disk, write_json

FILE = "manifest.json"
_BLOCK = 1 << 20


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
    listed = {
        file.relative_to(folder).as_posix(): {"bytes": file.stat().st_size, "sha256": _sha256(file)} for file in files
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
        listed = json.loads((folder / FILE).read_bytes())["files"]
    except FileNotFoundError:
        return f"{FILE} is missing"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{FILE} cannot be read ({error})"
    return next(
        (damage for name, wanted in listed.items() if (damage := _differs(folder, name, wanted, contents))), None
    )


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file() and path != folder / FILE)


def _differs(folder: Path, name: str, wanted: dict[str, int | str], contents: bool) -> str | None:
    file = folder / name
    try:
        if (size := file.stat().st_size) != wanted["bytes"]:
            return f"{name} has {size} bytes, expected {wanted['bytes']}"
        if contents and _sha256(file) != wanted["sha256"]:
            return f"{name} has another SHA-256 than when it was written"
    except FileNotFoundError:
        return f"{name} is missing"
    except OSError as error:
        return f"{name} cannot be read ({error.strerror})"
    return None


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with open(file, "rb") as opened:
        while block := opened.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
