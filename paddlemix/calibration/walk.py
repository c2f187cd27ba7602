"""A walk through a decoder's blocks, each of whose layers is quantised for the inputs that it gets.

A block sees what those before it make of the records with their codes, and within it a layer sees those in front of it.
Beside the model only the records' hidden states between two blocks are held, and what a layer's inputs have in common.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import paddle
from paddle import nn

from paddlemix.calibration.records import Batch
from paddlemix.models.decoder import Decoder
from paddlemix.models.layers.linear import Linear
from paddlemix.models.replace import replace_layer
from paddlemix.models.vision_language import VisionLanguageModel
from paddlemix.ops.denormals import flushed_denormals
from paddlemix.peft.probe import whole_float32
from paddlemix.quantization.blocks import Blocks
from paddlemix.quantization.calibrated.columns import ColumnRounding
from paddlemix.quantization.calibrated.recipe import Recipe
from paddlemix.quantization.linear import QuantizedLinear

Layers = dict[str, Linear]
Hook = Callable[[nn.Layer, tuple[Any, ...]], None]


@flushed_denormals()
@whole_float32()
@paddle.no_grad()
def quantize_along(
    model: VisionLanguageModel,
    layers: Collection[str],
    batches: Iterable[Batch],
    recipe: Recipe,
    found: Callable[[str, Blocks], object],
) -> None:
    """Quantise a model's layers, from the first block to the last.

    Args:
        model: in evaluation mode; each of the layers is replaced by a quantised one.
        layers: linear ones of the decoder's blocks, by name.
        batches: of records; gone through once.
        recipe: how weights are quantised.
        found: called with each layer's name and codes.

    Raises:
        ValueError: a layer's inputs or its weight cannot be used; the message names it.
    """
    decoder = model.decoder
    between = [_entering(model, batch) for batch in batches]
    names = {id(layer): name for name, layer in model.named_sublayers()}
    for number, block in enumerate(decoder.blocks):
        inside = {names[id(layer)]: layer for layer in block.sublayers() if names[id(layer)] in layers}
        for together in _by_input(decoder, number, inside, between[0]):
            rounding = _rounding(decoder, number, together, between, recipe)
            for name, layer in together.items():
                blocks = _rounded(rounding, name, layer)
                _hold(model, name, blocks)
                found(name, blocks)
        for place, one in enumerate(between):  # one by one, so that all are held once
            between[place] = replace(one, hidden=one.behind(decoder, number))


@dataclass(frozen=True)
class _Between:
    """A batch between two blocks.

    Attributes:
        hidden: float[B, L, hidden].
        rotaries: of the tokens.
        mask: which tokens each of them must not see.
        caches: none for each block.
        deep: what is added behind some blocks.
        places: int64[n], of tokens among B * L; None where nothing is padded.
    """

    hidden: paddle.Tensor
    rotaries: Any
    mask: Any
    caches: Any
    deep: Any
    places: paddle.Tensor | None

    def behind(self, decoder: Decoder, number: int) -> paddle.Tensor:
        """Take the hidden states through one block."""
        return decoder.run(
            self.hidden, self.rotaries, self.mask, self.caches, start=number, stop=number + 1, entering=self.deep
        )

    def tokens(self, x: paddle.Tensor) -> paddle.Tensor:
        """Take float[n, size] of the tokens out of what a layer gets, float[B, L, size]."""
        flat = x.reshape([-1, x.shape[-1]])
        return flat if self.places is None else paddle.index_select(flat, self.places)


class _ReachedError(Exception):
    """What a forward pass was for has been seen."""


@contextmanager
def _watching(layers: Iterable[nn.Layer], hook: Hook) -> Iterator[None]:
    """Call a function with each of the layers and what it is called with."""
    handles = [layer.register_forward_pre_hook(hook) for layer in layers]
    try:
        with suppress(_ReachedError):
            yield
    finally:
        for handle in handles:
            handle.remove()


def _entering(model: VisionLanguageModel, batch: Batch) -> _Between:
    """Compute what enters the first block; the blocks are not run."""
    seen: list[tuple[Any, ...]] = []

    def see(_: nn.Layer, inputs: tuple[Any, ...]) -> None:
        seen.append(inputs)
        raise _ReachedError

    with _watching([model.decoder], see):
        model(**batch.inputs, last_logits_only=True)
    ((hidden, rotaries, mask, caches, deep),) = seen
    return _Between(
        hidden, rotaries, mask, caches, deep, None if batch.places is None else paddle.to_tensor(batch.places)
    )


def _by_input(decoder: Decoder, number: int, layers: Layers, batch: _Between) -> list[Layers]:
    """Put those of a block's layers together that get the same inputs, in the order in which they are called."""
    inputs: list[Any] = []
    together: list[Layers] = []
    names = {id(layer): name for name, layer in layers.items()}

    def see(layer: nn.Layer, given: tuple[Any, ...]) -> None:
        (x,) = given
        place = next((place for place, one in enumerate(inputs) if one is x), len(inputs))
        if place == len(inputs):
            inputs.append(x)
            together.append({})
        together[place][names[id(layer)]] = layer

    with _watching(layers.values(), see):
        batch.behind(decoder, number)
    assert sum(map(len, together)) == len(layers), "a layer of the block is never called"
    return together


def _rounding(
    decoder: Decoder, number: int, together: Layers, batches: Iterable[_Between], recipe: Recipe
) -> ColumnRounding:
    """Add up what the inputs of layers have in common, over all tokens."""
    name, layer = next(iter(together.items()))
    inputs, _ = layer.sizes
    hessian = paddle.zeros([inputs, inputs], "float32")
    for batch in batches:

        def see(_: nn.Layer, given: tuple[Any, ...], batch: _Between = batch) -> None:
            x = batch.tokens(given[0]).astype("float32")
            hessian.add_(paddle.matmul(x, x, transpose_x=True))
            raise _ReachedError

        with _watching([layer], see):
            batch.behind(decoder, number)
    return _naming(name, lambda: ColumnRounding(hessian.numpy(), recipe))


def _rounded(rounding: ColumnRounding, name: str, layer: Linear) -> Blocks:
    return _naming(name, lambda: rounding.blocks(layer.weight.astype("float32").numpy().T))


def _hold(model: VisionLanguageModel, name: str, blocks: Blocks) -> None:
    replace_layer(model, name, lambda layer: QuantizedLinear(blocks, layer.bias))


def _naming(name: str, make: Callable[[], Any]) -> Any:
    """Name the layer that an error is about."""
    try:
        return make()
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
