"""The checkpoints in a run's folder: each is complete or not there.

A checkpoint is written into a hidden folder beside its own, brought to the disk, and renamed. Whatever a killed run
leaves behind has a hidden name, never that of a checkpoint, and no other run writes under it.
"""

from __future__ import annotations

import logging
import os
import re
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from paddlemix.checkpoints.manifest import FILE as MANIFEST
from paddlemix.checkpoints.manifest import find_damage, write_manifest
from paddlemix.files import flush_to_disk
from paddlemix.staging import delete, is_staged

_NAME = re.compile(r"checkpoint-(\d+)")
# Earlier releases wrote no run's name into the first, and a process's number alone into the second.
_LEFTOVERS = (
    re.compile(r"\.checkpoint-\d+\.([0-9a-f]+\.)?(staging|removed)"),
    re.compile(r"\.(adapter_)?model(-\d+-of-\d+)?\.\d+\.safetensors"),
)

logger = logging.getLogger(__name__)


class CheckpointStore:
    """The checkpoints of one `output_dir`.

    Args:
        output_dir: of the run; it may be missing as long as nothing is written.
        run: a word in hexadecimal digits, the same in all ranks of a run and in no other run; "" draws one.
    """

    def __init__(self, output_dir: str | os.PathLike[str], run: str = "") -> None:
        self.output_dir = Path(output_dir)
        self._run = run or new_run()

    def folder(self, step: int) -> Path:
        """Return the folder of an optimizer step's checkpoint, once it is whole."""
        return self.output_dir / f"checkpoint-{step}"

    def staging(self, step: int) -> Path:
        """Return the folder in which it is written."""
        return self.output_dir / f".checkpoint-{step}.{self._run}.staging"

    def checkpoints(self) -> list[Path]:
        """List all folders with a checkpoint's name, damaged ones too, by step."""
        if not self.output_dir.is_dir():
            return []
        found = [path for path in self.output_dir.iterdir() if _NAME.fullmatch(path.name) and path.is_dir()]
        return sorted(found, key=step_of)

    def check_names(self) -> None:
        """Refuse a folder in which something else has a checkpoint's name.

        Raises:
            ValueError: there is a file, or a link that leads nowhere.
        """
        if not self.output_dir.is_dir():
            return
        for path in sorted(self.output_dir.iterdir()):
            if _NAME.fullmatch(path.name) and not path.is_dir():
                what = "a link that leads nowhere" if path.is_symlink() and not path.exists() else "a file"
                raise ValueError(
                    f"{path} has the name of a checkpoint, but is {what}; expected a folder. Move it away, or give "
                    "another `output_dir`."
                )

    def clear_leftovers(self) -> list[Path]:
        """Delete what a run that was killed while it saved or deleted has left; no other run may be at work here.

        Returns:
            What was deleted: half written files, folders, and links of such names, not what they lead to.
        """
        if not self.output_dir.is_dir():
            return []
        found = sorted(path for path in self.output_dir.iterdir() if _is_leftover(path))
        for path in found:
            delete(path)
        return found

    def publish(self, step: int) -> Path:
        """Make the staged checkpoint of `step` one that a run goes on from; all that belongs to it must be written.

        A checkpoint of that step which is there already, damaged or of an earlier attempt, is replaced.

        Args:
            step: the optimizer step.

        Returns:
            Its folder.

        Raises:
            OSError: a file cannot be written.
        """
        staged, folder = self.staging(step), self.folder(step)
        write_manifest(staged)
        replaced = self._set_aside(folder) if os.path.lexists(folder) else None
        os.rename(staged, folder)
        flush_to_disk(self.output_dir)
        if replaced is not None:
            delete(replaced)
        return folder

    def discard(self, step: int) -> None:
        """Delete the staged checkpoint of `step`."""
        with suppress(OSError):
            delete(self.staging(step))

    def newest_whole(self) -> Path | None:
        """Find the checkpoint to go on from: the highest step whose files are what its manifest says.

        Damaged ones above it are named in a warning, with what differs.

        Returns:
            Its folder; None where there are no checkpoints.

        Raises:
            ValueError: there are some, and all of them are damaged.
        """
        damages = []
        for folder in reversed(self.checkpoints()):
            if (damage := find_damage(folder)) is None:
                return folder
            logger.warning("%s is damaged and not used: %s.", folder, damage)
            damages.append(f"{folder.name}: {damage}")
        if damages:
            raise ValueError(
                f"{self.output_dir}: no checkpoint is whole ({'; '.join(damages)}). Put them right, or set "
                "`overwrite_output_dir` to true and `resume_from_checkpoint` to null to begin anew."
            )
        return None

    def latest(self) -> Path | None:
        """Find the highest step that looks whole by the sizes of its files."""
        return next((folder for folder in reversed(self.checkpoints()) if _looks_whole(folder)), None)

    def remove_older(self, newest: int, limit: int | None, best: Path | None = None) -> list[Path]:
        """Delete checkpoints until no more than `limit` are left, the oldest first.

        Never the one of `newest` nor `best`, none of a higher step, which is another run's or damaged, and no folder
        without a manifest, which we did not write.

        Args:
            newest: the step of the checkpoint that was just written.
            limit: how many may be left; None or 0 for all.
            best: the checkpoint with the best evaluation.

        Returns:
            What was deleted.
        """
        if not limit:
            return []
        ours = [path for path in self.checkpoints() if step_of(path) <= newest and (path / MANIFEST).is_file()]
        kept = {self.folder(newest), *([best] if best else [])}
        for path in reversed(ours):
            if len(kept) < limit and _looks_whole(path):
                kept.add(path)
        removed = [path for path in ours if path not in kept]
        for path in removed:
            delete(self._set_aside(path))
        return removed

    def _set_aside(self, folder: Path) -> Path:
        """Rename a checkpoint for deletion, so that a run that is killed in it leaves no part that looks like one."""
        aside = folder.with_name(f".{folder.name}.{self._run}.removed")
        delete(aside)
        os.rename(folder, aside)
        return aside


def new_run() -> str:
    """Draw a word by which a run's names differ from those of all others."""
    return uuid4().hex[:12]


def choose_checkpoint(store: CheckpointStore, wanted: bool | str | None) -> Path | None:
    """Choose the checkpoint that a run goes on from, as `resume_from_checkpoint` says.

    Args:
        store: of the run.
        wanted: true for the newest whole one of the run, the folder of a checkpoint, or false or None for a new run.

    Returns:
        Its folder, known to be whole; None to begin anew, also where true finds no checkpoint, so that one command
        line starts a run and goes on with it.

    Raises:
        ValueError: no checkpoint is whole, the one that is named is not or is not the newest of the run.
    """
    if not wanted:
        return None
    if wanted is True:
        if (newest := store.newest_whole()) is None:
            logger.warning("There is no checkpoint in %s yet: training begins at its start.", store.output_dir)
        return newest
    folder = Path(wanted).expanduser()
    if damage := find_damage(folder) if folder.is_dir() else "there is no such folder":
        raise ValueError(
            f"`resume_from_checkpoint` is {folder}, which is no whole checkpoint: {damage}. Name another one, or set "
            "it to true to take the newest whole one in `output_dir`."
        )
    if (latest := store.latest()) is not None and step_of(latest) > step_of(folder):
        raise ValueError(
            f"`resume_from_checkpoint` is {folder}, but {latest} is newer and would be taken for a part of this run "
            "later. Move the newer ones away, give another `output_dir`, or set `resume_from_checkpoint` to true."
        )
    return folder


def step_of(folder: Path) -> int:
    """Read the optimizer step of a checkpoint from its name.

    Args:
        folder: its folder.

    Returns:
        The step that its name says.

    Raises:
        ValueError: this is no checkpoint's name.
    """
    match = _NAME.fullmatch(folder.name)
    if match is None:
        raise ValueError(f"{folder} is not named as a checkpoint is; expected checkpoint-<step>.")
    return int(match[1])


def _is_leftover(path: Path) -> bool:
    return is_staged(path) or any(pattern.fullmatch(path.name) for pattern in _LEFTOVERS)


def _looks_whole(folder: Path) -> bool:
    return find_damage(folder, contents=False) is None
