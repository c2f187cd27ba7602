"""Saying what a folder is where a model was expected, and what to do."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from shlex import quote

from paddlemix.foreign.kinds import KINDS, LAST_KINDS, Kind
from paddlemix.foreign.listing import Listing, first_match

# How deep below a run's folder its checkpoints lie: output/v0-20250101-120000/checkpoint-100.
_DEPTH = 2


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
        # Adapters of one model lie in folders of their names, none of which is the newest.
        unnumbered = [str(one) for one in whole if not _is_numbered(one.name)]
        if len(unnumbered) == len(whole) > 1:
            return f"Weights lie in folders below: give one of {', '.join(unnumbered)}."
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


def _is_numbered(name: str) -> bool:
    return _age(name)[0] >= 0


def _age(name: str) -> tuple[int, str]:
    """Order checkpoints by their steps, behind all else."""
    step = re.search(r"(\d+)$", name)
    return (int(step[1]) if step else -1, name)
