"""An optimizer goes on where it was, whatever numbers Paddle gave the layers."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import paddle
import pytest
from paddle import nn
from safetensors.numpy import save_file

from paddlemix.checkpoints import optimizer_state
from paddlemix.checkpoints.optimizer_state import load_optimizer, save_optimizer
from paddlemix.checkpoints.stored_states import StoredStates


class Two(nn.Layer):
    def __init__(self) -> None:
        super().__init__()
        self.early, self.late = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x: paddle.Tensor, *, both: bool) -> paddle.Tensor:
        return self.late(self.early(x)) if both else self.early(x)


def built(weights: dict[str, paddle.Tensor] | None = None) -> tuple[Two, paddle.optimizer.AdamW]:
    model = Two()
    if weights:
        model.set_state_dict(weights)
    return model, paddle.optimizer.AdamW(learning_rate=0.1, parameters=model.parameters())


def copied(model: Two) -> dict[str, paddle.Tensor]:
    return {name: paddle.to_tensor(value.numpy()) for name, value in model.state_dict().items()}


def step(model: Two, optimizer: paddle.optimizer.AdamW, *, both: bool = True) -> None:
    model(paddle.arange(6, dtype="float32").reshape([2, 3]), both=both).square().mean().backward()
    optimizer.step()
    optimizer.clear_grad()


def values(model: Two) -> np.ndarray:
    return np.concatenate([parameter.numpy().ravel() for parameter in model.parameters()])


@pytest.mark.parametrize("both", [True, False], ids=["all have a state", "some get theirs after the resume"])
def test_a_model_of_other_layer_numbers_takes_the_same_steps(tmp_path: Path, both: bool) -> None:
    model, optimizer = built()
    for _ in range(3):
        step(model, optimizer, both=both)
    save_optimizer(optimizer, model, tmp_path)
    weights = copied(model)
    nn.Linear(2, 2)
    other, its_optimizer = built(weights)
    assert [p.name for p in other.parameters()] != [p.name for p in model.parameters()]
    load_optimizer(its_optimizer, other, tmp_path)
    for _ in range(2):
        step(model, optimizer)
        step(other, its_optimizer)
    assert values(other).tobytes() == values(model).tobytes()
    fresh, fresh_optimizer = built(weights)
    step(fresh, fresh_optimizer)
    step(fresh, fresh_optimizer)
    assert values(fresh).tobytes() != values(model).tobytes()


def test_master_weights_of_a_half_precision_model_come_back(tmp_path: Path) -> None:
    def half() -> tuple[Two, paddle.optimizer.AdamW]:
        model = Two()
        model.to(dtype="bfloat16")
        return model, paddle.optimizer.AdamW(0.1, parameters=model.parameters(), multi_precision=True)

    model, optimizer = half()
    # No step: Paddle's CPU build has no kernel for it.
    optimizer._create_accumulators(paddle.base.framework.default_main_program().global_block(), model.parameters())
    master = optimizer._master_weights[model.late.weight.name]
    moment = optimizer._accumulators["moment1"][master.name]
    for tensor in (master, moment):
        tensor.set_value(paddle.rand(tensor.shape))
    save_optimizer(optimizer, model, tmp_path)
    other, its_optimizer = half()
    load_optimizer(its_optimizer, other, tmp_path)
    its_master = its_optimizer._master_weights[other.late.weight.name]
    assert its_master.name != master.name and its_master.dtype == paddle.float32
    assert np.array_equal(its_master.numpy(), master.numpy())
    assert np.array_equal(its_optimizer._accumulators["moment1"][its_master.name].numpy(), moment.numpy())


def test_states_are_cut_into_files_and_read_from_all_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimizer_state, "MAX_BYTES", 50)
    model, optimizer = built()
    step(model, optimizer)
    save_optimizer(optimizer, model, tmp_path, rank=1)
    assert len(list(tmp_path.glob("optimizer-00001-*.safetensors"))) > 3
    other, its_optimizer = built(copied(model))
    load_optimizer(its_optimizer, other, tmp_path)
    step(model, optimizer)
    step(other, its_optimizer)
    assert values(other).tobytes() == values(model).tobytes()


def test_a_state_of_a_parameter_that_is_frozen_now_is_refused(tmp_path: Path) -> None:
    model, optimizer = built()
    step(model, optimizer)
    save_optimizer(optimizer, model, tmp_path)
    other, its_optimizer = built()
    other.late.weight.stop_gradient = True
    with pytest.raises(ValueError, match=r"late\.weight was trained, but is not now"):
        load_optimizer(its_optimizer, other, tmp_path)


def test_a_checkpoint_without_an_optimizer_is_refused(tmp_path: Path) -> None:
    model, optimizer = built()
    with pytest.raises(ValueError, match=r"no state of an optimizer.*`ignore_load_lr_and_optim`"):
        load_optimizer(optimizer, model, tmp_path)


@pytest.mark.parametrize(
    ("key", "array", "said"),
    [
        (
            "late.weight/invented",
            np.zeros([1], np.float32),
            "holds invented of late.weight, which",
        ),
        ("late.weight/moment1", np.zeros([7], np.float32), r"moment1 of late.weight has 7 numbers, expected"),
        ("late.weight/moment1", None, r"moment1 of late.weight is float64\[.*\], expected paddle.float32"),
    ],
)
def test_a_state_that_is_not_this_optimizers_is_refused(
    tmp_path: Path, key: str, array: np.ndarray | None, said: str
) -> None:
    model, optimizer = built()
    step(model, optimizer)
    save_optimizer(optimizer, model, tmp_path)
    shape = model.late.weight.shape
    assert StoredStates(tmp_path).read("late.weight", "moment1").shape == tuple(shape)
    for file in tmp_path.glob("optimizer-*"):
        file.unlink()
    save_file({key: np.zeros(shape) if array is None else array}, tmp_path / "optimizer-00000-00000.safetensors")
    other, its_optimizer = built()
    with pytest.raises(ValueError, match=said):
        load_optimizer(its_optimizer, other, tmp_path)


def test_a_sparse_file_of_terabytes_is_refused_before_memory_is_taken(tmp_path: Path) -> None:
    model, optimizer = built()
    header = b'{"late.weight/moment1":{"dtype":"F32","shape":[%d],"data_offsets":[0,%d]}}' % (1 << 40, 1 << 42)
    file = tmp_path / "optimizer-00000-00000.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header)
    os.truncate(file, file.stat().st_size + (1 << 42))
    with pytest.raises(ValueError, match="late.weight has 1099511627776 numbers, expected"):
        load_optimizer(optimizer, model, tmp_path)
