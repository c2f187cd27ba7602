"""The files come from `make_torch_files.py`, but for those that no PyTorch would write."""

from __future__ import annotations

import os
import pickle
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

from paddlemix.models.qwen2_vl import Qwen2VLForConditionalGeneration
from paddlemix.weights.torch_file import read_torch_file

FILES = Path(__file__).parents[1] / "fixtures" / "torch_files"


def values(stored):
    target = np.empty(stored.matrix_shape, np.float64)
    stored.read_into(target)
    return target.reshape(stored.shape)


def rewrite(folder, name, change):
    """Copy tensors.bin with its entry `name` changed."""
    with zipfile.ZipFile(FILES / "tensors.bin") as old, zipfile.ZipFile(folder / "new.bin", "w") as new:
        assert f"tensors/{name}" in old.namelist()
        for entry in old.namelist():
            new.writestr(entry, change(old.read(entry)) if entry == f"tensors/{name}" else old.read(entry))
    return folder / "new.bin"


def test_every_kind_of_tensor_has_its_shape_dtype_and_numbers():
    found = {stored.name: stored for stored in read_torch_file(FILES / "tensors.bin")}
    assert {name: (stored.dtype, stored.shape) for name, stored in found.items()} == {
        "float64": ("float64", (2, 3)),
        "float32": ("float32", (3, 2, 2)),
        "float16": ("float16", (5,)),
        "bfloat16": ("bfloat16", (120, 2)),
        "scalar": ("float32", ()),
        "rows_2_to_4": ("float32", (2, 2)),
        "parameter": ("float32", (2, 2)),
        "single_column": ("float32", (4, 1)),
    }
    for name, stored in found.items():
        first = 4 if name == "rows_2_to_4" else 0
        wanted = (np.arange(first, first + np.prod(stored.shape, dtype=int)) / 4).reshape(stored.shape)
        np.testing.assert_array_equal(values(stored), wanted, err_msg=name)


def test_a_matrix_that_was_transposed_before_it_was_saved_has_its_shape_and_numbers():
    [stored] = read_torch_file(FILES / "transposed.bin")
    assert stored.shape == (3, 2)
    np.testing.assert_array_equal(values(stored), (np.arange(6) / 4).reshape(2, 3).T)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("legacy.bin", r"legacy\.bin: damaged or cut off, or in a format from before PyTorch 1\.6; load it with"),
        ("strided.bin", "weight does not lie row by row; load it"),
        ("integers.bin", r"holds torch\.LongStorage; expected floating-point numbers"),
        ("training.bin", "holds more than a model's tensors"),
        ("module.bin", r"holds more than tensors \(pickle instruction"),
    ],
)
def test_other_files_of_pytorch_are_refused_with_what_to_do(name, said):
    with pytest.raises(ValueError, match=said):
        read_torch_file(FILES / name)


def test_shards_load_into_a_model_as_its_safetensors_do(tmp_path):
    pickled = shutil.copytree(FILES / "model", tmp_path / "model")
    (pickled / "model.safetensors").unlink()
    assert len(list(pickled.glob("pytorch_model-*.bin"))) == 2
    found = Qwen2VLForConditionalGeneration.from_pretrained(pickled).state_dict()
    wanted = Qwen2VLForConditionalGeneration.from_pretrained(FILES / "model").state_dict()
    assert len(wanted) > 20 and list(found) == list(wanted)
    for name, tensor in wanted.items():
        np.testing.assert_array_equal(found[name].numpy(), tensor.numpy(), err_msg=name)


def test_a_file_that_runs_a_command_is_refused_and_runs_nothing(tmp_path):
    class Runs:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'marker'}",)

    file = rewrite(tmp_path, "data.pkl", lambda _: pickle.dumps({"weight": Runs()}, 2))
    with pytest.raises(ValueError, match=r"new\.bin: asks to call posix\.system, which is never done"):
        read_torch_file(file)
    assert not (tmp_path / "marker").exists()


def test_a_tensor_that_would_end_behind_its_storage_is_refused(tmp_path):
    for name in ("data/0", "data/3"):
        with pytest.raises(ValueError, match=r"new\.bin: damaged"):
            read_torch_file(rewrite(tmp_path, name, lambda content: content[:-1]))


def test_strides_that_are_not_one_for_each_axis_are_refused(tmp_path):
    def one_more_axis(content):
        # float64 has the shape (2, 3): BININT1 2, BININT1 3, TUPLE2.
        assert b"K\x02K\x03\x86" in content
        return content.replace(b"K\x02K\x03\x86", b"K\x02K\x03K\x01\x87", 1)

    with pytest.raises(ValueError, match=r"new\.bin: damaged"):
        read_torch_file(rewrite(tmp_path, "data.pkl", one_more_axis))


def test_numbers_of_a_big_endian_machine_are_refused(tmp_path):
    with pytest.raises(ValueError, match="big-endian"):
        read_torch_file(rewrite(tmp_path, "byteorder", lambda _: b"big"))


def test_compressed_numbers_are_refused(tmp_path):
    with zipfile.ZipFile(FILES / "tensors.bin") as old, zipfile.ZipFile(tmp_path / "new.bin", "w") as new:
        for entry in old.namelist():
            new.writestr(entry, old.read(entry), zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match="compressed"):
        read_torch_file(tmp_path / "new.bin")


def test_wherever_it_is_cut_off_the_file_is_named(tmp_path):
    content = (FILES / "tensors.bin").read_bytes()
    for kept in [0, 1, 30, 500, len(content) // 2, len(content) - 1]:
        (tmp_path / "cut.bin").write_bytes(content[:kept])
        with pytest.raises(ValueError, match=r"cut\.bin: damaged or cut off"):
            read_torch_file(tmp_path / "cut.bin")


def test_a_zip_file_of_something_else_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "new.bin", "w") as new:
        new.writestr("readme.txt", "no tensors")
    with pytest.raises(ValueError, match=r"new\.bin: damaged"):
        read_torch_file(tmp_path / "new.bin")
