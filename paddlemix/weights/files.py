"""The files of a checkpoint's folder that hold weights, and the tensors in them; numbers are not read here."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from paddlemix.bounded_json import INDEX, shown
from paddlemix.files import read_json_object
from paddlemix.foreign.explain import explain, refuse_pointer
from paddlemix.weights.dtypes import SAFETENSORS_CODES
from paddlemix.weights.paddle_file import read_paddle_file
from paddlemix.weights.stored_tensor import StoredTensor
from paddlemix.weights.torch_file import read_torch_file

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
_DTYPES = {code: dtype for dtype, code in SAFETENSORS_CODES.items()}
# Who writes these words as the file's `format` keeps a linear layer's weight as [in, out]: Paddle, and PaddleNLP and
# PaddleFormers ("np"). They save bfloat16, of which numpy has none, as the unsigned integers of the same bits.
_PADDLES_FORMATS = ("pd", "np")
_PADDLES_DTYPES = {**_DTYPES, "U16": "bfloat16"}


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
    return sorted((tensor for file in files for tensor in found.read(file)), key=lambda one: (one.file, one.offset))


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
        if file.is_dir():
            raise ValueError(
                f"{file}: a folder stands where a file with weights was expected; fetch it again.{explain(folder)}"
            )
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise FileNotFoundError(
            f"{folder}: no {', '.join(missing)}; `model_name_or_path` must name a whole checkpoint.{explain(folder)}"
        )
    return found, files


def read_safetensors_file(file: Path) -> list[StoredTensor]:
    """List the tensors of a safetensors file.

    Args:
        file: such as model.safetensors.

    Returns:
        Where the tensors lie.

    Raises:
        ValueError: it is damaged.
    """
    refuse_pointer(file)
    try:
        # Checks the header: its size, and that the tensors fill the file without gap or overlap.
        with safe_open(file, framework="np") as opened:
            in_paddles_order = (opened.metadata() or {}).get("format") in _PADDLES_FORMATS
    except SafetensorError as error:
        raise ValueError(f"{file}: damaged or cut off, fetch it again ({error}).") from error
    with open(file, "rb") as raw:
        header_length = int.from_bytes(raw.read(8), "little")
        header = json.loads(raw.read(header_length))
    header.pop("__metadata__", None)
    dtypes = _PADDLES_DTYPES if in_paddles_order else _DTYPES
    return [
        StoredTensor(
            name,
            file,
            8 + header_length + entry["data_offsets"][0],
            tuple(entry["shape"]),
            dtypes.get(entry["dtype"], entry["dtype"]),
            in_paddles_order,
        )
        for name, entry in header.items()
    ]


# The first that is there is read: safetensors are the only ones without a pickle.
WEIGHT_FORMATS = (
    WeightFormat(WEIGHTS_FILE, INDEX_FILE, read_safetensors_file),
    WeightFormat("pytorch_model.bin", "pytorch_model.bin.index.json", read_torch_file),
    WeightFormat("model_state.pdparams", "model_state.pdparams.index.json", read_paddle_file),
)


def _format_and_files(folder: Path) -> tuple[WeightFormat, list[Path]]:
    for one in WEIGHT_FORMATS:
        if (folder / one.index).is_file():
            return one, _shards(folder / one.index)
        if (folder / one.file).exists():
            return one, [folder / one.file]
    return WEIGHT_FORMATS[0], [folder / WEIGHTS_FILE]


def _shards(index: Path) -> list[Path]:
    refuse_pointer(index)
    values = read_json_object(index, limits=INDEX)
    try:
        names = sorted(set(values["weight_map"].values()))
        outside = [
            name
            for name in names
            if Path(name).name != name or name in ("", "..") or "\0" in name or len(name.encode()) > 255
        ]
    except (LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{index}: damaged, no `weight_map` can be read from it; fetch it again.") from error
    if outside:
        raise ValueError(
            f"{index}: names {shown(outside[0])}, which is no file of this folder. Fetch it from its source."
        )
    return [index.with_name(name) for name in names]
