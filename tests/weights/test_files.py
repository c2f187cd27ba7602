from __future__ import annotations

import json

import numpy as np
import paddle
import pytest
from safetensors.numpy import save_file

from paddlemix.weights.files import INDEX_FILE, WEIGHTS_FILE, stored_tensors


def save_index(folder, *names, index=INDEX_FILE):
    (folder / index).write_text(json.dumps({"weight_map": {f"tensor {name}": name for name in names}}))


def test_tensors_come_in_the_order_in_which_they_lie(tmp_path):
    for file in ("b", "a"):
        save_file({f"{file}{number}": np.zeros([number]) for number in (5, 1, 3)}, tmp_path / f"{file}.safetensors")
    save_index(tmp_path, "b.safetensors", "a.safetensors")
    found = stored_tensors(tmp_path)
    assert len(found) == 6
    places = [(tensor.file.name, tensor.offset) for tensor in found]
    assert places == sorted(places) and {name for name, _ in places} == {"a.safetensors", "b.safetensors"}


def test_safetensors_are_read_where_other_formats_lie_beside_them(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"not even a zip file")
    paddle.save({"paddle": paddle.ones([2])}, str(tmp_path / "model_state.pdparams"))
    with pytest.raises(ValueError, match=r"pytorch_model\.bin"):
        stored_tensors(tmp_path)
    (tmp_path / "pytorch_model.bin").unlink()
    assert [tensor.name for tensor in stored_tensors(tmp_path)] == ["paddle"]
    save_file({"safe": np.zeros([2])}, tmp_path / WEIGHTS_FILE)
    assert [tensor.name for tensor in stored_tensors(tmp_path)] == ["safe"]


def test_the_one_file_is_read_where_shards_of_another_time_lie_beside_it(tmp_path):
    for file in (WEIGHTS_FILE, "old.safetensors"):
        save_file({file: np.zeros([1])}, tmp_path / file)
    save_index(tmp_path, "old.safetensors")
    assert [tensor.name for tensor in stored_tensors(tmp_path)] == [WEIGHTS_FILE]


@pytest.mark.parametrize("name", ["../x.safetensors", "/etc/passwd", "sub/x.safetensors", "..", ".", "", "a" * 256])
def test_an_index_that_names_a_file_outside_of_the_folder_is_refused(tmp_path, name):
    folder = tmp_path / "model"
    folder.mkdir()
    save_file({"a": np.zeros([2])}, tmp_path / "x.safetensors")
    save_index(folder, name)
    with pytest.raises(ValueError, match=r"index\.json: names .*, which is no file of this folder"):
        stored_tensors(folder)


@pytest.mark.parametrize("index", [INDEX_FILE, "pytorch_model.bin.index.json", "model_state.pdparams.index.json"])
def test_a_shard_that_is_a_folder_or_missing_is_named(tmp_path, index):
    save_index(tmp_path, "shard", index=index)
    with pytest.raises(FileNotFoundError, match="no shard;"):
        stored_tensors(tmp_path)
    (tmp_path / "shard").mkdir()
    with pytest.raises(ValueError, match="shard: a folder stands where a file with weights was expected"):
        stored_tensors(tmp_path)


@pytest.mark.parametrize("name", [WEIGHTS_FILE, "pytorch_model.bin", "model_state.pdparams"])
def test_a_file_of_zero_bytes_is_named(tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(ValueError, match=rf"{name}: (damaged or )?cut off|{name}: damaged or cut off"):
        stored_tensors(tmp_path)


def test_a_link_to_a_file_elsewhere_is_followed_as_the_hubs_cache_needs(tmp_path):
    save_file({"a": np.zeros([2])}, tmp_path / "blob")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / WEIGHTS_FILE).symlink_to(tmp_path / "blob")
    assert [tensor.name for tensor in stored_tensors(tmp_path / "model")] == ["a"]


@pytest.mark.parametrize(
    ("metadata", "is_paddles"),
    [({"format": "np"}, True), ({"format": "pd"}, True), ({"format": "pt"}, False), (None, False)],
)
def test_the_word_in_the_file_decides_about_the_order_of_axes(tmp_path, metadata, is_paddles):
    save_file({"square": np.zeros([2, 2])}, tmp_path / WEIGHTS_FILE, metadata)
    assert [tensor.in_paddles_order for tensor in stored_tensors(tmp_path)] == [is_paddles]


def test_unsigned_integers_are_bfloat16_only_where_paddle_wrote_them(tmp_path):
    numbers = paddle.to_tensor([1.5, -2.0]).astype("bfloat16").numpy()
    for word, dtype in (("np", "bfloat16"), ("pt", "uint16")):
        save_file({"weight": numbers}, tmp_path / WEIGHTS_FILE, {"format": word})
        [stored] = stored_tensors(tmp_path)
        assert stored.dtype == dtype
        target = np.empty(stored.matrix_shape, np.float32)
        stored.read_into(target)
        assert target.tolist() == ([[1.5, -2.0]] if word == "np" else [numbers.tolist()])
