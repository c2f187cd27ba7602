"""Adding an adapter's products to its base's weights, tensor by tensor, without building the model."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from paddlemix.files import write_json
from paddlemix.names import CONFIG_FILE, GENERATION_FILE
from paddlemix.peft.merging.adapted import AdaptedWeights
from paddlemix.weights.published import write_sharded
from paddlemix.weights.safetensors_writer import Entry
from paddlemix.weights.stored_tensor import StoredTensor

# Files of a base that hold weights, or are of no use beside others.
_WEIGHTS = ("*.safetensors", "*.bin", "*.pdparams", "*.pt", "*.pth", "*.h5", "*.msgpack", "*.gguf", "*.index.json")
# Files that say which tokens there are.
_TOKENIZERS = ("tokenizer*", "added_tokens.json", "vocab.json", "*.tiktoken")
# What an adapter's folder may say otherwise than its base does.
_SETTINGS = (
    GENERATION_FILE, "preprocessor_config.json", "video_preprocessor_config.json", "processor_config.json",
    "chat_template.*", "special_tokens_map.json", "merges.txt", *_TOKENIZERS,
)  # fmt: skip

# Of two forms of the same settings, the one that counts where a folder has both.
_COUNTS_BEFORE = {"preprocessor_config.json": "processor_config.json", "chat_template.json": "chat_template.jinja"}

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Merge:
    """A base and an adapter that fits it.

    Attributes:
        weights: the base's as the adapter changes them.
        dtype: what is stored; None stores what the base does.
    """

    weights: AdaptedWeights
    dtype: str | None = None

    @property
    def bytes(self) -> int:
        """The size of the merged weights."""
        return sum(self._entry(name).bytes for name in self.weights.tensors)

    def write_weights(self, folder: Path, written: Callable[[int], object] = lambda _: None) -> None:
        """Write the merged weights, cut into files as the base's are.

        Args:
            folder: must exist.
            written: told the bytes of each tensor once they are written.
        """
        shards: dict[Path, list[str]] = {}
        for name, source in self.weights.tensors.items():
            shards.setdefault(source.file, []).append(name)
        write_sharded(folder, [[self._entry(name) for name in parameters] for parameters in shards.values()], written)

    def write_side_files(self, folder: Path) -> None:
        """Copy all of the base but its weights, and what the adapter's folder says otherwise; config.json tells of the
        merged model: its stored dtype, its vocabulary, and whether its head is a weight of its own."""
        settings = settings_files(self.weights.adapter.folder)
        outdated = _outdated({file.name for file in settings})
        for file in (*(one for one in _side_files(self.weights.base) if one.name not in outdated), *settings):
            shutil.copyfile(file, folder / file.name)
        config = self.weights.config
        if self.weights.vocabulary_changes and not any(_is_of_tokenizer(file) for file in settings):
            logger.warning(
                "%s holds an embedding of %d tokens, but has no tokenizer for them: the merged model has the base's. "
                "Put the files of the tokenizer that it was trained with into the merged folder.",
                self.weights.adapter.folder,
                self.weights.tying.rows,
            )
        if self.dtype is not None:
            config[_dtype_key(config)] = self.dtype
        if config != self.weights.values:
            write_json(folder / CONFIG_FILE, config)

    def _entry(self, name: str) -> Entry:
        source = self.weights.tensors[name]
        shape, dtype = self.weights.shape(name), self.dtype or source.dtype
        name_in_file = self.weights.name_in_file(name) if isinstance(source, StoredTensor) else source.name
        return Entry(name_in_file, dtype, shape, lambda: self.weights.numbers(name, dtype))


def _is_of_tokenizer(file: Path) -> bool:
    return any(fnmatch(file.name, pattern) for pattern in _TOKENIZERS)


def _dtype_key(config: Mapping[str, Any]) -> str:
    """Name the key as the config's writer calls it."""
    return "dtype" if "dtype" in config else "torch_dtype"


def _side_files(base: Path) -> list[Path]:
    return [
        file
        for file in sorted(base.iterdir())
        if file.is_file() and not file.name.startswith(".") and not any(fnmatch(file.name, one) for one in _WEIGHTS)
    ]


def _outdated(names: Collection[str]) -> set[str]:
    """Name what would count in place of an adapter's files of these names, if the base's were beside them."""
    return {newer for older, newer in _COUNTS_BEFORE.items() if older in names and newer not in names}


def settings_files(folder: Path) -> list[Path]:
    """List the files of tokenizer, processor and generation in a folder."""
    return sorted(file for pattern in _SETTINGS for file in folder.glob(pattern) if file.is_file())
