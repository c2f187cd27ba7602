"""Quantised weights among the tensors of a checkpoint, as things that read like any other weight."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from paddlemix.quantization import awq, gptq, nf4, packed_words
from paddlemix.quantization.blocks import Blocks, held_bytes
from paddlemix.quantization.parts import Parts
from paddlemix.quantization.scheme import Scheme
from paddlemix.weights.stored_tensor import EVERYTHING, ROWS_AT_ONCE, Source, StoredTensor


@dataclass(frozen=True)
class _Form:
    """A way in which a layer's weight is stored.

    Attributes:
        marks: what stands behind the layer's name in tensors that no plain layer has.
        shape_of: tells outputs and inputs.
        read: reads it.
        others: what stands there in its other tensors.
        write: makes its tensors, by what stands there; None where none are written.
        block_of: tells how many numbers share a scale; None where the config says it.
        has_zeros: whether blocks have zeros.
        groups: the tensor that may put inputs into another order.
    """

    marks: tuple[str, ...]
    shape_of: Callable[[Parts, Scheme], tuple[int, int]]
    read: Callable[[Parts, Scheme], Blocks]
    others: tuple[str, ...] = ()
    write: Callable[[Blocks, Scheme], dict[str, np.ndarray]] | None = None
    block_of: Callable[[Parts, Scheme], int] | None = None
    has_zeros: bool = False
    groups: str = ""


_FORMS = {
    "gptq": _Form(gptq.NAMES, gptq.shape_of, gptq.read, write=gptq.write, has_zeros=True, groups=gptq.GROUPS),
    "awq": _Form(awq.NAMES, awq.shape_of, awq.read, write=awq.write, has_zeros=True),
    "compressed-tensors": _Form(
        packed_words.NAMES, packed_words.shape_of, packed_words.read, groups=packed_words.GROUPS
    ),
    "bitsandbytes": _Form(nf4.NAMES, nf4.shape_of, nf4.read, (nf4.WORDS,), block_of=nf4.block_of),
}


@dataclass(frozen=True)
class QuantizedTensor:
    """A linear layer's weight that is stored quantised; a `Source` of what its codes stand for, in PyTorch's order.

    Attributes:
        parts: what is stored of it.
        scheme: of the checkpoint.
        in_paddles_order: never.
    """

    parts: Parts
    scheme: Scheme
    in_paddles_order: bool = False

    @property
    def name(self) -> str:
        """What a plain weight would be called."""
        return f"{self.parts.layer}.weight"

    @property
    def file(self) -> Path:
        """Where its first part lies."""
        return next(iter(self.parts.tensors.values())).file

    @cached_property
    def shape(self) -> tuple[int, int]:
        """Outputs and inputs."""
        return _FORMS[self.scheme.method].shape_of(self.parts, self.scheme)

    @property
    def matrix_shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.shape

    @property
    def dtype(self) -> str:
        """What a plain copy of it is stored in: half precision, as the scales are."""
        scales = self.parts.tensors.get(gptq.SCALES) or self.parts.tensors.get(packed_words.SCALES)
        return scales.dtype if scales is not None and scales.dtype == "bfloat16" else "float16"

    def blocks(self) -> Blocks:
        """Read the codes.

        Returns:
            The weight.

        Raises:
            ValueError: a part is missing or damaged.
        """
        return _FORMS[self.scheme.method].read(self.parts, self.scheme)

    def held_bytes(self) -> int:
        """Count what a layer holds of it; no codes are read.

        Returns:
            Bytes.

        Raises:
            ValueError: a part is missing or damaged.
        """
        form, (_, inputs) = _FORMS[self.scheme.method], self.shape
        if form.block_of is not None:
            block = form.block_of(self.parts, self.scheme)
        else:
            block, _ = self.parts.blocks_along(inputs, self.scheme.group)
        order = self.parts.order(form.groups, inputs, block) is not None
        return held_bytes(self.shape, self.scheme.bits, block, zeros=form.has_zeros, order=order)

    def read_into(self, target: np.ndarray, rows: slice = EVERYTHING, columns: slice = EVERYTHING) -> None:
        """Copy what the codes stand for, converted to `target`'s dtype; see `StoredTensor.read_into`."""
        blocks = self.blocks()
        first, end, _ = rows.indices(self.shape[0])
        for start in range(first, end, ROWS_AT_ONCE):
            part = slice(start, min(start + ROWS_AT_ONCE, end))
            target[part.start - first : part.stop - first] = blocks.numbers(part)[:, columns]


def taken_apart(layer: str, blocks: Blocks, scheme: Scheme) -> dict[str, np.ndarray]:
    """Make the tensors that a file holds of a weight.

    Args:
        layer: its name in the file.
        blocks: the weight; its codes count from 0 on, its scales are numbers of float16.
        scheme: of the checkpoint; GPTQ's or AWQ's.

    Returns:
        The tensors, by their names in the file.
    """
    write = _FORMS[scheme.method].write
    assert write is not None, scheme.method
    return {f"{layer}.{name}": array for name, array in write(blocks, scheme).items()}


def usual_bytes(shape: tuple[int, int], scheme: Scheme) -> int:
    """Count what a layer holds of a weight whose file is not there, as published files are: in the inputs' own order.

    Args:
        shape: outputs and inputs.
        scheme: of the checkpoint.

    Returns:
        Bytes.
    """
    block = nf4.BLOCK if scheme.method == "bitsandbytes" else shape[1] if scheme.group == -1 else scheme.group
    return held_bytes(shape, scheme.bits, block, zeros=_FORMS[scheme.method].has_zeros, order=False)


def joined(stored: Iterable[StoredTensor], scheme: Scheme | None) -> list[Source]:
    """Put together what is stored of each quantised weight.

    What is quantised the tensors say, whatever config.json lists.

    Args:
        stored: the tensors of a checkpoint.
        scheme: of the checkpoint; None leaves all as they are.

    Returns:
        The tensors, those of a quantised weight as one, in the place of the first.
    """
    stored = list(stored)
    if scheme is None:
        return [*stored]
    form = _FORMS[scheme.method]
    layers = {layer for layer, _ in (_cut(one.name, form.marks) for one in stored) if layer}
    found: dict[str, dict[str, StoredTensor]] = {layer: {} for layer in layers}
    sources: dict[str, Source] = {}
    for one in stored:
        layer, name = _cut(one.name, (*form.marks, *form.others))
        if layer not in found:
            sources[one.name] = one
            continue
        found[layer][name] = one
        sources.setdefault(layer, QuantizedTensor(Parts(layer, found[layer]), scheme))
    return list(sources.values())


def _cut(name: str, endings: Iterable[str]) -> tuple[str, str]:
    """Cut a tensor's name into its layer and one of the endings; two times "" where it has none of them."""
    for ending in endings:
        layer = name.removesuffix(f".{ending}")
        if layer != name:
            return layer, ending
    return "", ""
