"""The files in which PaddleNLP keeps the weights of a model or an adapter, whole or in parts.

Each is called `<stem>[.<variant>][-<number>-of-<count>].<suffix>`; the variant says which rank it is of: `tp01_pp00` is
the second of those that share every layer, and the first of those that have layers of their own.

Sources: PaddleNLP 3.0, `transformers/model_utils.py` (`_add_variant`, `shard_checkpoint`), `transformers/utils.py`
(`weight_name_suffix`) and `trainer/unified_checkpoint`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from paddlemix.foreign.explain import explain
from paddlemix.weights.paddle_file import read_paddle_file
from paddlemix.weights.safetensors_file import read_safetensors_file
from paddlemix.weights.stored_tensor import StoredTensor
from paddlemix.weights.torch_file import read_torch_file

Order = Literal["paddle", "torch"]
# Of ranks there are thousands at most.
_REST = r"(?:\.(?P<variant>[a-z]+\d{1,4}(?:_[a-z]+\d{1,4})*))?(?:-(?P<number>\d{5})-of-(?P<count>\d{5}))?"
_MOST_NAMED = 5


@dataclass(frozen=True)
class Stem:
    """A way in which the files are called.

    Attributes:
        name: how they begin.
        suffix: how they end.
        read: lists the tensors of one.
        is_paddles: whether the name alone says that matrices lie as Paddle keeps them.
    """

    name: str
    suffix: str
    read: Callable[[Path], list[StoredTensor]]
    is_paddles: bool = False

    def match(self, file: Path) -> re.Match[str] | None:
        """Take a file's name apart, if it is one of these."""
        return re.fullmatch(re.escape(self.name) + _REST + re.escape(f".{self.suffix}"), file.name)


# Of each the first that is there is read: what models are loaded from, then the copies that only training needs.
MODEL_STEMS = (
    Stem("model", "safetensors", read_safetensors_file),
    Stem("pytorch_model", "bin", read_torch_file),
    Stem("model_state", "pdparams", read_paddle_file),
    Stem("master_weights", "safetensors", read_safetensors_file, is_paddles=True),
    Stem("master_weights", "pdparams", read_paddle_file),
)
ADAPTER_STEMS = (
    Stem("peft_model", "safetensors", read_safetensors_file, is_paddles=True),
    Stem("lora_model_state", "safetensors", read_safetensors_file, is_paddles=True),
    Stem("lora_model_state", "pdparams", read_paddle_file),
    Stem("peft_model", "pdparams", read_paddle_file),
)


@dataclass(frozen=True)
class Part:
    """A file of several.

    Attributes:
        file: the file.
        rank: of those that share every layer.
        variant: which ranks it is of, "" where it is of all.
        number: which of its variant's files it is, from 1 on.
        count: how many those are.
    """

    file: Path
    rank: int
    variant: str
    number: int
    count: int

    @classmethod
    def of(cls, file: Path, found: re.Match[str]) -> Part:
        """Read what a file's name says."""
        variant = found["variant"] or ""
        rank = re.search(r"tp(\d+)", variant)
        return cls(file, int(rank[1]) if rank else 0, variant, int(found["number"] or 1), int(found["count"] or 1))


def has_parts(folder: Path, stems: Iterable[Stem]) -> bool:
    """Tell whether files of these names lie in a folder."""
    return any(stem.match(file) for stem in stems for file in folder.iterdir())


def read_parts(folder: Path, stems: Sequence[Stem], order: Order | None = None) -> list[dict[str, StoredTensor]]:
    """List the tensors of every rank that shares layers with others.

    Args:
        folder: of the checkpoint.
        stems: how its files may be called; the first that fits any file counts.
        order: in which matrices lie, where the files' own word on it is wrong.

    Returns:
        Their tensors by name, a dict a rank.

    Raises:
        FileNotFoundError: there are no such files, or one of several is missing.
        ValueError: a file is damaged, or holds more than tensors.
    """
    for stem in stems:
        named = [(file, stem.match(file)) for file in sorted(folder.iterdir()) if file.is_file()]
        parts = [Part.of(file, match) for file, match in named if match]
        if parts:
            _check_whole(folder, parts)
            return [_tensors(stem, [part for part in parts if part.rank == rank], order) for rank in _ranks(parts)]
    expected = ", ".join(f"{stem.name}*.{stem.suffix}" for stem in stems)
    raise FileNotFoundError(f"{folder}: none of {expected}; expected weights that can be converted.{explain(folder)}")


def _ranks(parts: Iterable[Part]) -> list[int]:
    return sorted({part.rank for part in parts})


def _check_whole(folder: Path, parts: Sequence[Part]) -> None:
    missing = [f"a file of rank tp{rank:02d}" for rank in range(_ranks(parts)[-1]) if rank not in _ranks(parts)]
    for variant, count in sorted({(part.variant, part.count) for part in parts}):
        there = {part.number for part in parts if (part.variant, part.count) == (variant, count)}
        lacking = sorted(set(range(1, count + 1)) - there)
        missing += [f"{'.'.join(filter(None, ('part', variant)))} {number} of {count}" for number in lacking]
    if missing:
        others = f" and {len(missing) - _MOST_NAMED} others" if len(missing) > _MOST_NAMED else ""
        raise FileNotFoundError(
            f"{folder}: {', '.join(missing[:_MOST_NAMED])}{others} is missing beside {parts[0].file.name}. Give a "
            "folder with all parts."
        )


def _tensors(stem: Stem, parts: Iterable[Part], order: Order | None) -> dict[str, StoredTensor]:
    """Read a rank's files. What is in two of them, such as an embedding in the first and last stage, is the same."""
    tensors: dict[str, StoredTensor] = {}
    for part in parts:
        for stored in stem.read(part.file):
            is_paddles = order == "paddle" if order else stored.in_paddles_order or stem.is_paddles
            tensors.setdefault(stored.name, replace(stored, in_paddles_order=is_paddles))
    return tensors
