"""Where runs read and write: room, and whether they may."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from huggingface_hub import constants, get_token

from paddlemix.cache import CACHE_VARIABLE
from paddlemix.doctor.finding import Finding

_GIB = 1 << 30
# A checkpoint of the 2B shape with its optimizer's states, twice, beside the model; and what any run writes.
_ROOM_TO_TRAIN, _ROOM_TO_RUN = 50 * _GIB, _GIB // 10
_ROOM_TO_FETCH = 10 * _GIB
# Docker gives 64 MB, which a batch of images fills.
_SHARED_MEMORY = _GIB


def check_disk() -> Finding:
    """Look at the folder that the command was started in, where a relative `output_dir` goes."""
    here = Path.cwd()
    found = f"{here}: {_room(here)} free"
    if not _may_write(here):
        return Finding("disk", f"{found}, but it cannot be written to", "Give an `output_dir` that can be.")
    free = shutil.disk_usage(here).free
    if free < _ROOM_TO_RUN:
        return Finding("disk", found, "Make room, or give an `output_dir` on a larger disk.", stops=True)
    if free < _ROOM_TO_TRAIN:
        advice = (
            "Checkpoints of a 2B model with optimizer states take some 25 GiB each: give an `output_dir` on a larger "
            "disk, or set `save_total_limit`."
        )
        return Finding("disk", found, advice)
    return Finding("disk", found)


def check_temporary() -> Finding:
    """Look at the folder for temporary files."""
    try:
        folder = Path(tempfile.gettempdir())
    except FileNotFoundError as error:
        return Finding("temporary files", str(error), "Set TMPDIR to a folder that can be written to.", stops=True)
    return Finding("temporary files", f"{folder}: {_room(folder)} free")


def check_shared_memory(folder: Path = Path("/dev/shm")) -> Finding:
    """Look at the memory in which data workers hand over batches."""
    if not folder.is_dir():
        return Finding("shared memory", f"no {folder}", "Set `dataloader_num_workers` to 0.")
    small = shutil.disk_usage(folder).free < _SHARED_MEMORY
    advice = "Data workers may die of a bus error: start the container with --shm-size 8g." if small else ""
    return Finding("shared memory", f"{folder}: {_room(folder)} free", advice)


def check_cache() -> Finding:
    """Look at the folder of what is kept from run to run."""
    named = os.environ.get(CACHE_VARIABLE) or "~/.cache/paddlemix"
    return _folder("cache", named, f"Set {CACHE_VARIABLE} to a folder that can be; else each start measures anew.", 0)


def check_hub() -> list[Finding]:
    """Look at how models are fetched; nothing is asked over the network, and the token is not shown."""
    token = "a token is set" if get_token() else "no token is set (gated models need HF_TOKEN)"
    offline = ", offline (HF_HUB_OFFLINE): only what its cache holds" if constants.HF_HUB_OFFLINE else ""
    advice = "Set HF_HOME to a folder on a disk with room, where you may write."
    return [
        Finding("hub", f"{_without_password(constants.ENDPOINT)}, {token}{offline}"),
        _folder("hub's cache", constants.HF_HUB_CACHE, advice, 0 if offline else _ROOM_TO_FETCH),
    ]


def _folder(subject: str, named: str, advice: str, room: int) -> Finding:
    try:
        folder = Path(named).expanduser()
    except RuntimeError as error:  # of a user without a home
        return Finding(subject, f"{named}: {error}", advice)
    there = next((place for place in (folder, *folder.parents) if place.exists()), Path("/"))
    if not there.is_dir() or not _may_write(there):
        return Finding(subject, f"{folder} cannot be written to", advice)
    small = shutil.disk_usage(there).free < room
    return Finding(subject, f"{folder}: {_room(there)} free", advice if small else "")


def _may_write(folder: Path) -> bool:
    """Tell whether a file can be made in a folder, by making one that has no name or goes at once."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _room(folder: Path) -> str:
    return f"{shutil.disk_usage(folder).free / _GIB:.1f} GiB"


def _without_password(address: str) -> str:
    parts = urlsplit(address)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query=""))
