from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import paddle
import pytest
from paddlenlp.trainer.unified_checkpoint.load_save_single_card import save_single_card_checkpoint
from paddlenlp.transformers import PretrainedModel
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from paddlemix.auto import AutoModelMIX, AutoProcessorMIX
from paddlemix.generation.ends import named_ends
from paddlemix.models.config_file import read_config

from ..families import each_family

# How PaddleNLP's own code saves a model.
WAYS = {
    "pdparams": {},
    "pdparams in shards": {"max_shard_size": "100KB"},
    "safetensors": {"safe_serialization": True},
    "safetensors in shards": {"safe_serialization": True, "max_shard_size": "100KB"},
}


def state_of(model):
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


def assert_same(found, wanted):
    assert len(wanted) > 20 and found.keys() == wanted.keys()
    for name, array in wanted.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def save_ranks(folder, ranks, base, suffix="tp{:02d}"):
    folder.mkdir()
    for rank, tensors in enumerate(ranks):
        contents = {name: paddle.to_tensor(array) for name, array in tensors.items()}
        paddle.save(contents, str(folder / f"model_state.{suffix.format(rank)}.pdparams"))
    shutil.copy(base / "config.json", folder)


@each_family
@pytest.mark.parametrize("way", WAYS)
def test_a_model_that_paddlenlp_saved_is_read_as_it_is_and_converted(case, way, request, convert, tmp_path):
    base = case.folder(request)
    model = AutoModelMIX.from_pretrained(base)
    wanted = state_of(model)
    PretrainedModel.save_pretrained(model, str(tmp_path / "theirs"), **WAYS[way])
    assert len(list((tmp_path / "theirs").glob("model*-of-*"))) > 2 or "shards" not in way
    assert_same(state_of(AutoModelMIX.from_pretrained(tmp_path / "theirs")), wanted)
    folder = convert(tmp_path / "theirs")
    assert_same(state_of(AutoModelMIX.from_pretrained(folder)), wanted)
    published, found = load_file(base / "model.safetensors"), load_file(folder / "model.safetensors")
    assert_same(found, published)
    with safe_open(folder / "model.safetensors", "np") as opened:
        assert opened.metadata() == {"format": "pt"}


@each_family
def test_a_unified_checkpoint_is_read_as_it_is_and_converted(case, request, convert, probe, tmp_path):
    base = case.folder(request)
    model = AutoModelMIX.from_pretrained(base)
    save_single_card_checkpoint(model, str(tmp_path / "theirs"))
    assert (tmp_path / "theirs" / "model-00001-of-00001.safetensors").is_file()
    wanted = probe(model, base)
    np.testing.assert_array_equal(probe(AutoModelMIX.from_pretrained(tmp_path / "theirs"), base), wanted)
    # As training leaves them: weights in half precision beside the optimizer's.
    save_file({"x/moment1_0": np.zeros(2)}, tmp_path / "theirs" / "optimizer-00001-of-00001.safetensors")
    folder = convert(tmp_path / "theirs", "--base", base)
    np.testing.assert_array_equal(probe(AutoModelMIX.from_pretrained(folder), base), wanted)
    assert AutoProcessorMIX.from_pretrained(folder).tokenizer.settings


def test_master_weights_alone_are_a_model(tiny_checkpoint, convert, tmp_path):
    model = AutoModelMIX.from_pretrained(tiny_checkpoint)
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    # Without a word on their order: their name is enough.
    save_file(state_of(model), theirs / "master_weights-00001-of-00001.safetensors")
    shutil.copy(tiny_checkpoint / "config.json", theirs)
    with pytest.raises(
        FileNotFoundError, match=r"master_weights-.* is a part of the weights: .*convert_checkpoint\.py"
    ):
        AutoModelMIX.from_pretrained(theirs)
    assert_same(state_of(AutoModelMIX.from_pretrained(convert(theirs))), state_of(model))


@each_family
def test_what_two_ranks_saved_of_a_model_is_put_together(
    case, request, convert, probe, split_over_two, paddlemix_names, tmp_path
):
    base = case.folder_for_two(request, tmp_path / "base")
    model = AutoModelMIX.from_pretrained(base)
    tensors = state_of(model)
    if case.model_type == "qwen":
        tensors = paddlemix_names(tensors)
    ranks = split_over_two(model.config, tensors)
    cut = [name for name in tensors if ranks[0][name].shape != tensors[name].shape]
    assert len(cut) > 10 and any("c_attn" in name or "k_proj.bias" in name for name in cut)
    save_ranks(tmp_path / "theirs", ranks, base)
    with pytest.raises(FileNotFoundError, match=r"tp00\.pdparams in it is a part of the weights"):
        AutoModelMIX.from_pretrained(tmp_path / "theirs")
    folder = convert(tmp_path / "theirs")
    assert_same(state_of(AutoModelMIX.from_pretrained(folder)), state_of(model))
    np.testing.assert_array_equal(probe(AutoModelMIX.from_pretrained(folder), base), probe(model, base))


def test_stages_of_a_pipeline_are_put_together(tiny_checkpoint, convert, tmp_path):
    tensors = state_of(AutoModelMIX.from_pretrained(tiny_checkpoint))
    shared = "model.embed_tokens.weight"  # in the first stage, and in the last for the tied head
    stages = [{name: array for name, array in tensors.items() if ("layers.1." in name) == one} for one in (False, True)]
    stages[1][shared] = tensors[shared]
    save_ranks(tmp_path / "theirs", stages, tiny_checkpoint, suffix="pp{:02d}")
    assert_same(state_of(AutoModelMIX.from_pretrained(convert(tmp_path / "theirs"))), tensors)


def test_a_rank_or_a_shard_that_is_missing_is_named(tiny_checkpoint, convert, split_over_two, tmp_path):
    model = AutoModelMIX.from_pretrained(tiny_checkpoint)
    PretrainedModel.save_pretrained(model, str(tmp_path / "shards"), max_shard_size="100KB")
    [gone] = (tmp_path / "shards").glob("model_state-00002-*")
    gone.unlink()
    with pytest.raises(FileNotFoundError, match=r"part 2 of \d+ is missing beside model_state-00001"):
        convert(tmp_path / "shards")
    ranks = split_over_two(model.config, state_of(model))
    save_ranks(tmp_path / "ranks", [*ranks, ranks[0]], tiny_checkpoint)
    (tmp_path / "ranks" / "model_state.tp01.pdparams").unlink()
    with pytest.raises(FileNotFoundError, match="a file of rank tp01 is missing"):
        convert(tmp_path / "ranks")
    (tmp_path / "ranks" / "model_state.tp02.pdparams").unlink()
    with pytest.raises(
        ValueError, match=r"wrong shape: model.layers.0.mlp.down_proj.weight is \[32, 32\], .* \[64, 32\]"
    ):
        convert(tmp_path / "ranks")
    assert not list(tmp_path.glob("*converted*"))


def test_all_that_does_not_fit_is_told_at_once_and_nothing_is_written(tiny_checkpoint, convert, tmp_path):
    tensors = state_of(AutoModelMIX.from_pretrained(tiny_checkpoint))
    del tensors["model.norm.weight"]
    tensors["model.layers.0.mlp.up_proj.weight"] = np.zeros([3, 5], np.float32)
    tensors["model.layers.9.mlp.up_proj.weight"] = np.zeros([3, 5], np.float32)
    save_ranks(tmp_path / "theirs", [tensors], tiny_checkpoint)
    with pytest.raises(ValueError, match="3 tensors do not fit") as caught:
        convert(tmp_path / "theirs")
    for said in ("missing: model.norm.weight", "wrong shape: model.layers.0.mlp.up", "unexpected: model.layers.9.mlp"):
        assert said in str(caught.value)
    assert not list(tmp_path.glob("*converted*"))


@pytest.mark.parametrize(("word", "order"), [("np", "torch"), (None, "paddle")])
def test_a_flag_decides_where_the_files_word_is_wrong(tiny_checkpoint, convert, tmp_path, word, order):
    published = load_file(tiny_checkpoint / "model.safetensors")
    wanted = state_of(AutoModelMIX.from_pretrained(tiny_checkpoint))
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    shutil.copy(tiny_checkpoint / "config.json", theirs)
    save_file(
        published if order == "torch" else wanted, theirs / "model.safetensors", {"format": word} if word else None
    )
    with pytest.raises(ValueError, match=f"--order {order}"):
        convert(theirs)
    assert_same(state_of(AutoModelMIX.from_pretrained(convert(theirs, "--order", order))), wanted)


def test_published_shards_without_their_index_are_put_together(tiny_checkpoint, convert, tmp_path):
    published = load_file(tiny_checkpoint / "model.safetensors")
    theirs, names = tmp_path / "theirs", list(published)
    theirs.mkdir()
    shutil.copy(tiny_checkpoint / "config.json", theirs)
    for number, chosen in enumerate((names[::2], names[1::2]), 1):
        tensors = {name: published[name] for name in chosen}
        save_file(tensors, theirs / f"model-{number:05d}-of-00002.safetensors", {"format": "pt"})
    with pytest.raises(FileNotFoundError, match=r"whose index was not fetched. Put them together"):
        AutoModelMIX.from_pretrained(theirs)
    assert_same(load_file(convert(theirs) / "model.safetensors"), published)


def test_bfloat16_stays_and_a_flag_changes_it(tiny_checkpoint, convert, tmp_path):
    model = AutoModelMIX.from_pretrained(tiny_checkpoint, dtype="bfloat16")
    wanted = {name: tensor.astype("float32").numpy() for name, tensor in model.state_dict().items()}
    PretrainedModel.save_pretrained(model, str(tmp_path / "theirs"), safe_serialization=True)
    assert b'"U16"' in (tmp_path / "theirs" / "model.safetensors").read_bytes()
    for words, kept in ([], "bfloat16"), (["--dtype", "float16"], "float16"):
        folder = convert(tmp_path / "theirs", *words, output=kept)
        assert {array.dtype.name for array in load_file(folder / "model.safetensors").values()} == {kept}
        assert read_config(folder)["torch_dtype"] == kept
        found = {name: tensor.numpy() for name, tensor in AutoModelMIX.from_pretrained(folder).state_dict().items()}
        for name, array in wanted.items():
            np.testing.assert_allclose(found[name], array, rtol=1e-3, atol=1e-6, err_msg=name)


def test_files_of_two_tokenizers_are_not_mixed(tiny_checkpoint, convert, tmp_path):
    theirs = tmp_path / "theirs"
    PretrainedModel.save_pretrained(AutoModelMIX.from_pretrained(tiny_checkpoint), str(theirs))
    bare = {file.name for file in convert(theirs, output="bare").iterdir()}
    assert bare == {"config.json", "model.safetensors"}
    whole = convert(theirs, "--base", tiny_checkpoint, output="whole")
    assert {"tokenizer.json", "preprocessor_config.json"} <= {file.name for file in whole.iterdir()}
    (theirs / "vocab.json").write_text("{}")
    (theirs / "training_args.bin").write_bytes(b"x")
    own = {file.name for file in convert(theirs, "--base", tiny_checkpoint, output="own").iterdir()}
    assert "vocab.json" in own and "preprocessor_config.json" in own
    assert not own & {"tokenizer.json", "tokenizer_config.json", "training_args.bin"}


def test_a_folder_without_weights_is_told_as_what_it_is(tiny_checkpoint, convert, tmp_path):
    theirs = tmp_path / "theirs"
    (theirs / "global_step3").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="no config.json; .* python zero_to_fp32.py"):
        convert(theirs)
    shutil.copy(tiny_checkpoint / "config.json", theirs)
    with pytest.raises(FileNotFoundError, match=r"expected weights that can be converted\. .* python zero_to_fp32.py"):
        convert(theirs)
    with pytest.raises(NotADirectoryError, match="config.json is no folder"):
        convert(theirs / "config.json")
    assert not list(tmp_path.glob("*converted*"))


def test_a_folder_that_is_not_empty_is_not_overwritten(tiny_checkpoint, convert, tmp_path):
    (tmp_path / "converted").mkdir()
    (tmp_path / "converted" / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="is there already and is not overwritten"):
        convert(tiny_checkpoint)


def test_help_shows_an_example(convert, capsys):
    with pytest.raises(SystemExit):
        convert(Path("nowhere"), "--help")
    assert "convert_checkpoint.py output/qwen2_vl_sft --output" in capsys.readouterr().out


def test_the_index_of_several_files_lists_every_tensor(tiny_checkpoint, convert, monkeypatch):
    from paddlemix.conversion import model as conversion

    monkeypatch.setattr(conversion, "cut", lambda sizes: [list(sizes)[:9], list(sizes)[9:]])
    folder = convert(tiny_checkpoint)
    index = json.loads((folder / "model.safetensors.index.json").read_text("utf-8"))
    assert set(index["weight_map"]) == set(load_file(tiny_checkpoint / "model.safetensors"))
    AutoModelMIX.from_pretrained(folder)


def test_ids_that_paddlenlp_invented_for_qwen_vl_do_not_end_answers(tiny_qwen_vl, convert, tmp_path):
    theirs = tmp_path / "theirs"
    PretrainedModel.save_pretrained(AutoModelMIX.from_pretrained(tiny_qwen_vl), str(theirs))
    invented = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "paddlenlp_version": "3.0.0b4"}
    (theirs / "config.json").write_text(json.dumps({**read_config(theirs), **invented}))
    (theirs / "generation_config.json").write_text(json.dumps(invented))
    assert not {1, 2, 0} & {*named_ends(AutoModelMIX.from_pretrained(theirs))}
    folder = convert(theirs)
    assert not {name for name in invented if read_config(folder).get(name) is not None}
    assert not (folder / "generation_config.json").exists()
    whole = convert(theirs, "--base", tiny_qwen_vl, output="whole")
    assert read_config(whole).get("eos_token_id") == read_config(tiny_qwen_vl).get("eos_token_id")
