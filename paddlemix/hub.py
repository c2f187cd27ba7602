"""A model's name or path -> a local folder: one that is there, or one fetched from the Hugging Face hub.

The hub's own client does the fetching, with its progress bars and its cache; interrupted downloads are resumed. It
reads its usual environment variables: HF_ENDPOINT (a mirror), HF_TOKEN, HF_HOME (the cache), HF_HUB_OFFLINE.
"""

from __future__ import annotations

import errno
import logging
import os
import re
from collections.abc import Iterable
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

import httpx
from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from huggingface_hub.utils import validate_repo_id

from paddlemix.foreign.explain import explain

logger = logging.getLogger(__name__)

SMALL_FILES = ("*.json", "*.jinja", "*.tiktoken", "tokenizer*", "merges.txt", "vocab.txt")
# The first of these that a repository has: the others hold the same numbers.
WEIGHTS = ("*.safetensors", "pytorch_model*.bin", "model_state*.pdparams")
# What models are called in PaddleMIX, where that is not the hub's name; the numbers are the same.
PADDLEMIX_NAMES = {"qwen-vl/qwen-vl-7b": "Qwen/Qwen-VL", "qwen-vl/qwen-vl-chat-7b": "Qwen/Qwen-VL-Chat"}
# Newer clients of the hub raise errors of httpx, which are no OSError.
HUB_ERRORS = (OSError, httpx.HTTPError)
# What the system answers where there is no room, and where a folder is not one to write to.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)
# How the client's part in Rust, which raises RuntimeError, spells such an answer.
_RUST = re.compile(r"os error (\d+)")


def local_folder(name_or_path: str | os.PathLike[str], *, weights: bool = False) -> Path:
    """Find the folder that a model's name or path stands for.

    Args:
        name_or_path: a local folder, or a model `owner/name` of the hub or of `PADDLEMIX_NAMES`; a folder that is
            there takes precedence.
        weights: whether a model of the hub is fetched with its weights.

    Returns:
        The folder; of a model of the hub, its place in the hub's cache.

    Raises:
        FileNotFoundError: there is neither such a folder nor such a model.
        PermissionError: the hub does not give the model away without the right token.
        ConnectionError: the hub cannot be asked, and its cache does not hold the model.
        OSError: fetching was broken off, its cache cannot be written to or is full, or `name_or_path` is a file.
    """
    folder = Path(name_or_path).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists():
        raise NotADirectoryError(
            f"`model_name_or_path` {name_or_path} is a file; give the folder that holds the model.{explain(folder)}"
        )
    if not isinstance(name_or_path, str) or not is_hub_name(name_or_path):
        raise FileNotFoundError(
            f"`model_name_or_path` {name_or_path} is no local folder, and no `owner/name` of a model on the hub. "
            "Correct the path, or give a name such as Qwen/Qwen2-VL-2B-Instruct."
        )
    return _from_hub(PADDLEMIX_NAMES.get(name_or_path, name_or_path), weights)


def is_hub_name(name: str) -> bool:
    """Tell whether `name` has the form `owner/name`; what begins like a path has not."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return name.count("/") == 1 and not name.startswith((".", "~"))


def wanted_files(names: Iterable[str], *, weights: bool) -> list[str]:
    """Choose those of a repository's files that a model needs.

    Args:
        names: all of its files; those in folders of it are exports for other programs.
        weights: whether the weights are among them, of one format.

    Returns:
        Their names.
    """
    top = [name for name in names if "/" not in name]
    wanted = [name for name in top if any(fnmatch(name, pattern) for pattern in SMALL_FILES)]
    return wanted + _weights_among(top) if weights else wanted


def _weights_among(names: list[str]) -> list[str]:
    found = ([name for name in names if fnmatch(name, pattern)] for pattern in WEIGHTS)
    return next(filter(None, found), [])


@cache
def _from_hub(name: str, weights: bool) -> Path:
    """Download once a process: config, processor and model of one run come from the same place."""
    try:
        listed = HfApi().model_info(name, timeout=constants.HF_HUB_ETAG_TIMEOUT).siblings or []
    except HUB_ERRORS as error:
        return _from_cache(name, weights, error)
    files = wanted_files((one.rfilename for one in listed), weights=weights)
    try:
        return Path(snapshot_download(name, allow_patterns=files))
    except RepositoryNotFoundError as error:
        # Also a gated model: it is listed for everyone, its files are not given to everyone.
        raise _refusal(name, error) from error
    except (*HUB_ERRORS, RuntimeError) as error:
        if refusal := _cache_refusal(name, error):
            raise refusal from error
        if isinstance(error, RuntimeError):
            raise
        raise OSError(
            f"fetching {name} from {constants.ENDPOINT} was broken off ({_short(error)}). Run it again: it goes on "
            "where it stopped."
        ) from error


def _from_cache(name: str, weights: bool, error: Exception) -> Path:
    """Find what an earlier run has fetched, where the hub cannot be asked or does not answer as it should."""
    try:
        folder = Path(snapshot_download(name, local_files_only=True))
    except LocalEntryNotFoundError:
        raise _refusal(name, error) from error
    if weights and not _weights_among(os.listdir(folder)):
        raise _refusal(name, error, "holds it without its weights") from error
    if not isinstance(error, OfflineModeIsEnabled):
        logger.warning("%s: %s does not answer (%s); taking %s.", name, constants.ENDPOINT, _short(error), folder)
    return folder


def _refusal(name: str, error: Exception, cached: str = "does not hold it") -> OSError:
    """Make the error in words that say what to do."""
    hub, in_cache = constants.ENDPOINT, f"the cache {constants.HF_HUB_CACHE} {cached}"
    begin = f"`model_name_or_path` {name} is no local folder, and"
    if isinstance(error, OfflineModeIsEnabled):
        return ConnectionError(
            f"{begin} {in_cache}. HF_HUB_OFFLINE forbids asking the hub: unset it, or give a local folder."
        )
    status = _status(error)
    if isinstance(error, GatedRepoError):
        return PermissionError(
            f"{begin} {hub} gives it only to those who accepted its terms: accept them at {hub}/{name}, and set "
            "HF_TOKEN to your token."
        )
    if isinstance(error, RepositoryNotFoundError):
        return FileNotFoundError(
            f"{begin} {hub} shows no such model. Correct the name; if the model is private, set HF_TOKEN to a token "
            "that may read it."
        )
    if status in (401, 403):
        return PermissionError(f"{begin} {hub} refuses the token (status {status}). Set HF_TOKEN to a valid one.")
    what = f"answers with status {status}" if status else "cannot be reached"
    return ConnectionError(
        f"{begin} {in_cache}, while {hub} {what}. Check the connection, set HF_ENDPOINT to a mirror, or give a local "
        "folder."
    )


def _cache_refusal(name: str, error: Exception) -> OSError | None:
    """Say what to do where the hub's cache takes no files; None where the error is another one."""
    said = _RUST.search(str(error))
    number = int(said[1]) if said else getattr(error, "errno", None)
    cache, reason = constants.HF_HUB_CACHE, os.strerror(number) if number else ""
    if number in _NO_ROOM:
        return OSError(
            f"{name} cannot be fetched: the hub's cache {cache} has no room for it ({reason}). Make room there, or set "
            "HF_HOME to a folder on a larger disk, then run it again: it goes on where it stopped."
        )
    if number in _NOT_WRITABLE:
        return PermissionError(
            f"{name} cannot be fetched: the hub's cache {cache} cannot be written to ({reason}). Set HF_HOME to a "
            "folder where you may write; HF_HUB_OFFLINE=1 takes what the cache holds, where that is the whole model."
        )
    return None


def _short(error: Exception) -> str:
    status = _status(error)
    return f"status {status}" if status else getattr(error, "strerror", None) or type(error).__name__


def _status(error: Exception) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)
