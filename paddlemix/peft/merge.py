"""Adding an adapter's products to its base's weights, tensor by tensor, without building the model."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from paddlemix.files import write_json
from paddlemix.models.config_file import dtype_key
from paddlemix.names import CONFIG_FILE
from paddlemix.peft.merging.adapted import AdaptedWeights
from paddlemix.peft.merging.side_files import write_side_files
from paddlemix.side_files import has_tokenizer
from paddlemix.weights.published import write_sharded
from paddlemix.weights.safetensors_writer import Entry
from paddlemix.weights.stored_tensor import StoredTensor

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
        write_side_files(folder, self.weights.base, self.weights.adapter.folder)
        config = self.weights.config
        if self.weights.vocabulary_changes and not has_tokenizer(self.weights.adapter.folder):
            logger.warning(
                "%s holds an embedding of %d tokens, but has no tokenizer for them: the merged model has the base's. "
                "Put the files of the tokenizer that it was trained with into the merged folder.",
                self.weights.adapter.folder,
                self.weights.tying.rows,
            )
        if self.dtype is not None:
            config[dtype_key(config)] = self.dtype
        if config != self.weights.values:
            write_json(folder / CONFIG_FILE, config)

    def _entry(self, name: str) -> Entry:
        source = self.weights.tensors[name]
        shape, dtype = self.weights.shape(name), self.dtype or source.dtype
        name_in_file = self.weights.name_in_file(name) if isinstance(source, StoredTensor) else source.name
        return Entry(name_in_file, dtype, shape, lambda: self.weights.numbers(name, dtype))
