"""A base's weights as an adapter changes them: what each parameter of the merged model is read from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from paddlemix.models.config_file import make_config, read_config, with_vocab_size
from paddlemix.models.quantized import refuse_quantized_heads, without_empty_biases
from paddlemix.models.registry import Family, find_family
from paddlemix.peft import adapter_names as names
from paddlemix.peft.adapter import Adapter, read_adapter
from paddlemix.peft.merging.formulas import with_adapter, with_up_bias
from paddlemix.peft.merging.misfits import check_fits
from paddlemix.peft.merging.trained_on import TrainedOn, check_base
from paddlemix.peft.merging.tying import Tying
from paddlemix.quantization.scheme import read_scheme, without_quantization
from paddlemix.quantization.stored import joined
from paddlemix.weights.files import stored_tensors
from paddlemix.weights.fit import check_repeated
from paddlemix.weights.layout import WeightLayout, checkpoint_tensors
from paddlemix.weights.loading import without_initial_values
from paddlemix.weights.published import published_name, published_numbers, published_shape, read_whole
from paddlemix.weights.stored_tensor import EVERYTHING, Source, StoredTensor

_WEIGHT, _BIAS = ".weight", ".bias"


@dataclass(frozen=True)
class MadeTensor:
    """A tensor whose numbers are computed once they are asked for; a `Source` in PyTorch's order.

    Attributes:
        name: in a file.
        file: where the base's lies.
        shape: in PyTorch's order.
        dtype: that the base's is stored in.
        numbers: computes them, [shape].
        in_paddles_order: never.
    """

    name: str
    file: Path
    shape: tuple[int, ...]
    dtype: str
    numbers: Callable[[], np.ndarray]
    in_paddles_order: bool = False

    @property
    def matrix_shape(self) -> tuple[int, int]:
        """Rows and columns: the first axis and all others; a vector is one row."""
        rows = self.shape[0] if len(self.shape) > 1 else 1
        return rows, int(np.prod(self.shape)) // max(rows, 1)

    def read_into(self, target: np.ndarray, rows: slice = EVERYTHING, columns: slice = EVERYTHING) -> None:
        """Compute the numbers and copy them, converted to `target`'s dtype; see `StoredTensor.read_into`."""
        target[...] = self.numbers().reshape(self.matrix_shape)[rows, columns]


@dataclass(frozen=True)
class AdaptedWeights:
    """A base and an adapter that fits it.

    Attributes:
        base: the base's folder.
        values: of the base's config.json.
        adapter: the adapter.
        layout: the family's, of the base.
        stored: the base's tensors, by the parameter that each is for; quantised ones as what their codes stand for.
        tying: whether head and embedding go on being one weight, and what each is made of.
    """

    base: Path
    values: Mapping[str, Any]
    adapter: Adapter
    layout: WeightLayout
    stored: Mapping[str, Source]
    tying: Tying

    @classmethod
    def of(cls, base: Path, folder: Path) -> AdaptedWeights:
        """Look into the files of both; of the numbers only those are read that head and embedding may share.

        Args:
            base: the base's folder.
            folder: the adapter's folder.

        Returns:
            What is to be computed.

        Raises:
            FileNotFoundError: the base has no weights, or a file is missing.
            ValueError: a file is damaged, or the adapter is one of another base.
        """
        values, family = read_config(base), find_family(base)
        config: Any = make_config(family.config_class, base, values)
        layout = family.model_class.weight_layout(config)
        adapter = read_adapter(folder, layout)
        sources = joined(stored_tensors(base), scheme := read_scheme(values, base))
        refuse_quantized_heads(sources, layout)
        if scheme is not None:
            sources = without_empty_biases(sources, layout, _parameters(family, config))
        stored = {layout.name_here(one.name): one for one in sources}
        check_repeated(base, stored, layout)
        tying = Tying.of(adapter, layout, config.decoder_shape.names.embedding)
        found = cls(base, values, adapter, layout, stored, tying)
        here = TrainedOn.of_files(stored, config.decoder_shape.names, scheme)
        check_base(folder, adapter.trained_on, here, base)
        check_fits(adapter, base, {name: found._shape(name) for name in stored}, layout, tying)
        return found

    @property
    def config(self) -> dict[str, Any]:
        """What the merged model's config.json says."""
        values = without_quantization(self.values)
        if self.tying.rows is not None and self.vocabulary_changes:
            values = with_vocab_size(values, self.tying.rows)
        if self.tying.unties:
            untied = {"tie_word_embeddings": False}
            nested = values.get("text_config")
            values |= {**untied, "text_config": {**nested, **untied}} if nested else untied
        return values

    @property
    def vocabulary_changes(self) -> bool:
        """Whether the merged model tells more or fewer tokens apart than the base."""
        return self.tying.rows is not None and self.tying.rows != self._shape(self.tying.embedding)[0]

    @property
    def keeps_shape(self) -> bool:
        """Whether the merged model has the base's parameters, of the same shapes."""
        return self.config == without_quantization(self.values)

    @cached_property
    def tensors(self) -> dict[str, Source]:
        """What each parameter of the merged model is read from, in the order of the base's files."""
        return dict(self._tensors())

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of the merged parameter in PyTorch's order."""
        source = self.tensors[name]
        return self._shape(name) if isinstance(source, StoredTensor) else tuple(source.shape)

    def name_in_file(self, name: str) -> str:
        """Name a parameter of the base as published files do."""
        return published_name(name, self.stored[name])

    def numbers(self, name: str, dtype: str) -> np.ndarray:
        """Read or compute the merged parameter in PyTorch's order.

        Args:
            name: of the parameter.
            dtype: of the numbers; those that are computed are float32.

        Returns:
            The numbers, [shape].
        """
        source = self.tensors[name]
        if isinstance(source, MadeTensor):
            return source.numbers()
        return published_numbers(name, self.stored[name], self.layout, dtype)

    def _tensors(self) -> Iterator[tuple[str, Source]]:
        embedding, head = self.tying.embedding, self.tying.head
        for name, stored in self.stored.items():
            if name != head or not self.tying.is_tied:
                yield name, self._changed(name)
            elif not self.tying.unties:  # a file may hold the tied head as well
                yield head, replace(self._made(embedding), name=self.name_in_file(head), file=stored.file)
            if name == embedding and self.tying.unties:
                yield head, self._made(head, of=embedding)

    def _changed(self, name: str) -> Source:
        """Leave a tensor as it is stored unless the adapter says something of it."""
        layer = name.removesuffix(_WEIGHT)
        parts = any(self.adapter.part(layer, part) is not None for part in names.PARTS if part != names.UP_BIAS)
        bias = self.adapter.part(name.removesuffix(_BIAS), names.UP_BIAS) is not None
        is_changed = parts or bias or name in self.adapter.tensors or name in self.tying.starts
        return self._made(name) if is_changed else self.stored[name]

    def _made(self, name: str, *, of: str | None = None) -> MadeTensor:
        """Make the merged weight of parameter `name`, which begins as another's where the base has none."""
        base = self.stored[of or name]
        start = self.tying.starts.get(name) or self.adapter.tensors.get(name)
        shape = start.shape if start is not None else self._shape(of or name)
        name_in_file = self.name_in_file(name) if of is None else self.tying.head
        return MadeTensor(name_in_file, base.file, shape, base.dtype, lambda: self._numbers(name, of or name, start))

    def _numbers(self, name: str, base: str, start: StoredTensor | None) -> np.ndarray:
        weight = self._base_numbers(base) if start is None else read_whole(start, "float32")
        layer = name.removesuffix(_WEIGHT).removesuffix(_BIAS)
        if name.endswith(_BIAS):
            has_bias = self.adapter.part(layer, names.UP_BIAS) is not None
            return with_up_bias(weight, layer, self.adapter) if has_bias else weight
        return with_adapter(weight, layer, self.adapter)

    def _base_numbers(self, name: str) -> np.ndarray:
        return published_numbers(name, self.stored[name], self.layout, "float32")

    def _shape(self, name: str) -> tuple[int, ...]:
        return published_shape(name, self.stored[name], self.layout)


def _parameters(family: Family, config: Any) -> list[str]:
    """Name the parameters of a model; none gets memory."""
    with without_initial_values():
        return list(checkpoint_tensors(family.model_class.from_config(config, dtype="float32")))
