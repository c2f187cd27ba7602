"""Fill a model's parameters from the files of a checkpoint, block by block."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import paddle
from paddle import nn
from paddlenlp.transformers.model_utils import no_init_weights

from paddlemix.foreign.kinds import CONVERT
from paddlemix.weights.dtypes import FLOAT_DTYPES, SAFETENSORS_CODES, STORED_DTYPES
from paddlemix.weights.files import stored_tensors
from paddlemix.weights.layout import WeightLayout, checkpoint_tensors
from paddlemix.weights.share import Share, share_of, whole_shape
from paddlemix.weights.stored_tensor import Source

_MOST_LISTED = 500  # problems in one error


@contextmanager
def without_initial_values() -> Iterator[None]:
    """Build layers whose parameters have no memory yet, for `load_weights` to fill.

    Random values would all be overwritten, and took ten times as long as reading the files.

    Yields:
        Nothing; layers that are built inside the context are those.
    """
    nothing = NoValues()
    nn.initializer.set_global_initializer(nothing, nothing)
    try:
        with no_init_weights():
            yield
    finally:
        nn.initializer.set_global_initializer(None)


class NoValues(nn.initializer.Initializer):
    """Leaves a parameter without memory, for one who puts another in its place."""

    def forward(self, var: paddle.Tensor, block: object = None) -> None:
        """Do nothing."""


def load_weights(model: nn.Layer, folder: Path, layout: WeightLayout) -> None:
    """Fill every parameter of `model` from the files in `folder`, block by block.

    Beside the parameters no more than a block of one tensor is in memory. Of a parameter that is split over ranks, a
    rank reads its own part.

    Args:
        model: its parameters' dtype decides into what the stored numbers are converted.
        folder: holds weights as `stored_tensors` reads them.
        layout: the family's.

    Raises:
        FileNotFoundError: no weights, or a shard of the index is missing.
        ValueError: a damaged file, or any missing, unexpected or wrong-shaped tensor; they are listed, before any
            parameter changes.
    """
    parameters = checkpoint_tensors(model)
    for name, source in match(parameters, stored_tensors(folder), layout, folder).items():
        fill(parameters[name], source, layout.reading(name, list(parameters[name].shape), source)[1])


def match(
    parameters: Mapping[str, paddle.Tensor], stored: Iterable[Source], layout: WeightLayout, folder: Path
) -> dict[str, Source]:
    """Find what each parameter is filled from.

    Args:
        parameters: by name; they need no memory.
        stored: the tensors of a checkpoint.
        layout: the family's.
        folder: the checkpoint's, for errors.

    Returns:
        What each parameter is read from, in the order of `stored`.

    Raises:
        ValueError: any missing, unexpected or wrong-shaped tensor; the first hundreds are listed.
    """
    matched: dict[str, Source] = {}
    problems = []
    for_other_order = 0
    for name, source in layout.sources(stored):
        if name in parameters and name not in matched:
            matched[name] = source
            problems += misfit(name, parameters[name], source, layout)
            for_other_order += layout.speaks_for_other_order(name, whole_shape(parameters[name]), source)
        elif name in parameters or name not in layout.optional:
            problems.append(f"{'twice' if name in parameters else 'unexpected'}: {source.name} ({source.file.name})")
    problems = [f"missing: {name}" for name in parameters if name not in matched] + problems
    if problems:
        more = [f"and {len(problems) - _MOST_LISTED} others"] if len(problems) > _MOST_LISTED else []
        raise ValueError(
            f"{folder}: {len(problems)} tensors do not fit the model that config.json describes:\n  "
            + "\n  ".join((*problems[:_MOST_LISTED], *more))
            + (_other_order(folder, next(iter(matched.values()))) if for_other_order > 0 else "")
        )
    return matched


def _other_order(folder: Path, source: Source) -> str:
    """Say what to do where matrices would fit if their rows and columns changed places."""
    order, other = ("Paddle's", "torch") if source.in_paddles_order else ("PyTorch's", "paddle")
    return (
        f"\nMatrices would fit with rows and columns exchanged: {source.file.name} is read in {order} order, as its "
        f"format says. If that is wrong: {CONVERT} {folder} --output out --order {other}"
    )


def misfit(name: str, parameter: paddle.Tensor, source: Source, layout: WeightLayout) -> list[str]:
    """Say why `source` cannot be read into parameter `name`; nothing where it can."""
    wanted, _ = layout.reading(name, whole_shape(parameter), source)
    if list(source.shape) != wanted:
        shape = f"{source.name} is {list(source.shape)}, the config asks for {wanted}"
        return [f"wrong shape: {shape} ({source.file.name})"]
    if source.dtype not in FLOAT_DTYPES:
        dtype = SAFETENSORS_CODES.get(source.dtype, source.dtype)
        return [f"wrong dtype: {source.name} is {dtype}, no floating-point numbers ({source.file.name})"]
    return []


def fill(parameter: paddle.Tensor, source: Source, is_transposed: bool) -> None:
    """Read `source`, which has a fitting shape, into a parameter; into one that is split, this rank's part."""
    fresh = paddle.empty(parameter.shape, dtype=parameter.dtype, device="cpu")
    memory, share = _memory(fresh), share_of(parameter)
    if share is None:
        source.read_into(memory.T if is_transposed else memory.reshape(source.matrix_shape))
    else:
        _read_share(source, np.atleast_2d(memory), share, is_transposed)
    device = paddle.device.get_device()
    hand_over(fresh if device == "cpu" else fresh.to(device), parameter)


def hand_over(numbers: paddle.Tensor, parameter: paddle.Tensor) -> None:
    """Let a parameter have the memory of a tensor, and so its shape and its numbers, without a copy of it.

    Args:
        numbers: not to be used any more.
        parameter: of the same dtype and device.
    """
    numbers._share_buffer_to(parameter)


def _read_share(source: Source, memory: np.ndarray, share: Share, is_transposed: bool) -> None:
    is_columns = share.axis + 1 == len(source.shape)  # in Paddle's order; a vector is one row
    if is_transposed:
        memory, is_columns = memory.T, not is_columns
    for here, there in share.places(source.matrix_shape[int(is_columns)]):
        if is_columns:
            source.read_into(memory[:, here], columns=there)
        else:
            source.read_into(memory[here], rows=there)


def _memory(tensor: paddle.Tensor) -> np.ndarray:
    """View the numbers of a tensor on the CPU, the very same memory; Paddle's own views for numpy are copies."""
    raw = (ctypes.c_char * (tensor.size * tensor.element_size())).from_address(tensor.data_ptr())
    dtype = STORED_DTYPES[str(tensor.dtype).removeprefix("paddle.")]
    return np.frombuffer(raw, dtype=dtype).reshape(tensor.shape)
