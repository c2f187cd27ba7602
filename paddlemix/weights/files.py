"""The files of a checkpoint's folder that hold weights, and the tensors in them; numbers are not read here."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from paddlemix.bounded_json import JsonLimits, parse_json_object
from paddlemix.files import read_bounded
from paddlemix.foreign.explain import explain
from paddlemix.printable import brief
from paddlemix.weights.paddle_file import read_paddle_file
from paddlemix.weights.safetensors_file import read_safetensors_file
from paddlemix.weights.stored_tensor import StoredTensor
from paddlemix.weights.torch_file import read_torch_file

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
MOST_TENSORS = 1 << 17  # of all files
_MOST_FILES = 4096
_LONGEST_FILE_NAME = 255
# An index holds a pair of names a tensor, of 80 bytes and more. One that is denser would take twenty times its size to
# read; a large one of other letters than ASCII's, which a text has in four bytes each, four times.
_INDEX = JsonLimits(16 << 20, MOST_TENSORS + 1000)
_MOST_WIDE, _SHORTEST_PAIR, _FREE_PAIRS = 2 << 20, 24, 4096
_MOST_NAMED = 3


@dataclass(frozen=True)
class WeightFormat:
    """A way to store weights: all in one file, or in several with an index beside them.

    Attributes:
        file: name of the one file.
        index: name of the index of several.
        read: gives the tensors of a file.
    """

    file: str
    index: str
    read: Callable[[Path], list[StoredTensor]]


def stored_tensors(folder: Path) -> list[StoredTensor]:
    """List every tensor of the checkpoint in `folder`, in the order in which they lie in its files.

    Args:
        folder: holds model.safetensors, or else pytorch_model.bin, or else model_state.pdparams; or an index of several
            such files.

    Returns:
        The tensors.

    Raises:
        FileNotFoundError: no weights, or a file that the index names is missing.
        ValueError: a file is damaged, of another kind, or the index names one outside of the folder.
    """
    found, files = _files_there(folder)
    tensors: list[StoredTensor] = []
    for file in files:
        tensors += found.read(file)
        if len(tensors) > MOST_TENSORS:
            raise ValueError(
                f"{folder}: its files hold more than {MOST_TENSORS} tensors, as no model does; fetch it again."
            )
    return sorted(tensors, key=lambda one: (one.file, one.offset))


def require_weights(folder: Path) -> None:
    """Check that a checkpoint's files of weights are there, without opening any.

    Args:
        folder: as `stored_tensors` reads it.

    Raises:
        FileNotFoundError: no weights, or a file that the index names is missing.
        ValueError: the index is damaged, or a folder stands in a file's place.
    """
    _files_there(folder)


def _files_there(folder: Path) -> tuple[WeightFormat, list[Path]]:
    found, files = _format_and_files(folder)
    for file in files:
        if file.exists() and not file.is_file():
            raise ValueError(
                f"{file}: {_kind(file)} stands where a file with weights was expected; fetch it again.{explain(folder)}"
            )
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        others = f" and {len(missing) - _MOST_NAMED} others" if len(missing) > _MOST_NAMED else ""
        raise FileNotFoundError(
            f"{folder}: no {', '.join(map(brief, missing[:_MOST_NAMED]))}{others}; `model_name_or_path` must name a "
            f"whole checkpoint.{explain(folder)}"
        )
    return found, files


# The first that is there is read: safetensors are the only ones without a pickle.
WEIGHT_FORMATS = (
    WeightFormat(WEIGHTS_FILE, INDEX_FILE, read_safetensors_file),
    WeightFormat("pytorch_model.bin", "pytorch_model.bin.index.json", read_torch_file),
    WeightFormat("model_state.pdparams", "model_state.pdparams.index.json", read_paddle_file),
)


def _format_and_files(folder: Path) -> tuple[WeightFormat, list[Path]]:
    for one in WEIGHT_FORMATS:
        # As transformers, which reads the one file where a folder has shards of another time as well.
        if (folder / one.index).exists() and not (folder / one.file).exists():
            return one, shards_of(folder / one.index)
        if (folder / one.file).exists():
            return one, [folder / one.file]
    return WEIGHT_FORMATS[0], [folder / WEIGHTS_FILE]


def _kind(path: Path) -> str:
    return "a folder" if path.is_dir() else "a pipe or a device"


def shards_of(index: Path) -> list[Path]:
    """List the files that an index names.

    Args:
        index: the file.

    Returns:
        The files, sorted; they need not be there.

    Raises:
        ValueError: it is damaged, or names a file outside of its folder.
    """
    content = read_bounded(index, _INDEX)
    is_wide = len(content) > _MOST_WIDE and (b"\\u" in content or not content.isascii())
    if is_wide or len(content) < _SHORTEST_PAIR * (content.count(b",") - _FREE_PAIRS):
        raise ValueError(f"{index}: no index of a model's files, but of other letters or denser; fetch it again.")
    values = parse_json_object(content, index, _INDEX)
    try:
        names = set(values["weight_map"].values())
        outside = [name for name in islice(names, _MOST_FILES) if not _is_inside(name)]
    except (LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{index}: damaged, no `weight_map` can be read from it; fetch it again.") from error
    if len(names) > _MOST_FILES:
        raise ValueError(f"{index}: names {len(names)} files, more than any model has; fetch it again.")
    if outside:
        named = repr(brief(min(outside)))
        raise ValueError(f"{index}: names {named}, which is no file of this folder. Fetch it from its source.")
    return [index.with_name(name) for name in sorted(names)]


def _is_inside(name: str) -> bool:
    is_plain = Path(name).name == name and name not in ("", "..")
    return is_plain and name.isprintable() and len(os.fsencode(name)) <= _LONGEST_FILE_NAME
