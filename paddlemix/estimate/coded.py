"""Which weights of a model are held as codes, and what these take; no numbers are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from paddlemix.models.base import MixPretrainedModel
from paddlemix.models.quantized import Quantizing, layers_to_round
from paddlemix.ops import QuantizedWeight
from paddlemix.peft.targets import linear_layers
from paddlemix.quantization.rounding import rounded_bytes
from paddlemix.quantization.scheme import Scheme
from paddlemix.quantization.stored import QuantizedTensor, joined, usual_bytes
from paddlemix.weights.files import stored_tensors

_WEIGHT = ".weight"


@dataclass(frozen=True)
class Coded:
    """Weights that are held as codes.

    Attributes:
        title: what they are quantised to.
        bytes_of: what a layer holds of its weight, by the layer's name.
        numbers: that the codes stand for.
        tile: how many of these are in floating point at a time.
        in_tower: whether layers beside the decoder's are among them.
    """

    title: str
    bytes_of: Mapping[str, int]
    numbers: int
    tile: int
    in_tower: bool

    @property
    def bytes(self) -> int:
        """Count what they take."""
        return sum(self.bytes_of.values())


def coded_weights(
    model: MixPretrainedModel, scheme: Scheme | None, folder: Path | None, quantizing: Quantizing | None
) -> Coded | None:
    """Find the weights that a loaded model holds as codes.

    Args:
        model: its parameters need no memory; it may have adapters, but is not their `MixLoRAModel`.
        scheme: of the checkpoint; None where its weights are plain numbers.
        folder: the checkpoint's, whose files say which weights are quantised; where there are none, those of the
            decoder are, as in published files.
        quantizing: how others are quantised while they are read; None leaves them plain.

    Returns:
        They; None where there are none.

    Raises:
        ValueError: a file is damaged.
    """
    layout, linear, named = model.weight_layout(model.config), linear_layers(model), dict(model.named_parameters())
    shapes = {name: (named[f"{name}{_WEIGHT}"].shape[1], named[f"{name}{_WEIGHT}"].shape[0]) for name in linear}
    decoder = layers_to_round(model, linear, layout, with_vision=False)
    found: dict[str, int] = {}
    if scheme is not None:
        sources = _quantized_tensors(folder, scheme)
        if sources is None:
            found = {name: usual_bytes(shapes[name], scheme) for name in linear if name in decoder}
        else:
            found = {layout.name_here(one.name).removesuffix(_WEIGHT): one.held_bytes() for one in sources}
    titles = [f"{scheme.method} of {scheme.bits} bits"] if found and scheme is not None else []
    if quantizing is not None:
        chosen = layers_to_round(model, linear, layout, with_vision=quantizing.vision) - found.keys()
        found |= {name: rounded_bytes(*shapes[name], quantizing.kind) for name in chosen}
        titles += [quantizing.kind] if chosen else []
    if not found:
        return None
    sizes = [shapes[name] for name in found if name in shapes]
    return Coded(
        " and ".join(titles),
        found,
        sum(outputs * inputs for outputs, inputs in sizes),
        max(min(outputs, QuantizedWeight.outputs_at_once(inputs)) * inputs for outputs, inputs in sizes),
        bool(found.keys() - decoder),
    )


def _quantized_tensors(folder: Path | None, scheme: Scheme) -> list[QuantizedTensor] | None:
    """List what a folder's files hold quantised; None where no files are there."""
    if folder is None:
        return None
    try:
        stored = stored_tensors(folder)
    except FileNotFoundError:
        return None
    return [one for one in joined(stored, scheme) if isinstance(one, QuantizedTensor)]
