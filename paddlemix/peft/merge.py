"""Adding an adapter's products to its base's weights, tensor by tensor, without building the model."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path

import numpy as np
import paddle

from paddlemix.files import write_json
from paddlemix.models.config_file import read_config, vocab_size_of, with_vocab_size
from paddlemix.names import CONFIG_FILE, GENERATION_FILE
from paddlemix.peft.adapter import Adapter
from paddlemix.peft.targets import HEAD_WEIGHT
from paddlemix.weights.files import stored_tensors
from paddlemix.weights.layout import WeightLayout
from paddlemix.weights.published import published_numbers, published_shape, read_whole, write_sharded
from paddlemix.weights.safetensors_writer import Entry
from paddlemix.weights.stored_tensor import StoredTensor

# Files of a base that hold weights, or are of no use beside others.
_WEIGHTS = ("*.safetensors", "*.bin", "*.pdparams", "*.pt", "*.pth", "*.h5", "*.msgpack", "*.gguf", "*.index.json")
# What an adapter's folder may say otherwise than its base does.
_SETTINGS = (
    GENERATION_FILE, "preprocessor_config.json", "video_preprocessor_config.json", "processor_config.json",
    "chat_template.*", "tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt",
    "*.tiktoken",
)  # fmt: skip


@dataclass(frozen=True)
class Merge:
    """A base and an adapter that fits it.

    Attributes:
        base: the base's folder.
        adapter: the adapter.
        layout: the family's.
        tensors: the base's, by the parameter that each is for.
        dtype: what is stored; None stores what the base does.
    """

    base: Path
    adapter: Adapter
    layout: WeightLayout
    tensors: Mapping[str, StoredTensor]
    dtype: str | None = None

    @classmethod
    def of(cls, base: Path, adapter: Adapter, layout: WeightLayout, dtype: str | None = None) -> Merge:
        """Look into the files of both; no numbers are read.

        Args:
            base: the base's folder.
            adapter: the adapter.
            layout: the family's.
            dtype: "float32", "float16" or "bfloat16" to store; None stores what the base does.

        Returns:
            What is to be merged.

        Raises:
            FileNotFoundError: the base has no weights, or a shard is missing.
            ValueError: a file is damaged, or the adapter is one of another base.
        """
        tensors = {layout.name_here(stored.name): stored for stored in stored_tensors(base)}
        found = cls(base, adapter, layout, tensors, dtype)
        if problems := list(found._misfits()):
            raise adapter.refusal(base, problems)
        return found

    @property
    def bytes(self) -> int:
        """The size of the merged weights."""
        return sum(self._entry(name).bytes for name in self.tensors)

    def write_weights(self, folder: Path, written: Callable[[int], object] = lambda _: None) -> None:
        """Write the merged weights, cut into files as the base's are.

        Args:
            folder: must exist.
            written: told the bytes of each tensor once they are written.
        """
        shards: dict[Path, list[str]] = {}
        for name, stored in self.tensors.items():
            shards.setdefault(stored.file, []).append(name)
        write_sharded(folder, [[self._entry(name) for name in parameters] for parameters in shards.values()], written)

    def write_side_files(self, folder: Path) -> None:
        """Copy all of the base but its weights, and what the adapter's folder says otherwise; config.json names the
        stored dtype, and the number of tokens."""
        for file in (*_side_files(self.base), *settings_files(self.adapter.folder)):
            shutil.copyfile(file, folder / file.name)
        config = changed = read_config(self.base)
        if self.dtype is not None:
            key = "dtype" if "dtype" in config else "torch_dtype"  # as later writers call it
            changed = {**changed, key: self.dtype}
        if rows := max((self._shape(name)[0] for name in self._longer), default=0):
            changed = with_vocab_size(changed, rows)
        if changed != config:
            write_json(folder / CONFIG_FILE, changed)

    @cached_property
    def _longer(self) -> list[str]:
        """The embedding, and the head beside it, where the adapter has added tokens to the base's."""
        shapes = {
            name: (self._base_shape(name), self.adapter.tensors[name].shape)
            for name in self.adapter.whole
            if name in self.tensors
        }
        longer = {name: base[0] for name, (base, own) in shapes.items() if own[0] > base[0] and own[1:] == base[1:]}
        rows = vocab_size_of(read_config(self.base)) if longer else None
        return [name for name, before in longer.items() if before == rows]

    def _misfits(self) -> Iterator[str]:
        for layer in self.adapter.layers:
            stored, (down, up) = self.tensors.get(f"{layer}.weight"), self._factors(layer)
            wanted = (up.shape[0], down.shape[1])
            if stored is None:
                yield f"{down.name}, for which the base has no weight"
            elif self._shape(f"{layer}.weight") != wanted:
                yield f"{down.name} and lora_B for {list(wanted)}, where the base has {list(stored.shape)}"
        for name in self.adapter.whole:
            if name not in self.tensors and name not in self.layout.optional:
                yield f"{name}, which the base does not have"
            elif name in self.tensors and self._shape(name) != self.adapter.tensors[name].shape:
                yield f"{name} of {list(self.adapter.tensors[name].shape)}, {list(self._shape(name))} in the base"
        if self._longer and HEAD_WEIGHT in self.tensors and HEAD_WEIGHT not in self._longer:
            yield f"{self._longer[0]}, which has rows for more tokens than the base's {HEAD_WEIGHT}"

    def _factors(self, layer: str) -> tuple[StoredTensor, StoredTensor]:
        return self.adapter.tensors[f"{layer}.lora_A"], self.adapter.tensors[f"{layer}.lora_B"]

    def _entry(self, name: str) -> Entry:
        stored = self.tensors[name]
        # Paddle's files may name layers as PaddleMIX does, which PyTorch's programs do not know.
        name_there = name if stored.in_paddles_order else stored.name
        return Entry(name_there, self.dtype or stored.dtype, self._shape(name), lambda: self._numbers(name))

    def _shape(self, name: str) -> tuple[int, ...]:
        """Read the merged weight's shape in PyTorch's order."""
        return self.adapter.tensors[name].shape if name in self._longer else self._base_shape(name)

    def _base_shape(self, name: str) -> tuple[int, ...]:
        """Read the base's shape in PyTorch's order."""
        return published_shape(name, self.tensors[name], self.layout)

    def _numbers(self, name: str) -> np.ndarray:
        """Compute the merged weight in PyTorch's order."""
        layer = name.removesuffix(".weight")
        if name in self.adapter.tensors:
            return read_whole(self.adapter.tensors[name], self.dtype or self.tensors[name].dtype)
        is_adapted = f"{layer}.lora_A" in self.adapter.tensors
        stored = self.tensors[name]
        dtype = "float32" if is_adapted else self.dtype or stored.dtype
        numbers = published_numbers(name, stored, self.layout, dtype)
        return self._with_product(numbers, layer) if is_adapted else numbers

    def _with_product(self, weight: np.ndarray, layer: str) -> np.ndarray:
        down, up = (paddle.to_tensor(read_whole(stored, "float32")) for stored in self._factors(layer))
        scaling = self.adapter.config.scaling
        # In float32, and rounded once, when it is stored.
        return paddle.addmm(paddle.to_tensor(weight), up, down, alpha=scaling).numpy()


def _side_files(base: Path) -> list[Path]:
    return [
        file
        for file in sorted(base.iterdir())
        if file.is_file() and not file.name.startswith(".") and not any(fnmatch(file.name, one) for one in _WEIGHTS)
    ]


def settings_files(folder: Path) -> list[Path]:
    """List the files of tokenizer, processor and generation in a folder."""
    return sorted(file for pattern in _SETTINGS for file in folder.glob(pattern) if file.is_file())
