from __future__ import annotations

import os
import pickle
import shutil

import ml_dtypes
import numpy as np
import paddle
import pytest

from paddlemix.models.qwen2_vl import Qwen2VLForConditionalGeneration
from paddlemix.weights.paddle_file import read_paddle_file

NAME = "model_state.pdparams"


def values(stored):
    target = np.empty(stored.matrix_shape, np.float64)
    stored.read_into(target)
    return target.reshape(stored.shape)


def save(folder, contents):
    paddle.save(contents, str(folder / NAME))
    return folder / NAME


def counted(*shape):
    return (np.arange(np.prod(shape, dtype=int)) / 4).reshape(shape).astype(np.float32)


def test_tensors_and_arrays_of_every_dtype_have_their_shape_and_numbers(tmp_path):
    wanted = {"float64": counted(2, 3), "float32": counted(3, 2, 2), "float16": counted(5), "bfloat16": counted(120, 2)}
    contents = {name: paddle.to_tensor(array).astype(name) for name, array in wanted.items()}
    found = {
        stored.name: stored for stored in read_paddle_file(save(tmp_path, {**contents, "array": counted(70, 300)}))
    }
    assert {name: stored.dtype for name, stored in found.items()} == {
        **{name: name for name in wanted},
        "array": "float32",
    }
    for name, array in {**wanted, "array": counted(70, 300)}.items():
        assert found[name].in_paddles_order
        np.testing.assert_array_equal(values(found[name]), array, err_msg=name)


def test_a_matrix_that_numpy_transposed_before_it_was_saved_has_its_shape_and_numbers(tmp_path):
    wanted = counted(70, 300).T
    [stored] = read_paddle_file(save(tmp_path, {"weight": wanted}))
    assert stored.shape == (300, 70) and stored.by_columns
    np.testing.assert_array_equal(values(stored), wanted)
    part = np.empty([5, 3], np.float32)
    stored.read_into(part, rows=slice(200, 205), columns=slice(66, 69))
    np.testing.assert_array_equal(part, wanted[200:205, 66:69])


def test_arrays_of_ml_dtypes_bfloat16_are_read(tmp_path):
    [stored] = read_paddle_file(save(tmp_path, {"weight": counted(3, 2).astype(ml_dtypes.bfloat16)}))
    assert stored.dtype == "bfloat16"
    np.testing.assert_array_equal(values(stored), counted(3, 2))


def test_a_layers_state_dict_is_its_tensors(tmp_path):
    layer = paddle.nn.Linear(2, 3)
    found = {stored.name: values(stored) for stored in read_paddle_file(save(tmp_path, layer.state_dict()))}
    assert sorted(found) == ["bias", "weight"]
    np.testing.assert_array_equal(found["weight"], layer.weight.numpy())


def test_a_models_state_dict_loads_into_it(reference, model, tmp_path):
    shutil.copy(reference.folder / "config.json", tmp_path)
    save(tmp_path, model.state_dict())
    found = Qwen2VLForConditionalGeneration.from_pretrained(tmp_path).state_dict()
    assert len(found) > 50
    for name, tensor in model.state_dict().items():
        np.testing.assert_array_equal(found[name].numpy(), tensor.numpy(), err_msg=name)


def test_the_patch_embedding_may_lie_as_a_convolution(reference, model, tmp_path):
    shutil.copy(reference.folder / "config.json", tmp_path)
    name = "visual.patch_embed.proj.weight"
    weight = model.state_dict()[name].numpy()
    [kernel] = model.weight_layout(model.config).convolution_kernels.values()
    save(tmp_path, {**model.state_dict(), name: np.ascontiguousarray(weight.T).reshape(-1, *kernel)})
    found = Qwen2VLForConditionalGeneration.from_pretrained(tmp_path)
    np.testing.assert_array_equal(found.state_dict()[name].numpy(), weight)


def test_a_file_that_runs_a_command_is_refused_and_runs_nothing(tmp_path):
    class Runs:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'marker'}",)

    for protocol in (2, 4):
        (tmp_path / NAME).write_bytes(pickle.dumps({"weight": Runs()}, protocol))
        with pytest.raises(ValueError, match=r"model_state\.pdparams: asks to call posix\.system, which is never done"):
            read_paddle_file(tmp_path / NAME)
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize(
    ("contents", "said"),
    [
        ({"weight": counted(3).astype(ml_dtypes.float8_e4m3fn)}, "not of little-endian floating-point"),
        ({"weight": np.arange(3)}, "not of little-endian floating-point"),
        ({"weight": np.asfortranarray(counted(2, 3, 2))}, "neither row by row nor"),
        ({"weight": counted(3).astype(">f4")}, "little-endian"),
        ({"weight": np.array([{}, None])}, "not of little-endian floating-point"),
        ({"optimizer": {"weight": counted(3)}}, "optimizer is no tensor"),
        ({"step": 3}, "step is no tensor"),
        ([counted(3)], "holds no dict of tensors"),
        ({"weight": np.datetime64("2020-01-01")}, "asks to call"),
    ],
)
def test_what_is_no_dict_of_tensors_is_refused(tmp_path, contents, said):
    (tmp_path / NAME).write_bytes(pickle.dumps(contents, 4))
    with pytest.raises(ValueError, match=rf"model_state\.pdparams: .*{said}"):
        read_paddle_file(tmp_path / NAME)


def test_wherever_it_is_cut_off_the_file_is_named(tmp_path):
    content = save(tmp_path, {"weight": paddle.ones([3, 2]), "bias": paddle.ones([70_000])}).read_bytes()
    for kept in [0, 1, 30, 200, len(content) // 2, len(content) - 1]:
        (tmp_path / NAME).write_bytes(content[:kept])
        with pytest.raises(ValueError, match=r"model_state\.pdparams: (damaged or )?cut off"):
            read_paddle_file(tmp_path / NAME)
