"""Where a file was looked for that is not there, and which file was perhaps meant."""

from __future__ import annotations

import os
import unicodedata
from functools import lru_cache
from itertools import islice
from pathlib import Path

# Names of a folder that are looked at: enough for a typical one, and no wait in one of a million files.
_MOST_NAMES = 20_000


def where_it_is_not(path: str) -> str:
    """Say where a file was looked for, and what is there in its place.

    Args:
        path: of a file that does not exist.

    Returns:
        Sentences that begin with a space; "" where there is nothing to add.
    """
    absolute = Path(os.path.abspath(path))
    told = "" if str(absolute) == path else f" It was looked for at {absolute}."
    folder = absolute.parent
    if not folder.is_dir():
        return f"{told} There is no folder {folder}."
    near = near_name(absolute)
    return f"{told} There is {near} in its folder." if near else told


def near_name(path: Path) -> str | None:
    """Find a file that is called almost as `path` is.

    Args:
        path: of a file that does not exist, in a folder that does.

    Returns:
        A name of the folder that differs in case, in how its letters are composed, or, failing that, in its suffix.
    """
    by_name, by_stem = _names(str(path.parent))
    return by_name.get(_plain(path.name)) or by_stem.get(_plain(path.stem))


@lru_cache(maxsize=16)
def _names(folder: str) -> tuple[dict[str, str], dict[str, str]]:
    """Return a folder's names by what they are regardless of case, with suffix and without."""
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in islice(entries, _MOST_NAMES))
    except OSError:
        return {}, {}
    return {_plain(name): name for name in names}, {_plain(Path(name).stem): name for name in names}


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
