"""Saying what a folder is where a model was expected, and what to do."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from shlex import quote

from paddlemix.files import open_regular
from paddlemix.foreign.kinds import KINDS, LAST_KINDS, Kind
from paddlemix.foreign.listing import Listing, first_match

# How deep below a run's folder its checkpoints lie: output/v0-20250101-120000/checkpoint-100.
_DEPTH = 2
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"


def explain(path: Path) -> str:
    """Say what a folder or a file is, and which command makes weights of it.

    Names are looked at and nothing is opened.

    Args:
        path: of what was given as a model or an adapter, and is none.

    Returns:
        Sentences after a space, to be put behind an error's; nothing where nothing is known.
    """
    listing = Listing.of(path)
    said = _of_kinds(listing, KINDS) or _of_folders_below(listing) or _of_kinds(listing, LAST_KINDS)
    return f" {said}" if said else ""


def refuse_pointer(file: Path) -> None:
    """Refuse a file of Git LFS that stands for another one.

    Args:
        file: which is to be read.

    Raises:
        ValueError: it is such a pointer, or no regular file.
    """
    with open_regular(file) as opened:
        is_pointer = opened.read(len(_LFS_POINTER)) == _LFS_POINTER
    if is_pointer:
        raise ValueError(
            f"{file}: holds no content, only the pointer to it that Git LFS keeps. Fetch the content: `cd "
            f"{quote(str(file.parent))} && git lfs pull`."
        )


def _of_kinds(listing: Listing, kinds: Iterable[Kind]) -> str | None:
    for kind in kinds:
        found = first_match(listing.folders, kind.folders) or first_match(listing.files, kind.files)
        if found is not None:
            folder = listing.folder
            paths = {"folder": folder, "path": folder / found, "parent": folder.resolve().parent}
            return kind.says.format(found=found, **{name: quote(str(one)) for name, one in paths.items()})
    return None


def _of_folders_below(listing: Listing) -> str | None:
    """Name the newest folder below that holds weights; where none does, say what the newest checkpoint is."""
    below = _folders_below(listing, _DEPTH)
    whole = [one.folder for one in below if one.holds_weights]
    if whole:
        others = f", the last of {len(whole)}" if len(whole) > 1 else ""
        return f"Weights lie in a folder below: give {whole[-1]}{others}."
    for one in reversed(below):
        if said := _of_kinds(one, KINDS):
            return f"Of {one.folder}, below it: {said}"
    return None


def _folders_below(listing: Listing, depth: int) -> list[Listing]:
    """List the folders below, the newest checkpoint last; a link is not followed, it may lead back."""
    names = [name for name in listing.folders if not name.startswith(".") and not (listing.folder / name).is_symlink()]
    found = [listing.below(name) for name in sorted(names, key=_age)]
    return [deeper for one in found for deeper in (*(_folders_below(one, depth - 1) if depth > 1 else ()), one)]


def _age(name: str) -> tuple[int, str]:
    """Order checkpoints by their steps, behind all else."""
    step = re.search(r"(\d+)$", name)
    return (int(step[1]) if step else -1, name)
