"""What lies in a folder, by name: files are not opened, so that none of them can do harm or take time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

# A folder with one of these, or an adapter, is one that models are loaded from.
_WEIGHTS = tuple(
    name + index
    for name in ("model.safetensors", "pytorch_model.bin", "model_state.pdparams")
    for index in ("", ".index.json")
)
_ADAPTER = "adapter_config.json"


@dataclass(frozen=True)
class Listing:
    """The names in a folder.

    Attributes:
        folder: the folder.
        files: names of its files, in order.
        folders: names of its folders, in order.
    """

    folder: Path
    files: tuple[str, ...]
    folders: tuple[str, ...] = ()

    @classmethod
    def of(cls, path: Path) -> Listing:
        """List a folder; a file is a folder with that file alone.

        Args:
            path: of either, or of nothing, which is an empty folder.

        Returns:
            The names.
        """
        if path.is_file():
            return cls(path.parent, (path.name,))
        inside = sorted(path.iterdir()) if path.is_dir() else []
        return cls(
            path,
            tuple(one.name for one in inside if one.is_file()),
            tuple(one.name for one in inside if one.is_dir()),
        )

    @property
    def holds_weights(self) -> bool:
        """Whether a model or an adapter can be loaded from it."""
        return _ADAPTER in self.files or any(name in self.files for name in _WEIGHTS)

    def below(self, name: str) -> Listing:
        """List a folder in it."""
        return Listing.of(self.folder / name)


def first_match(names: Iterable[str], globs: Iterable[str]) -> str | None:
    """Find the first name that one of the globs matches."""
    globs = tuple(globs)
    return next((name for name in names if any(fnmatchcase(name, glob) for glob in globs)), None)
