from __future__ import annotations

import json
import os
import pickle
import shutil
import sys

import numpy as np
import paddle
import pytest
from paddlenlp.trainer.unified_checkpoint.load_save_single_card import save_single_card_checkpoint
from safetensors.numpy import load_file, save_file

from paddlemix.auto import AutoModelMIX
from paddlemix.peft.lora_model import MixLoRAModel
from paddlemix.tools import merge_lora_params

from ..families import each_family

SETTINGS = [{}, {"rslora": True, "lora_alpha": 3}, {"lora_plus_scale": 16.0, "lora_alpha": 5}, {"use_quick_lora": True}]
FILE = "lora_model_state.pdparams"


def change_config(folder, **values):
    path = folder / "lora_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **values}), "utf-8")


@pytest.fixture
def saved(tiny_checkpoint, paddlenlps_adapter, tmp_path):
    """A folder that PaddleNLP saved for the tiny Qwen2-VL."""
    paddlenlps_adapter(tiny_checkpoint).save_pretrained(str(tmp_path / "adapter"))
    return tmp_path / "adapter"


@each_family
@pytest.mark.parametrize("settings", SETTINGS, ids=["plain", "rslora", "lora_plus", "quick"])
def test_the_converted_adapter_computes_what_paddlenlps_did(
    case, settings, request, paddlenlps_adapter, probe, convert, tmp_path
):
    base = case.folder(request)
    theirs = paddlenlps_adapter(base, **settings)
    theirs.save_pretrained(str(tmp_path / "adapter"))
    wanted = probe(theirs, base)
    found = AutoModelMIX.from_pretrained(base, lora_path=convert(tmp_path / "adapter"))
    assert isinstance(found, MixLoRAModel)
    np.testing.assert_allclose(probe(found, base), wanted, atol=2e-4)
    assert np.abs(probe(AutoModelMIX.from_pretrained(base), base) - wanted).max() > 0.05


def test_the_adapters_folder_is_pefts(saved, tiny_checkpoint, convert):
    folder = convert(saved)
    config = json.loads((folder / "adapter_config.json").read_text("utf-8"))
    assert (config["r"], config["lora_alpha"], config["base_model_name_or_path"]) == (4, 8, str(tiny_checkpoint))
    assert sorted(config["target_modules"]) == [
        "down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj",
    ]  # fmt: skip
    begin = "base_model.model.model.language_model.layers.1.mlp.up_proj"
    stored, theirs = load_file(folder / "adapter_model.safetensors"), paddle.load(str(saved / FILE))
    for factor in ("lora_A", "lora_B"):
        array = theirs[f"model.layers.1.mlp.up_proj.{factor}"].numpy()
        np.testing.assert_array_equal(stored[f"{begin}.{factor}.weight"], array.T)


def test_half_precision_stays_and_a_flag_changes_it(tiny_checkpoint, paddlenlps_adapter, convert, tmp_path):
    theirs = paddlenlps_adapter(tiny_checkpoint, "bfloat16")
    theirs.save_pretrained(str(tmp_path / "adapter"))
    name = "model.layers.0.mlp.up_proj.lora_A"
    wanted = dict(theirs.model.named_parameters())[name].astype("float32").numpy()
    for words, kept in ([], "bfloat16"), (["--dtype", "float32"], "float32"):
        folder = convert(tmp_path / "adapter", *words, output=kept)
        stored = load_file(folder / "adapter_model.safetensors")
        stored = stored[f"base_model.model.{name.replace('model.', 'model.language_model.', 1)}.weight"]
        assert stored.dtype == kept
        np.testing.assert_array_equal(stored.astype(np.float32), wanted.T)


@each_family
def test_a_unified_checkpoints_adapter_is_converted(case, request, paddlenlps_adapter, probe, convert, tmp_path):
    base = case.folder(request)
    theirs = paddlenlps_adapter(base)
    save_single_card_checkpoint(theirs, str(tmp_path / "adapter"))
    theirs.lora_config.save_pretrained(str(tmp_path / "adapter"))
    assert (tmp_path / "adapter" / "peft_model-00001-of-00001.safetensors").is_file()
    found = AutoModelMIX.from_pretrained(base, lora_path=convert(tmp_path / "adapter"))
    np.testing.assert_allclose(probe(found, base), probe(theirs, base), atol=2e-4)


def test_safetensors_in_several_files_are_one_adapter(saved, convert):
    tensors = {name: tensor.numpy() for name, tensor in paddle.load(str(saved / FILE)).items()}
    wanted = load_file(convert(saved, output="whole") / "adapter_model.safetensors")
    (saved / FILE).unlink()
    names = list(tensors)
    for number, chosen in enumerate((names[::2], names[1::2]), 1):
        save_file(
            {name: tensors[name] for name in chosen}, saved / f"lora_model_state-{number:05d}-of-00002.safetensors"
        )
    found = load_file(convert(saved) / "adapter_model.safetensors")
    assert found.keys() == wanted.keys() and all(np.array_equal(found[name], wanted[name]) for name in wanted)
    (saved / "lora_model_state-00002-of-00002.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="part 2 of 2 is missing"):
        convert(saved, output="other")


def split_factors(theirs, degree=2):
    """Cut factors as PaddleNLP's layers hold them where ranks share each: columns of lora_B, rows of lora_A."""
    ranks = [{} for _ in range(degree)]
    for name, parameter in theirs.get_trainable_state_dict().items():
        layer, factor = name.split(".")[-2:]
        is_row = layer in ("o_proj", "down_proj", "c_proj")
        array = parameter.numpy()
        if factor == ("lora_A" if is_row else "lora_B"):
            axis, blocks = (0, 1) if is_row else (1, 3 if layer == "c_attn" else 1)
            # Each rank's c_attn gives its heads' queries, keys and values, and its lora_B is added to those.
            cut = [np.split(block, degree, axis) for block in np.split(array, blocks, axis)]
            pieces = [np.concatenate([block[rank] for block in cut], axis) for rank in range(degree)]
        else:
            pieces = [array] * degree
        for rank, piece in enumerate(pieces):
            ranks[rank][name] = paddle.to_tensor(np.ascontiguousarray(piece))
    return ranks


@each_family
def test_what_two_ranks_saved_of_an_adapter_is_put_together(
    case, request, paddlenlps_adapter, probe, convert, tmp_path
):
    base = case.folder(request)
    theirs = paddlenlps_adapter(base)
    folder = tmp_path / "adapter"
    theirs.save_pretrained(str(folder))
    (folder / FILE).unlink()
    for rank, tensors in enumerate(split_factors(theirs)):
        paddle.save(tensors, str(folder / f"lora_model_state.tp{rank:02d}.pdparams"))
    found = AutoModelMIX.from_pretrained(base, lora_path=convert(folder))
    np.testing.assert_allclose(probe(found, base), probe(theirs, base), atol=2e-4)
    (folder / "lora_model_state.tp00.pdparams").unlink()
    with pytest.raises(FileNotFoundError, match="a file of rank tp00 is missing"):
        convert(folder, output="other")
    (folder / "lora_model_state.tp01.pdparams").rename(folder / "lora_model_state.tp00.pdparams")
    with pytest.raises(ValueError, match="wrong shape"):
        convert(folder, output="other")


def test_layers_that_were_trained_themselves_are_modules_to_save(
    tiny_qwen_vl, paddlenlps_adapter, probe, convert, tmp_path
):
    theirs = paddlenlps_adapter(tiny_qwen_vl, trainable_modules=[".*wte.*", ".*lm_head.*"])
    theirs.save_pretrained(str(tmp_path / "adapter"))
    folder = convert(tmp_path / "adapter")
    config = json.loads((folder / "adapter_config.json").read_text("utf-8"))
    assert sorted(config["modules_to_save"]) == ["lm_head", "wte"]
    found = AutoModelMIX.from_pretrained(tiny_qwen_vl, lora_path=folder)
    np.testing.assert_allclose(probe(found, tiny_qwen_vl), probe(theirs, tiny_qwen_vl), atol=2e-4)


def test_paddlemix_names_of_qwen_vl_are_those_of_pefts_adapter(
    tiny_qwen_vl, paddlenlps_adapter, probe, convert, paddlemix_names, tmp_path
):
    theirs = paddlenlps_adapter(tiny_qwen_vl)
    theirs.save_pretrained(str(tmp_path / "adapter"))
    paddle.save(paddlemix_names(theirs.get_trainable_state_dict()), str(tmp_path / "adapter" / FILE))
    folder = convert(tmp_path / "adapter", "--base", tiny_qwen_vl)
    assert "base_model.model.transformer.h.0.attn.c_attn.lora_A.weight" in load_file(
        folder / "adapter_model.safetensors"
    )
    found = AutoModelMIX.from_pretrained(folder)
    np.testing.assert_allclose(probe(found, tiny_qwen_vl), probe(theirs, tiny_qwen_vl), atol=2e-4)


def test_an_adapter_of_lora_ga_takes_away_what_it_began_with(saved, tiny_checkpoint, convert, probe):
    """PaddleNLP stores A beside the first A, and B above the first B with the other sign."""
    rng = np.random.default_rng(1)
    tensors, wanted = {}, AutoModelMIX.from_pretrained(tiny_checkpoint)
    weights = dict(wanted.named_parameters())
    theirs = paddle.load(str(saved / FILE))
    for name in [name.removesuffix(".lora_A") for name in theirs if name.endswith("lora_A")]:
        down, up = (theirs[f"{name}.{factor}"].numpy() for factor in ("lora_A", "lora_B"))
        first_down, first_up = (rng.normal(size=one.shape).astype("float32") * 0.1 for one in (down, up))
        tensors[f"{name}.lora_A"] = paddle.to_tensor(np.concatenate([down, first_down], 1))
        tensors[f"{name}.lora_B"] = paddle.to_tensor(np.concatenate([up, -first_up], 0))
        weight = weights[f"{name}.weight"]
        weight.set_value(weight + 2.0 * paddle.to_tensor(down @ up - first_down @ first_up))
    paddle.save(tensors, str(saved / FILE))
    change_config(saved, loraga=True)
    found = AutoModelMIX.from_pretrained(tiny_checkpoint, lora_path=convert(saved))
    np.testing.assert_allclose(probe(found, tiny_checkpoint), probe(wanted, tiny_checkpoint), atol=2e-4)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"pissa": True, "scaling": 1.0}, "`pissa` starts from a part"),
        ({"use_mora": True}, "`use_mora` is another product"),
        ({"lora_use_mixer": True, "do_qat": True}, "`lora_use_mixer` has a third factor; `do_qat` rounds"),
        ({"trainable_bias": "lora"}, "`trainable_bias` trains biases"),
        ({"enable_lora_list": [[True, False, True]]}, "`enable_lora_list` has products"),
        ({"r": 0}, "`r` is 0; expected a number above 0"),
        ({"r": "4"}, '`r` is "4"; expected a number above 0'),
        ({"lora_alpha": None}, "`lora_alpha` is null; expected"),
        ({"lora_alpha": float("nan")}, "`lora_alpha` is nan; expected a finite number"),
        ({"lora_dropout": "a little"}, '`lora_dropout` is "a little"; expected'),
        ({"base_model_name_or_path": ["a"]}, '`base_model_name_or_path` is ["a"]; expected a text'),
        ({"scaling": 1.0}, "`scaling` is 1.0, but `lora_alpha` and `r` give 2"),
        ({"r": 8, "scaling": 1.0}, "wrong shape: model.layers.0.self_attn.q_proj.lora_A is"),
    ],
)
def test_what_pefts_form_cannot_say_is_refused_by_its_key(saved, convert, tmp_path, values, said):
    change_config(saved, **values)
    with pytest.raises(ValueError) as caught:
        convert(saved)
    assert said in str(caught.value) and not list(tmp_path.glob("*converted*"))


def test_all_that_does_not_fit_is_told_at_once(saved, convert, tmp_path):
    tensors = paddle.load(str(saved / FILE))
    del tensors["model.layers.0.mlp.up_proj.lora_B"]
    tensors["model.layers.0.mlp.down_proj.lora_A"] = paddle.ones([3, 4])
    tensors["model.layers.7.mlp.down_proj.lora_A"] = paddle.ones([3, 4])
    paddle.save(tensors, str(saved / FILE))
    with pytest.raises(ValueError, match="3 tensors do not fit") as caught:
        convert(saved)
    for said in (
        "missing: model.layers.0.mlp.up_proj.lora_B",
        "wrong shape: model.layers.0.mlp.down_proj.lora_A is [3, 4], the config asks for [64, 4]",
        "unexpected: model.layers.7.mlp.down_proj.lora_A",
    ):
        assert said in str(caught.value)
    assert not list(tmp_path.glob("*converted*"))


def test_the_base_that_an_adapter_names_describes_it_where_it_holds_no_config(saved, tiny_checkpoint, convert):
    (saved / "config.json").unlink()
    assert isinstance(AutoModelMIX.from_pretrained(convert(saved)), MixLoRAModel)
    change_config(saved, base_model_name_or_path=None)
    with pytest.raises(FileNotFoundError, match="no config.json"):
        convert(saved, output="other")
    folder = convert(saved, "--base", tiny_checkpoint, output="told")
    assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == str(tiny_checkpoint)


def test_an_adapter_of_another_family_is_told(saved, tiny_qwen_vl, convert):
    with pytest.raises(ValueError, match="holds no lora_A and lora_B of a layer of the model .* as --base"):
        convert(saved, "--base", tiny_qwen_vl)


def test_a_pickle_that_runs_a_command_is_refused_and_runs_nothing(saved, convert, tmp_path):
    class Runs:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'marker'}",)

    tensors = {"model.layers.0.mlp.up_proj.lora_A": Runs()}
    (saved / FILE).write_bytes(pickle.dumps(tensors, 4))
    with pytest.raises(ValueError, match=r"lora_model_state\.pdparams: asks to call posix\.system"):
        convert(saved)
    assert not (tmp_path / "marker").exists() and not list(tmp_path.glob("*converted*"))


def test_weights_without_their_lora_config_are_not_guessed_about(saved, convert):
    (saved / "lora_config.json").unlink()
    with pytest.raises(FileNotFoundError, match="no lora_config.json, without which nothing says"):
        convert(saved)


def test_a_base_with_paddlemix_names_is_merged_into_published_ones(
    tiny_qwen_vl, paddlenlps_adapter, paddlemix_names, probe, convert, tmp_path, monkeypatch
):
    theirs = paddlenlps_adapter(tiny_qwen_vl)
    theirs.save_pretrained(str(tmp_path / "adapter"))
    base = shutil.copytree(tiny_qwen_vl, tmp_path / "base")
    state = AutoModelMIX.from_pretrained(tiny_qwen_vl).state_dict()
    tensors = {name: tensor.numpy() for name, tensor in paddlemix_names(state).items()}
    save_file(tensors, base / "model.safetensors", {"format": "np"})
    words = ["--model_name_or_path", base, "--lora_path", convert(tmp_path / "adapter"), "--device", "cpu"]
    given = map(str, [*words, "--merge_model_path", tmp_path / "merged"])
    monkeypatch.setattr(sys, "argv", ["merge_lora_params.py", *given])
    merge_lora_params.main()
    assert (
        load_file(tmp_path / "merged/model.safetensors").keys() == load_file(tiny_qwen_vl / "model.safetensors").keys()
    )
    found = AutoModelMIX.from_pretrained(tmp_path / "merged")
    np.testing.assert_allclose(probe(found, tiny_qwen_vl), probe(theirs, tiny_qwen_vl), atol=2e-4)
