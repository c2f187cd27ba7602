"""The optimizer's state on disk: safetensors, by the model's names of its parameters.

Paddle names a state after the numbers that its layer and it itself got when they were made, which another order of
making, or one more layer, changes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import paddle
from paddle import nn
from safetensors import safe_open
from safetensors.numpy import save_file

from paddlemix.files import replacing
from paddlemix.models.share import gather_whole, own_part

MASTER = "master_weight"
MAX_BYTES = 2 * 10**9


def save_optimizer(optimizer: Any, model: nn.Layer, folder: Path, *, rank: int = 0, is_writer: bool = True) -> None:
    """Write what this rank's optimizer keeps about parameters, as `<parameter>/<state>`.

    Ranks that share a model must all call it: states are written whole, and read again by any number of ranks.

    Args:
        optimizer: Paddle's, or a wrapper of it.
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
        with replacing(folder / f"optimizer-{rank:05d}-{number:05d}.safetensors") as staged:
            save_file(shard, staged)


def load_optimizer(optimizer: Any, model: nn.Layer, folder: Path) -> None:
    """Take over the states of all ranks' files that belong to this optimizer's parameters.

    Args:
        optimizer: that has made no step.
        model: whose parameters it updates.
        folder: of a checkpoint.

    Raises:
        ValueError: no file of an optimizer is there, or one of them is about a parameter that is not trained.
    """
    files = sorted(folder.glob("optimizer-*.safetensors"))
    if not files:
        raise ValueError(
            f"{folder} holds no state of an optimizer: it was saved with `ignore_save_lr_and_optim`. Set "
            "`ignore_load_lr_and_optim` to true to take its weights alone."
        )
    trained = {name: parameter for name, parameter in model.named_parameters() if not parameter.stop_gradient}
    for file in files:
        with safe_open(file, framework="numpy") as stored:
            for key in stored.keys():  # noqa: SIM118 - no mapping
                name, state = key.rsplit("/", 1)
                if name not in trained:
                    raise ValueError(f"{file}: {name} was trained, but is not now; freeze what was frozen then.")
                value = own_part(stored.get_tensor(key), trained[name])
                _set_value(_state_of(optimizer, trained[name], state), value)


def _state_of(optimizer: Any, parameter: paddle.Tensor, state: str) -> paddle.Tensor:
    """A state's own tensor, made if need be; a parameter that the file does not name makes its states when it moves."""
    optimizer._create_accumulators(paddle.base.framework.default_main_program().global_block(), [parameter])
    master = optimizer._master_weights.get(parameter.name)
    if state == MASTER:
        return master
    return optimizer._accumulators[state][(parameter if master is None else master).name]


def _named_states(optimizer: Any, model: nn.Layer) -> Iterator[tuple[str, paddle.Tensor]]:
    owners = {parameter.name: (name, parameter) for name, parameter in model.named_parameters()}
    for own, master in optimizer._master_weights.items():
        name, parameter = owners[master.name] = owners[own]
        yield f"{name}/{MASTER}", gather_whole(master, parameter)
    for state, tensors in optimizer._accumulators.items():
        for own, tensor in tensors.items():
            name, parameter = owners[own]
            yield f"{name}/{state}", gather_whole(tensor, parameter)


def _shards(states: Iterator[tuple[str, paddle.Tensor]]) -> Iterator[dict[str, np.ndarray]]:
    """Pieces of bounded size, so that no second copy of the whole state is in memory."""
    shard: dict[str, np.ndarray] = {}
    size = 0
    for name, tensor in states:
        array = _array(tensor)
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
