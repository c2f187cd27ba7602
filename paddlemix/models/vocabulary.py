"""More tokens than a checkpoint knows: rows of the embedding and columns of the head for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import paddle

from paddlemix.models.base import MixPretrainedModel
from paddlemix.models.quantized import quantized_layers
from paddlemix.models.replace import put_layer
from paddlemix.weights.loading import hand_over, without_initial_values

FirstRows = Literal["mean", "random"]


def with_rows(model: MixPretrainedModel, rows: int) -> MixPretrainedModel:
    """Give a model room for more tokens.

    Args:
        model: whole on this rank; not to be used afterwards, since its parameters are handed on.
        rows: of the embedding, and columns of the head; no fewer than there are.

    Returns:
        A model of the same numbers, whose further rows are what the others are on average; `model` where it has so
        many already.
    """
    earlier = model.config.vocab_size
    assert rows >= earlier, f"{rows} rows would be fewer than {earlier}"
    if rows == earlier:
        return model
    model.config.vocab_size = rows
    dtype = str(next(iter(model.parameters())).dtype).removeprefix("paddle.")
    with without_initial_values():
        larger = type(model).from_config(model.config, dtype=dtype)
    for name, layer in quantized_layers(model).items():  # with their biases
        put_layer(larger, name, layer)
    larger.is_quantized, larger.quantized_as = model.is_quantized, model.quantized_as
    before = dict(model.named_parameters())
    for name, parameter in larger.named_parameters():
        held = before[name].detach()
        hand_over(held if held.shape == parameter.shape else _extended(held, parameter.shape), parameter)
    larger.carried_files = model.carried_files
    larger.train() if model.training else larger.eval()
    return larger


def set_first_rows(
    model: MixPretrainedModel, pieces: Mapping[int, Sequence[int]], how: FirstRows, *, seed: int
) -> None:
    """Choose what the rows of new tokens begin as, in embedding and head.

    Args:
        model: has the rows.
        pieces: by new token the tokens that its text was cut to before.
        how: "mean" of the rows of its pieces, or "random" as an untrained model's rows.
        seed: of what is random.
    """
    if not pieces:
        return
    generator = np.random.default_rng(seed)
    tokens = paddle.to_tensor(list(pieces))
    for parameter, axis in _of_tokens(model):
        held = parameter.detach().astype("float32")  # the CPU scatters nothing else
        held = held if axis == 0 else held.T
        if how == "mean":
            rows = paddle.stack([held[paddle.to_tensor(list(one))].mean(0) for one in pieces.values()])
        else:
            numbers = generator.normal(0, model.config.initializer_range, [len(pieces), held.shape[1]])
            rows = paddle.to_tensor(numbers.astype(np.float32))
        changed = paddle.scatter(held, tokens, rows).astype(parameter.dtype)
        hand_over(changed if axis == 0 else changed.T.contiguous(), parameter)


def _of_tokens(model: MixPretrainedModel) -> list[tuple[paddle.Tensor, int]]:
    """List the parameters that have numbers of their own for each token, and along which axis."""
    embedding = model.get_input_embeddings().weight
    head = [] if model.config.tie_word_embeddings else [(model.lm_head.weight, 1)]
    return [(embedding, 0), *head]


def _extended(tensor: paddle.Tensor, shape: Sequence[int]) -> paddle.Tensor:
    """Fill a matrix up along the axis that is too short, with the mean along it."""
    axis = next(axis for axis, (held, wanted) in enumerate(zip(tensor.shape, shape, strict=True)) if held != wanted)
    missing = shape[axis] - tensor.shape[axis]
    mean = tensor.astype("float32").mean(axis, keepdim=True).astype(tensor.dtype)
    return paddle.concat([tensor, mean.expand([missing if one == axis else -1 for one in range(2)])], axis=axis)
