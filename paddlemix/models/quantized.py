"""Models whose linear layers hold their weights as codes, read from quantised files or quantised while being read."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from paddle import nn

from paddlemix.models.decoder import DecoderBlock
from paddlemix.models.layers.linear import Linear
from paddlemix.models.replace import replace_layer
from paddlemix.quantization.linear import QuantizedLinear
from paddlemix.quantization.rounding import KINDS, Kind, rounded_by_rows
from paddlemix.quantization.stored import QuantizedTensor, joined
from paddlemix.weights.files import stored_tensors
from paddlemix.weights.layout import WeightLayout, checkpoint_tensors
from paddlemix.weights.loading import fill, hand_over, match, without_initial_values
from paddlemix.weights.published import published_rows, published_shape, read_whole

if TYPE_CHECKING:
    from paddlemix.quantization.blocks import Blocks
    from paddlemix.quantization.scheme import Scheme
    from paddlemix.weights.stored_tensor import Source

_WEIGHT, _BIAS, _HEAD = ".weight", ".bias", "lm_head"


@dataclass(frozen=True)
class Quantizing:
    """How linear layers are quantised whose weights the files hold in plain numbers.

    Attributes:
        kind: what becomes of a number.
        vision: whether the layers outside of the language model are quantised too; the head never is.
    """

    kind: Kind
    vision: bool = False

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"`quantize` is {self.kind!r}; expected one of {', '.join(KINDS)}.")


def load_quantized(
    model: nn.Layer, folder: Path, layout: WeightLayout, scheme: Scheme | None, quantizing: Quantizing | None
) -> None:
    """Fill a model from the files in `folder`, layer by layer, its linear layers with codes.

    Beside the model no more than one layer is in memory. What the files hold quantised stays as it is.

    Args:
        model: its parameters have no memory yet.
        folder: the checkpoint's.
        layout: the family's.
        scheme: of the checkpoint; None where its weights are plain numbers.
        quantizing: the layers that the files hold in plain numbers; None leaves them so.

    Raises:
        FileNotFoundError: no weights, or a shard of the index is missing.
        ValueError: a damaged file, or any missing, unexpected or wrong-shaped tensor.
    """
    parameters = checkpoint_tensors(model)
    linear = {name for name, layer in model.named_sublayers() if type(layer) is Linear}
    chosen = set() if quantizing is None else layers_to_round(model, linear, layout, with_vision=quantizing.vision)
    sources = without_empty_biases(joined(stored_tensors(folder), scheme), layout, parameters)
    refuse_quantized_heads(sources, layout)
    for name, source in match(parameters, sources, layout, folder).items():
        layer = name.removesuffix(_WEIGHT)
        if isinstance(source, QuantizedTensor):
            if layer not in linear:
                raise _not_quantized(source)
            _hold(model, layer, source.blocks())
        elif quantizing is not None and name.endswith(_WEIGHT) and layer in chosen:
            _hold(model, layer, _rounded(name, source, layout, quantizing.kind))
        else:
            fill(parameters[name], source, layout.reading(name, list(parameters[name].shape), source)[1])


def quantized_layers(model: nn.Layer) -> dict[str, QuantizedLinear]:
    """Find the layers that hold their weights as codes and have no adapter, by name."""
    return {name: layer for name, layer in model.named_sublayers() if isinstance(layer, QuantizedLinear)}


def layers_to_round(model: nn.Layer, linear: Collection[str], layout: WeightLayout, *, with_vision: bool) -> set[str]:
    """Choose the layers that are quantised: those of the decoder's blocks, and with the tower all but the head.

    Args:
        model: of a family.
        linear: the names of its linear layers.
        layout: the family's, which names those that are convolutions on disk; they stay as they are.
        with_vision: whether the tower's and the aligner's are quantised too.

    Returns:
        Names.
    """
    kernels = {name.removesuffix(_WEIGHT) for name in layout.convolution_kernels}
    if with_vision:
        return {name for name in linear if name.rpartition(".")[2] != _HEAD} - kernels
    blocks = tuple(f"{name}." for name, layer in model.named_sublayers() if isinstance(layer, DecoderBlock))
    return {name for name in linear if name.startswith(blocks)} - kernels


def put_plain_layers(model: nn.Layer) -> None:
    """Give all quantised layers of a model plain weights, of its other parameters' dtype.

    Args:
        model: changed in place; it has no adapter.
    """
    dtype = str(next(iter(model.parameters())).dtype).removeprefix("paddle.")
    for name in quantized_layers(model):
        replace_layer(model, name, lambda layer: _plain(layer, dtype))


def without_empty_biases(sources: Iterable[Source], layout: WeightLayout, wanted: Collection[str]) -> list[Source]:
    """Leave out biases of zeros, which early writers of GPTQ's files gave layers that have none.

    Args:
        sources: what is stored.
        layout: the family's.
        wanted: the names of the model's parameters.

    Returns:
        What is for the model, and whatever else is no such bias.
    """
    sources = list(sources)
    names = [layout.name_here(one.name) for one in sources]
    quantised = {
        name.removesuffix(_WEIGHT) for name, one in zip(names, sources, strict=True) if isinstance(one, QuantizedTensor)
    }
    superfluous = {
        name for name in names if name.endswith(_BIAS) and name not in wanted and name.removesuffix(_BIAS) in quantised
    }
    return [
        one
        for name, one in zip(names, sources, strict=True)
        if name not in superfluous or read_whole(one, "float32").any()
    ]


def refuse_quantized_heads(sources: Iterable[Source], layout: WeightLayout) -> None:
    """Refuse files whose head is held as codes, before it is compared with an embedding that it may repeat.

    Args:
        sources: what is stored.
        layout: the family's.

    Raises:
        ValueError: the head is quantised.
    """
    for one in sources:
        if isinstance(one, QuantizedTensor) and layout.name_here(one.name) == f"{_HEAD}{_WEIGHT}":
            raise _not_quantized(one)


def _not_quantized(source: Source) -> ValueError:
    return ValueError(
        f"{source.file}: {source.name} is quantised; expected that of linear layers other than the head alone. Take "
        "another file of the model, or the one that this was made from and `quantize`."
    )


def _hold(model: nn.Layer, name: str, blocks: Blocks) -> None:
    replace_layer(model, name, lambda layer: QuantizedLinear(blocks, layer.bias))


def _rounded(name: str, source: Source, layout: WeightLayout, kind: Kind) -> Blocks:
    outputs, inputs = published_shape(name, source, layout)
    try:
        return rounded_by_rows((outputs, inputs), lambda rows: published_rows(name, source, layout, rows), kind)
    except ValueError as error:
        raise ValueError(f"{source.file}: {source.name}: {error}") from error


def _plain(layer: QuantizedLinear, dtype: str) -> Linear:
    with without_initial_values():
        made = Linear(*layer.sizes, bias_attr=False)
    made.bias = layer.bias
    hand_over(layer.dequantized(dtype), made.weight)
    return made
