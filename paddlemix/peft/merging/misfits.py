"""Why an adapter does not fit a base, and what helps: each cause has its own sentence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path

from paddlemix.peft import adapter_names as names
from paddlemix.peft.adapter import Adapter
from paddlemix.peft.merging.tying import Tying
from paddlemix.weights.layout import WeightLayout

Shapes = Mapping[str, tuple[int, ...]]


def check_fits(adapter: Adapter, base: Path, shapes: Shapes, layout: WeightLayout, tying: Tying) -> None:
    """Make sure that all of an adapter can be added to a base.

    Args:
        adapter: the adapter.
        base: the base's folder.
        shapes: of the base's tensors in PyTorch's order, by parameter.
        layout: the family's.
        tying: of head and embedding.

    Raises:
        ValueError: something of it cannot.
    """
    _check_vocabulary(adapter, base, shapes, tying)
    problems = [problem for layer in adapter.layers for problem in _of_layer(adapter, layer, shapes, tying)]
    problems += [problem for name in adapter.whole for problem in _of_whole(adapter, name, shapes, layout, tying)]
    if problems:
        raise adapter.refusal(base, problems)
    _check_biases(adapter, base, shapes)


def _check_vocabulary(adapter: Adapter, base: Path, shapes: Shapes, tying: Tying) -> None:
    """Make sure that embedding, head and the parts on them count the same tokens."""
    if tying.embedding not in shapes:
        return
    wanted = shapes[tying.embedding][0] if tying.rows is None else tying.rows
    for what, found in _counts_of_tokens(adapter, shapes, tying):
        if found != wanted:
            raise ValueError(
                f"{adapter.folder}: this adapter was trained with another vocabulary than that of {base}: {what} is "
                f"for {found} tokens, and the embedding has {wanted}. Give a base that was enlarged as the one that it "
                "was trained on (`resize_token_embeddings`, then `save_pretrained`), or save the adapter again with "
                "embedding and head in it (`save_embedding_layers=True`)."
            )


def _counts_of_tokens(adapter: Adapter, shapes: Shapes, tying: Tying) -> Iterator[tuple[str, int]]:
    layers = {tying.embedding: names.EMBEDDING_DOWN, tying.head: names.UP}
    for name, part in layers.items():
        product = adapter.part(name.removesuffix(".weight"), part)
        if product is not None:
            yield product.name, product.shape[-1] if part == names.EMBEDDING_DOWN else product.shape[0]
        start = tying.starts.get(name)
        if start is not None:
            yield start.name, start.shape[0]
        elif not tying.is_tied and name in shapes:
            yield f"the base's {name}", shapes[name][0]


def _of_layer(adapter: Adapter, layer: str, shapes: Shapes, tying: Tying) -> Iterator[str]:
    """Say what of the parts on a layer does not fit its weight."""
    name = f"{layer}.weight"
    shape = shapes.get(tying.embedding if name == tying.head and tying.is_tied else name)
    start = tying.starts.get(name) or adapter.tensors.get(name)
    shape = shape if start is None else start.shape
    for part in names.PARTS:
        stored = adapter.part(layer, part)
        if stored is None:
            continue
        if shape is None:
            yield f"{stored.name}, for which the base has no weight"
        elif (wanted := _wanted(part, shape)) is not None and not _is_like(stored.shape, wanted):
            yield f"{stored.name} of {list(stored.shape)}, where the base has {list(shape)}"


def _wanted(part: str, shape: tuple[int, ...]) -> tuple[int | None, ...]:
    """Return the shape of a part, None for the rank or any number, of a weight's shape."""
    outputs, inputs = shape[0], shape[1:]
    wanted: dict[str, tuple[int | None, ...]] = {
        names.DOWN: (None, *inputs),
        names.UP: (outputs, None),
        names.EMBEDDING_DOWN: (None, outputs),
        names.EMBEDDING_UP: (inputs[0] if inputs else None, None),
        names.UP_BIAS: (outputs,),
        names.TOKEN_ROWS: (None, *inputs),
    }
    return wanted.get(part, (None,))


def _is_like(shape: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    """Compare shapes; axes of one behind the wanted ones are a convolution's."""
    if wanted == (None,):
        return True
    rest = shape[len(wanted) :]
    same = all(one is None or one == found for one, found in zip(wanted, shape, strict=False))
    return len(shape) >= len(wanted) and prod(rest) == 1 and same


def _of_whole(adapter: Adapter, name: str, shapes: Shapes, layout: WeightLayout, tying: Tying) -> Iterator[str]:
    """Say why a weight that is saved whole cannot take the place of the base's."""
    stored = adapter.tensors[name]
    shape = shapes.get(tying.embedding if name == tying.head and tying.is_tied else name)
    is_of_tokens = name in (tying.embedding, tying.head)
    if shape is None:
        if name not in layout.optional:
            yield f"{stored.name}, which the base does not have"
    elif (stored.shape[1:] if is_of_tokens else stored.shape) != (shape[1:] if is_of_tokens else shape):
        yield f"{stored.name} of {list(stored.shape)}, {list(shape)} in the base"


def _check_biases(adapter: Adapter, base: Path, shapes: Shapes) -> None:
    """Make sure that a product's bias has one to be added to."""
    for layer in adapter.layers:
        if adapter.part(layer, names.UP_BIAS) is not None and f"{layer}.bias" not in shapes:
            raise ValueError(
                f"{adapter.folder}: `lora_bias` gives {layer} a bias, and {base} has none there to add it to; no "
                "merged model can hold it, PEFT's neither. Train the adapter again without `lora_bias`, or on layers "
                "that have a bias."
            )
