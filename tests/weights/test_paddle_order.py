"""Files whose matrices lie as Paddle keeps them, [in, out]: their format says so, never their shapes."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from paddlemix.auto import AutoModelMIX


def state_of(model):
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


def save(folder, base, tensors, metadata):
    shutil.copy(base / "config.json", folder)
    tensors = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    save_file(tensors, folder / "model.safetensors", metadata)


def test_what_paddlenlp_saved_is_read_in_its_own_order_square_matrices_too(tiny_checkpoint, tmp_path):
    model = AutoModelMIX.from_pretrained(tiny_checkpoint)
    save(tmp_path, tiny_checkpoint, state_of(model), {"format": "np"})
    found, wanted = state_of(AutoModelMIX.from_pretrained(tmp_path)), state_of(model)
    square = [name for name, array in wanted.items() if array.ndim == 2 and array.shape[0] == array.shape[1]]
    assert len(square) > 3 and not np.array_equal(wanted[square[0]], wanted[square[0]].T)
    for name, array in wanted.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_the_bits_of_bfloat16_that_paddlenlp_saved_are_numbers_again(tiny_checkpoint, tmp_path):
    model = AutoModelMIX.from_pretrained(tiny_checkpoint)
    tensors = {name: tensor.astype("bfloat16").numpy() for name, tensor in model.state_dict().items()}
    assert {array.dtype for array in tensors.values()} == {np.dtype("uint16")}
    save(tmp_path, tiny_checkpoint, tensors, {"format": "np"})
    found = state_of(AutoModelMIX.from_pretrained(tmp_path))
    for name, tensor in model.state_dict().items():
        np.testing.assert_array_equal(found[name], tensor.astype("bfloat16").astype("float32").numpy(), err_msg=name)


@pytest.mark.parametrize(("word", "order", "flag"), [("np", "Paddle's", "torch"), (None, "PyTorch's", "paddle")])
def test_a_format_that_contradicts_the_shapes_is_asked_about_and_not_guessed(
    tiny_checkpoint, tmp_path, word, order, flag
):
    in_paddles = state_of(AutoModelMIX.from_pretrained(tiny_checkpoint))
    tensors = load_file(tiny_checkpoint / "model.safetensors") if flag == "torch" else in_paddles
    save(tmp_path, tiny_checkpoint, tensors, {"format": word} if word else None)
    with pytest.raises(ValueError, match=rf"is read in {order} order, .* --output out --order {flag}$"):
        AutoModelMIX.from_pretrained(tmp_path)


def test_one_matrix_of_a_wrong_shape_does_not_speak_for_the_whole_file(tiny_checkpoint, tmp_path):
    tensors = load_file(tiny_checkpoint / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    save(tmp_path, tiny_checkpoint, {**tensors, name: tensors[name].T}, {"format": "pt"})
    with pytest.raises(ValueError, match="1 tensor does not fit") as caught:
        AutoModelMIX.from_pretrained(tmp_path)
    assert "--order" not in str(caught.value)


@pytest.mark.parametrize("tower", ["visual.vit.", "visual."])
def test_paddlemix_names_of_qwen_vl_are_known(tiny_qwen_vl, tmp_path, paddlemix_names, tower):
    model = AutoModelMIX.from_pretrained(tiny_qwen_vl)
    wanted = state_of(model)
    save(tmp_path, tiny_qwen_vl, paddlemix_names(wanted, tower), {"format": "np"})
    assert "transformer.llm.h.0.attn.c_attn.weight" in load_file(tmp_path / "model.safetensors")
    found = state_of(AutoModelMIX.from_pretrained(tmp_path))
    for name, array in wanted.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)
