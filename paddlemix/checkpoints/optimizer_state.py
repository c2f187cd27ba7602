"""The optimizer's state on disk: safetensors, by the model's names of its parameters.

Paddle names a state after the numbers that its layer and it itself got when they were made, which another order of
making, or one more layer, changes.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import paddle
from paddle import nn
from safetensors.numpy import save_file

from paddlemix.checkpoints.stored_states import StoredStates
from paddlemix.distributed.paddle_seams import accumulators, make_states, master_weights
from paddlemix.distributed.sharding import Updated, holds_copies, updated_here
from paddlemix.files import replacing
from paddlemix.printable import brief
from paddlemix.weights.share import gather_whole, own_part, whole_shape

MASTER = "master_weight"
MAX_BYTES = 2 * 10**9
_OTHER = "resume with the optimizer that wrote it, or from another checkpoint"


def save_optimizer(optimizer: Any, model: nn.Layer, folder: Path, *, rank: int = 0, is_writer: bool = True) -> None:
    """Write what this rank's optimizer keeps, as `<parameter>/<state>`, a piece as `<parameter>/<state>@<start>`.

    Where ranks share the states, the files of all of them hold each state once. Of a model that is split over ranks the
    first of them writes states whole, and all of them must call it.

    Args:
        optimizer: Paddle's, or a wrapper of it; its states are float[...] as their parameters, or flat pieces float[n].
        model: whose parameters it updates.
        folder: must exist.
        rank: names the files.
        is_writer: whether this is the one that writes, of the ranks that share the model.
    """
    states = _named_states(optimizer, model)
    if not is_writer:
        deque(states, maxlen=0)
        return
    for number, shard in enumerate(_shards(states)):
        path = folder / f"optimizer-{rank:05d}-{number:05d}.safetensors"
        with replacing(path, in_folder=True) as staged:
            save_file(shard, staged)


def load_optimizer(optimizer: Any, model: nn.Layer, folder: Path) -> None:
    """Take over the states of all ranks' files that belong to this rank's share of the parameters.

    Args:
        optimizer: that has made no step.
        model: whose parameters it updates.
        folder: of a checkpoint, written by any number of ranks, however they shared the states.

    Raises:
        ValueError: no file of an optimizer is there, one is damaged, or one holds states of a parameter that is not
            trained, or others than this optimizer keeps.
    """
    stored = StoredStates(folder)
    trained = {name for name, parameter in model.named_parameters() if not parameter.stop_gradient}
    if unknown := next((name for name, _ in stored.states if name not in trained), None):
        raise ValueError(f"{folder}: {unknown} was trained, but is not now; freeze what was frozen then.")
    own = updated_here(optimizer, model)
    for name, state in stored.states:
        if name in own:
            tensor = _state_of(optimizer, own[name].tensor, state)
            if tensor is None:
                raise ValueError(
                    f"{folder}: holds {brief(state)} of {name}, which this optimizer does not keep; {_OTHER}."
                )
            # Before memory is taken for it: a sparse file may hold terabytes.
            size = stored.size(name, state)
            if size not in (tensor.size, own[name].size, math.prod(whole_shape(own[name].tensor))):
                raise ValueError(
                    f"{folder}: {brief(state)} of {name} has {size} numbers, expected {tensor.dtype}{tensor.shape}; "
                    f"{_OTHER}."
                )
            whole = own_part(stored.read(name, state), own[name].tensor)
            share = _share(whole, own[name], tensor)
            if share is None or str(share.dtype) != str(tensor.dtype).removeprefix("paddle."):
                raise ValueError(
                    f"{folder}: {brief(state)} of {name} is {whole.dtype}{list(whole.shape)}, expected {tensor.dtype}"
                    f"{tensor.shape}; {_OTHER}."
                )
            _set_value(tensor, share)


def _state_of(optimizer: Any, parameter: paddle.Tensor, state: str) -> paddle.Tensor | None:
    """Return a state's tensor, made if need be; parameters that the files do not name make theirs when they move."""
    make_states(optimizer, parameter)
    master = master_weights(optimizer).get(parameter.name)
    if state == MASTER:
        return master
    return accumulators(optimizer).get(state, {}).get((parameter if master is None else master).name)


def _share(whole: np.ndarray, own: Updated, tensor: paddle.Tensor) -> np.ndarray | None:
    """Cut out of a state that the files hold whole what this rank keeps of it, if it fits; zeros follow its end."""
    if own.start is None or whole.size != own.size:
        return whole.reshape(tensor.shape) if whole.size == tensor.size else None
    piece = whole.reshape(-1)[own.start : own.start + tensor.size]
    return np.pad(piece, (0, tensor.size - piece.size))


def _named_states(optimizer: Any, model: nn.Layer) -> Iterator[tuple[str, np.ndarray]]:
    keys = {own.tensor.name: (name, own) for name, own in updated_here(optimizer, model).items()}
    masters, skips_whole = master_weights(optimizer), holds_copies(optimizer)
    for paddles_name, master in masters.items():
        keys[master.name] = keys[paddles_name]
    for state, tensors in {MASTER: masters, **accumulators(optimizer)}.items():
        for paddles_name, tensor in tensors.items():
            name, own = keys[paddles_name]
            if own.start is not None and tensor.shape == own.tensor.shape:
                yield f"{name}/{state}@{own.start}", _array(tensor)[: max(own.size - own.start, 0)]
            elif not skips_whole:
                yield f"{name}/{state}", _array(gather_whole(tensor, own.tensor))


def _shards(states: Iterator[tuple[str, np.ndarray]]) -> Iterator[dict[str, np.ndarray]]:
    """Group states into files of bounded size, so that no second copy of all of them is in memory."""
    shard: dict[str, np.ndarray] = {}
    size = 0
    for name, array in states:
        if shard and size + array.nbytes > MAX_BYTES:
            yield shard
            shard, size = {}, 0
        shard[name] = array
        size += array.nbytes
    yield shard


def _array(tensor: paddle.Tensor) -> np.ndarray:
    array = tensor.numpy()
    # numpy sees Paddle's bfloat16 as bare uint16
    return array.view(ml_dtypes.bfloat16) if tensor.dtype == paddle.bfloat16 else array


def _set_value(state: paddle.Tensor, array: np.ndarray) -> None:
    is_bfloat16 = array.dtype == ml_dtypes.bfloat16
    state.set_value(paddle.to_tensor(array.astype(np.float32)).astype("bfloat16") if is_bfloat16 else array)
