"""Writing a safetensors file tensor by tensor, so that no more than one of them is in memory.

Source: the format, https://github.com/huggingface/safetensors#format: the header's length, the header, the numbers.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from paddlemix.weights.dtypes import SAFETENSORS_CODES, STORED_DTYPES


@dataclass(frozen=True)
class Entry:
    """A tensor of the file.

    Attributes:
        name: in the file.
        dtype: a key of `STORED_DTYPES`.
        shape: in the file.
        numbers: gives them, [shape] of any dtype, when their turn has come.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    numbers: Callable[[], np.ndarray]

    @property
    def bytes(self) -> int:
        """Its size in the file."""
        return math.prod(self.shape) * STORED_DTYPES[self.dtype].itemsize


def write_safetensors(
    path: Path,
    entries: Sequence[Entry],
    written: Callable[[int], object] = lambda _: None,
    *,
    texts: Mapping[str, str] | None = None,
) -> None:
    """Write a file in PyTorch's shapes.

    Args:
        path: the file; a folder of it must exist.
        entries: its tensors.
        written: called with the bytes of each tensor once they are written.
        texts: what the file says beside its tensors; the library writes several of them in an order of chance.
    """
    # The widest first keeps every tensor's beginning a multiple of its numbers' width.
    entries = sorted(entries, key=lambda entry: -STORED_DTYPES[entry.dtype].itemsize)
    with open(path, "wb") as file:
        file.write(_header(entries, texts or {}))
        for entry in entries:
            numbers = np.ascontiguousarray(entry.numbers(), dtype=STORED_DTYPES[entry.dtype])
            assert numbers.shape == entry.shape, (entry.name, numbers.shape, entry.shape)
            file.write(numbers.reshape(-1).view(np.uint8).data)
            written(entry.bytes)
        file.flush()
        os.fsync(file.fileno())


def _header(entries: Sequence[Entry], texts: Mapping[str, str]) -> bytes:
    header: dict[str, object] = {"__metadata__": {"format": "pt", **texts}}
    start = 0
    for entry in entries:
        place = [start, start + entry.bytes]
        header[entry.name] = {
            "dtype": SAFETENSORS_CODES[entry.dtype],
            "shape": list(entry.shape),
            "data_offsets": place,
        }
        start += entry.bytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
