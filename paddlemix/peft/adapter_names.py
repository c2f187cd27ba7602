"""What PEFT calls the tensors of an adapter, and what they are called here."""

from __future__ import annotations

import re
from typing import NamedTuple

from paddlemix.weights.layout import WeightLayout, unwrapped

PREFIX = "base_model.model."
DOWN, UP = "lora_A", "lora_B"
EMBEDDING_DOWN, EMBEDDING_UP = "lora_embedding_A", "lora_embedding_B"
MAGNITUDE, UP_BIAS, TOKEN_ROWS = "lora_magnitude_vector", "lora_bias", "token_rows"
PARTS = (DOWN, UP, EMBEDDING_DOWN, EMBEDDING_UP, MAGNITUDE, UP_BIAS, TOKEN_ROWS)

# The adapter's name in memory, mostly `default`, which trainers that write a model's whole state leave in.
_NAME = r"(\.(?!weight$|bias$)[^.]+)?"
_FACTOR = re.compile(
    rf"(?P<layer>.+)\.(?P<part>{DOWN}|{UP}|{EMBEDDING_DOWN}|{EMBEDDING_UP}|{MAGNITUDE}){_NAME}(\.weight)?"
)
_UP_BIAS = re.compile(rf"(?P<layer>.+)\.{UP}{_NAME}\.bias")
_TOKEN_ROWS = re.compile(rf"(?P<layer>.+)\.token_adapter\.trainable_tokens_delta{_NAME}")
_WRAPPERS = re.compile(r"\.(base_layer|modules_to_save(\.default)?)(?=\.)")


class TensorName(NamedTuple):
    """What a tensor of an adapter is for.

    Attributes:
        place: the layer of a part, as the file calls it; of a weight that is saved whole the weight.
        part: one of `PARTS`; None for a weight that is saved whole.
    """

    place: str
    part: str | None = None

    def here(self, layout: WeightLayout) -> str:
        """Name it as `Adapter.tensors` does."""
        # A family's table has prefixes that end in a dot.
        place = layout.name_here(self.place)
        return place if self.part is None else f"{place}.{self.part}"


def parse(name: str) -> TensorName:
    """Read a tensor's name, with PEFT's prefix or without, and whatever else wrapped the model.

    Args:
        name: in the file.

    Returns:
        What it is for.
    """
    bare = unwrapped(name)
    for pattern, part in ((_UP_BIAS, UP_BIAS), (_TOKEN_ROWS, TOKEN_ROWS), (_FACTOR, None)):
        if found := pattern.fullmatch(bare):
            return TensorName(_WRAPPERS.sub("", found["layer"] + ".").removesuffix("."), part or found["part"])
    return TensorName(_WRAPPERS.sub("", bare))


def is_part(name: str) -> bool:
    """Tell whether a name of `Adapter.tensors` is a part of an adapter, and no weight that is saved whole."""
    return name.rpartition(".")[2] in PARTS


def split_part(name: str) -> tuple[str, str]:
    """Split a part's name into layer and part."""
    layer, _, part = name.rpartition(".")
    return layer, part


def name_there(name: str, layout: WeightLayout, *, is_adapted: bool = False) -> str:
    """Name a tensor as PEFT does with transformers 4.52 and later.

    Args:
        name: as `Adapter.tensors` has it.
        layout: the family's.
        is_adapted: whether it is the bias of a layer with an adapter, inside which PEFT keeps the layer itself.

    Returns:
        The name in the file.
    """
    there, ending = layout.name_in_memory(name), ".weight" if name.rpartition(".")[2] in (DOWN, UP) else ""
    if is_adapted:
        there = there.removesuffix(".bias") + ".base_layer.bias"
    return f"{PREFIX}{there}{ending}"
