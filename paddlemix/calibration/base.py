"""A checkpoint that is to be quantised: which of its layers are, and the files of the quantised one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from os.path import commonprefix
from pathlib import Path
from typing import Any

import numpy as np

from paddlemix.conversion.model import empty_model
from paddlemix.files import write_json
from paddlemix.models.base import MixPretrainedModel
from paddlemix.models.config_file import dtype_key, read_config
from paddlemix.models.layers.linear import Linear
from paddlemix.models.quantized import layers_to_round
from paddlemix.names import CONFIG_FILE
from paddlemix.quantization.blocks import Blocks
from paddlemix.quantization.calibrated.grid import rounded_alone
from paddlemix.quantization.calibrated.recipe import Modules, Recipe
from paddlemix.quantization.scheme import KEY, quantization_of
from paddlemix.quantization.stored import taken_apart
from paddlemix.side_files import copy_side_files
from paddlemix.weights.files import stored_tensors
from paddlemix.weights.layout import WeightLayout, checkpoint_tensors
from paddlemix.weights.loading import match
from paddlemix.weights.published import published_name, published_numbers, published_shape, write_sharded
from paddlemix.weights.safetensors_writer import Entry
from paddlemix.weights.stored_tensor import Source

_WEIGHT, _HEAD = ".weight", "lm_head"

Parts = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Base:
    """A checkpoint of plain weights that was looked into.

    Attributes:
        folder: the checkpoint's.
        values: of its config.json.
        layout: the family's.
        tensors: what each parameter is read from.
        layers: the linear layers that are quantised, by name.
        modules: which modules other programs replace, and which they leave.
        rows: of the embedding.
        recipe: how weights are quantised.
    """

    folder: Path
    values: Mapping[str, Any]
    layout: WeightLayout
    tensors: Mapping[str, Source]
    layers: tuple[str, ...]
    modules: Modules
    rows: int
    recipe: Recipe

    @classmethod
    def of(cls, folder: Path, recipe: Recipe) -> Base:
        """Look into a checkpoint; no numbers are read.

        Args:
            folder: the checkpoint's.
            recipe: how weights are to be quantised.

        Returns:
            The checkpoint.

        Raises:
            FileNotFoundError: no config.json or no weights.
            ValueError: the weights are quantised already, a file is damaged, or the recipe does not fit a layer.
        """
        values = read_config(folder)
        if quantization_of(values):
            raise ValueError(
                f"{folder}: the weights are quantised already, as `{KEY}` of its config.json says. Give the model that "
                "they were made from."
            )
        model = empty_model(folder)
        layout = model.weight_layout(model.config)
        tensors = match(checkpoint_tensors(model), stored_tensors(folder), layout, folder)
        linear = {name: layer for name, layer in model.named_sublayers() if type(layer) is Linear}
        chosen = layers_to_round(model, linear, layout, with_vision=False)
        layers = tuple(name for name in linear if name in chosen)
        recipe.check_layers({name: linear[name].sizes for name in layers})
        return cls(
            folder, values, layout, tensors, layers, _modules(model, layers, layout), model.config.vocab_size, recipe
        )

    def rounded(self, layer: str) -> Blocks:
        """Read a layer's weight, and round each of its numbers to the nearest.

        Args:
            layer: its name.

        Returns:
            The codes.

        Raises:
            ValueError: it holds numbers that have no code.
        """
        name = layer + _WEIGHT
        weight = published_numbers(name, self.tensors[name], self.layout, "float32")
        recipe = self.recipe
        try:
            return rounded_alone(weight, recipe.bits, recipe.group_of(weight.shape[1]), symmetric=recipe.symmetric)
        except ValueError as error:
            raise ValueError(f"{layer}: {error}") from error

    def parts(self, layer: str, blocks: Blocks) -> dict[str, np.ndarray]:
        """Make the tensors that the files hold of a quantised layer, by their names there."""
        name = layer + _WEIGHT
        in_file = published_name(name, self.tensors[name]).removesuffix(_WEIGHT)
        return taken_apart(in_file, blocks, self.recipe.scheme)

    def bytes(self, quantized: Mapping[str, Parts], dtype: str | None) -> int:
        """Tell how large the weights of the quantised checkpoint are; see `write`."""
        return sum(entry.bytes for entries in self._shards(quantized, dtype) for entry in entries)

    def write(
        self,
        folder: Path,
        quantized: Mapping[str, Parts],
        dtype: str | None,
        written: Callable[[int], object] = lambda _: None,
    ) -> None:
        """Write the quantised checkpoint: its weights, cut into files as the base's are, and what stands beside them.

        Args:
            folder: must exist.
            quantized: of each layer what `parts` made.
            dtype: what else is stored; None stores what the base does.
            written: told the bytes of each tensor once they are written.
        """
        write_sharded(folder, self._shards(quantized, dtype), written)
        copy_side_files(folder, self.folder)
        stored = {} if dtype is None else {dtype_key(self.values): dtype}
        write_json(folder / CONFIG_FILE, {**self.values, **stored, KEY: self.recipe.published(self.modules)})

    def _shards(self, quantized: Mapping[str, Parts], dtype: str | None) -> list[list[Entry]]:
        shards: dict[Path, list[Entry]] = {}
        for name, source in self.tensors.items():
            entries = shards.setdefault(source.file, [])
            layer = name.removesuffix(_WEIGHT)
            if name.endswith(_WEIGHT) and layer in quantized:
                entries += [_entry(part, array) for part, array in quantized[layer].items()]
            else:
                entries.append(self._plain(name, source, dtype or source.dtype))
        return list(shards.values())

    def _plain(self, name: str, source: Source, dtype: str) -> Entry:
        shape = published_shape(name, source, self.layout)
        numbers = lambda: published_numbers(name, source, self.layout, dtype)  # noqa: E731
        return Entry(published_name(name, source), dtype, shape, numbers)


def _entry(name: str, array: np.ndarray) -> Entry:
    return Entry(name, str(array.dtype), array.shape, lambda: array)


def _modules(model: MixPretrainedModel, layers: Sequence[str], layout: WeightLayout) -> Modules:
    """Name the modules that other programs are to replace, and those that they are to leave.

    Programs look for a word in a layer's name, at its beginning, or at a part's; and transformers from 4.52 on has
    other names in memory than in files.
    """
    tower = next(name for name, layer in model.named_sublayers() if layer is model.tower)
    left = (tower.rpartition(".")[2], tower, layout.name_in_memory(f"{tower}.").rstrip("."), _HEAD)
    names = [*layers, *map(layout.name_in_memory, layers)]
    beginning = commonprefix(names)  # noqa: RUF071 (letter by letter: "model.la" begins both of their names)
    return Modules(beginning, tuple(dict.fromkeys(left)))
