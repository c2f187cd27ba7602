"""Adding an adapter's products to its base's weights, tensor by tensor, without building the model."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import paddle

from paddlemix.files import write_json
from paddlemix.models.config_file import read_config
from paddlemix.names import CONFIG_FILE, GENERATION_FILE
from paddlemix.peft.adapter import Adapter
from paddlemix.weights.dtypes import STORED_DTYPES
from paddlemix.weights.files import INDEX_FILE, stored_tensors
from paddlemix.weights.layout import WeightLayout
from paddlemix.weights.safetensors_writer import Entry, write_safetensors
from paddlemix.weights.saving import file_names
from paddlemix.weights.stored_tensor import StoredTensor

# Files of a base that hold weights, or are of no use beside others.
_WEIGHTS = ("*.safetensors", "*.bin", "*.pdparams", "*.pt", "*.pth", "*.h5", "*.msgpack", "*.gguf", "*.index.json")
# What an adapter's folder may say otherwise than its base does.
_SETTINGS = (
    GENERATION_FILE, "preprocessor_config.json", "video_preprocessor_config.json", "processor_config.json",
    "chat_template.*", "tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt",
    "*.tiktoken",
)  # fmt: skip

# Of two forms of the same settings, the one that counts where a folder has both.
_COUNTS_BEFORE = {"preprocessor_config.json": "processor_config.json", "chat_template.json": "chat_template.jinja"}


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
        names = file_names(len(shards))
        for file, parameters in zip(names, shards.values(), strict=True):
            write_safetensors(folder / file, [self._entry(name) for name in parameters], written)
        if len(shards) > 1:
            weight_map = {
                self.tensors[name].name: file
                for file, parameters in zip(names, shards.values(), strict=True)
                for name in parameters
            }
            write_json(folder / INDEX_FILE, {"metadata": {"total_size": self.bytes}, "weight_map": weight_map})

    def write_side_files(self, folder: Path) -> None:
        """Copy all of the base but its weights, and what the adapter's folder says otherwise; config.json names the
        stored dtype."""
        settings = _settings(self.adapter.folder)
        outdated = _outdated({file.name for file in settings})
        for file in (*(one for one in _side_files(self.base) if one.name not in outdated), *settings):
            shutil.copyfile(file, folder / file.name)
        if self.dtype is not None:
            config = read_config(self.base)
            key = "dtype" if "dtype" in config else "torch_dtype"  # as later writers call it
            write_json(folder / CONFIG_FILE, {**config, key: self.dtype})

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

    def _factors(self, layer: str) -> tuple[StoredTensor, StoredTensor]:
        return self.adapter.tensors[f"{layer}.lora_A"], self.adapter.tensors[f"{layer}.lora_B"]

    def _entry(self, name: str) -> Entry:
        stored = self.tensors[name]
        return Entry(stored.name, self.dtype or stored.dtype, self._shape(name), lambda: self._numbers(name))

    def _shape(self, name: str) -> tuple[int, ...]:
        """Read the weight's shape in PyTorch's order."""
        stored = self.tensors[name]
        if not stored.in_paddles_order or len(stored.shape) > 2:
            return stored.shape
        return tuple(self.layout.stored_shape(name, list(stored.shape)))

    def _numbers(self, name: str) -> np.ndarray:
        """Compute the merged weight in PyTorch's order."""
        layer = name.removesuffix(".weight")
        if name in self.adapter.tensors:
            return _read(self.adapter.tensors[name], self.dtype or self.tensors[name].dtype)
        is_adapted = f"{layer}.lora_A" in self.adapter.tensors
        stored = self.tensors[name]
        numbers = _read(stored, "float32" if is_adapted else self.dtype or stored.dtype)
        if stored.in_paddles_order and len(stored.shape) == 2 and self._is_turned(name):
            numbers = numbers.T
        numbers = numbers.reshape(self._shape(name))
        return self._with_product(numbers, layer) if is_adapted else numbers

    def _is_turned(self, name: str) -> bool:
        return name in self.layout.convolution_kernels or self.layout.is_transposed(name, 2)

    def _with_product(self, weight: np.ndarray, layer: str) -> np.ndarray:
        down, up = (paddle.to_tensor(_read(stored, "float32")) for stored in self._factors(layer))
        scaling = self.adapter.config.scaling
        # In float32, and rounded once, when it is stored.
        return paddle.addmm(paddle.to_tensor(weight), up, down, alpha=scaling).numpy()


def _read(stored: StoredTensor, dtype: str) -> np.ndarray:
    numbers = np.empty(stored.matrix_shape, STORED_DTYPES[dtype])
    stored.read_into(numbers)
    return numbers.reshape(stored.shape)


def _side_files(base: Path) -> list[Path]:
    return [
        file
        for file in sorted(base.iterdir())
        if file.is_file() and not file.name.startswith(".") and not any(fnmatch(file.name, one) for one in _WEIGHTS)
    ]


def _outdated(names: Collection[str]) -> set[str]:
    """Name what would count in place of an adapter's files of these names, if the base's were beside them."""
    return {newer for older, newer in _COUNTS_BEFORE.items() if older in names and newer not in names}


def _settings(adapter: Path) -> list[Path]:
    return sorted(file for pattern in _SETTINGS for file in adapter.glob(pattern) if file.is_file())
