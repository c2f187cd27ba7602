"""`new_tokens` of a config: what the vocabulary and the model get, and who refuses what."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import paddle
import pytest

from paddlemix.auto import AutoModelMIX, AutoProcessorMIX
from paddlemix.configuration.arguments import DataArguments, FinetuneConfig, ModelArguments, TokenItem
from paddlemix.configuration.file import load_config
from paddlemix.configuration.problems import ConfigError
from paddlemix.models.vocabulary import with_rows
from paddlemix.peft.targets import token_layers
from paddlemix.tools.answering import AskedModel
from paddlemix.training.finetune import Run
from paddlemix.training.new_tokens import listed_tokens

ARGS = SimpleNamespace(tensor_parallel_degree=-1, fp16_opt_level="O1", bf16=False, fp16=False, seed=3)
NEW = ["<loc_1>", TokenItem("<sep>", special=True), "<|mine|>"]


@pytest.fixture(params=["qwen2_vl", "qwen2_5_vl"])
def checkpoint(request) -> Path:
    return request.getfixturevalue({"qwen2_vl": "tiny_checkpoint", "qwen2_5_vl": "tiny_qwen2_5_vl"}[request.param])


@pytest.fixture
def untied(tiny_checkpoint, tmp_path) -> Path:
    """A checkpoint whose head has numbers of its own, and rows that no token has yet."""
    from paddlemix.models.qwen2_vl import Qwen2VLConfig, Qwen2VLForConditionalGeneration

    folder = tmp_path / "untied"
    shutil.copytree(tiny_checkpoint, folder)
    values = json.loads((folder / "config.json").read_text())
    paddle.seed(5)
    values |= {"tie_word_embeddings": False, "vocab_size": values["vocab_size"] + 2}
    Qwen2VLForConditionalGeneration(Qwen2VLConfig(**values)).save_pretrained(folder)
    return folder


def run_of(folder: Path, **keys) -> Run:
    keys = {"new_tokens": NEW, **keys}
    return Run.of(FinetuneConfig(ModelArguments(model_name_or_path=str(folder), **keys), DataArguments(), {}))


def test_rows_begin_as_the_mean_of_the_old_pieces_and_all_else_stays(checkpoint):
    run, before = run_of(checkpoint), AutoModelMIX.from_pretrained(checkpoint)
    pieces = AutoProcessorMIX.from_pretrained(checkpoint).tokenizer.encode("<loc_1>")
    model, rows = run.load_model(ARGS), before.config.vocab_size
    assert run.growth.rows == model.config.vocab_size == rows + 3
    new, old = (one.get_input_embeddings().weight.numpy() for one in (model, before))
    assert new.shape[0] == rows + 3 and np.array_equal(new[:rows], old)
    np.testing.assert_allclose(new[rows], old[pieces].mean(0), rtol=1e-5, atol=1e-8)
    assert all(not parameter.stop_gradient for parameter in model.parameters())
    ids = paddle.to_tensor([run.processor.tokenizer.encode("of old pieces")])
    before.eval(), model.eval()
    np.testing.assert_array_equal(model(ids).logits.numpy()[..., :rows], before(ids).logits.numpy())


def test_free_rows_are_used_first_and_the_head_gets_its_own_means(untied, tiny_checkpoint):
    run, before = run_of(untied), AutoModelMIX.from_pretrained(untied)
    model, rows = run.load_model(ARGS), before.config.vocab_size
    assert model.config.vocab_size == rows + 1
    first, pieces = next(iter(run.growth.pieces.items()))
    assert first == rows - 2
    head, old = model.lm_head.weight.numpy(), before.lm_head.weight.numpy()
    np.testing.assert_allclose(head[:, first], old[:, pieces].mean(1), rtol=1e-5, atol=1e-8)
    embedding, old = (one.get_input_embeddings().weight.numpy() for one in (model, before))
    np.testing.assert_allclose(embedding[first], old[pieces].mean(0), rtol=1e-5, atol=1e-8)
    assert np.array_equal(embedding[:first], old[:first])
    assert run_of(untied, new_tokens=NEW[:2]).load_model(ARGS).config.vocab_size == rows


def test_rows_grow_to_a_multiple_only_where_asked_and_where_they_grow(untied):
    rows = AutoModelMIX.from_pretrained(untied).config.vocab_size
    assert run_of(untied, new_tokens_multiple=64).growth.rows == -(-(rows + 1) // 64) * 64
    assert run_of(untied, new_tokens=NEW[:2], new_tokens_multiple=64).growth.rows == rows


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_random_rows_are_as_those_of_an_untrained_model_and_the_seeds(tiny_checkpoint, dtype):
    def rows(seed: int) -> np.ndarray:
        args = SimpleNamespace(**{**vars(ARGS), "seed": seed})
        model = run_of(tiny_checkpoint, new_tokens_init="random", dtype=dtype).load_model(args)
        return model.get_input_embeddings().weight.astype("float32").numpy()[-3:]

    assert np.array_equal(rows(1), rows(1)) and not np.array_equal(rows(1), rows(2))
    assert 0.5 < rows(1).std() / 0.02 < 2


def test_adapters_come_with_embedding_and_head_unless_told_otherwise(untied, caplog):
    with caplog.at_level(logging.INFO):
        model = run_of(untied, lora=True).load_model(ARGS)
    assert model.whole_layers == ["model.embed_tokens", "lm_head"] and "`lora_modules_to_save` is" in caplog.text
    assert not any(layer.weight.stop_gradient for layer in token_layers(model).values())
    assert "frozen" not in caplog.text
    with caplog.at_level(logging.WARNING):
        run_of(untied, lora=True, lora_modules_to_save=["lm_head"]).load_model(ARGS)
    assert "model.embed_tokens is frozen, so that the rows of new tokens stay" in caplog.text


def test_a_frozen_language_model_is_told_that_new_rows_stay_as_they_began(untied, caplog):
    run_of(untied, freeze_llm=True).load_model(ARGS)
    assert "model.embed_tokens and lm_head are frozen" in caplog.text


def test_tokens_that_exist_are_told_and_keep_their_rows(checkpoint, caplog):
    run, before = run_of(checkpoint, new_tokens=["<|im_end|>", "a", "<new>"]), AutoModelMIX.from_pretrained(checkpoint)
    assert "already, which stay as they are: <|im_end|>, a." in caplog.text
    rows = before.config.vocab_size
    new, old = (one.get_input_embeddings().weight.numpy() for one in (run.load_model(ARGS), before))
    assert list(run.growth.pieces) == [rows] and np.array_equal(new[:rows], old)


def test_tokens_without_rows_are_refused_by_all_who_load_the_model_until_they_are_listed(checkpoint, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(checkpoint, folder)
    run_of(checkpoint).processor.save_pretrained(folder)
    with pytest.raises(ValueError, match=r"the last of them <\|mine\|>, but `vocab_size` of config.json is"):
        run_of(folder, new_tokens=None).load_model(ARGS)
    asked = AskedModel(object, str(folder), None, "float32", None)
    with pytest.raises(ValueError, match="added without growing the model"):
        asked.load()
    model = run_of(folder).load_model(ARGS)
    assert model.config.vocab_size == AutoModelMIX.from_pretrained(checkpoint).config.vocab_size + 3


@pytest.mark.parametrize("wrong", ["", " <a>", "<b>\n"])
def test_blank_texts_and_texts_with_white_space_round_them_are_refused(tiny_checkpoint, wrong):
    with pytest.raises(ValueError, match="`new_tokens` lists"):
        run_of(tiny_checkpoint, new_tokens=["<loc_1>", wrong])
    with pytest.raises(ValueError, match="is listed twice"):
        run_of(tiny_checkpoint, new_tokens=["<loc_1>", "<loc_1>"])


def test_qwen_vl_refuses_new_tokens_by_name(tiny_qwen_vl):
    with pytest.raises(ValueError, match=r"`new_tokens` lists <loc_1>, <sep>, <\|mine\|>, but qwen.tiktoken"):
        run_of(tiny_qwen_vl)
    assert run_of(tiny_qwen_vl, new_tokens=None).load_model(ARGS)


@pytest.mark.parametrize("family", ["tiny_checkpoint", "tiny_qwen_vl"])
def test_a_model_with_more_rows_is_the_same_model_otherwise(family, request):
    folder = request.getfixturevalue(family)
    model = AutoModelMIX.from_pretrained(folder)
    before = {name: one.numpy().copy() for name, one in model.named_parameters()}
    rows = model.config.vocab_size
    larger = with_rows(model, rows + 5)
    assert with_rows(larger, rows + 5) is larger and larger.carried_files == model.carried_files
    for name, parameter in larger.named_parameters():
        held = parameter.numpy()[tuple(map(slice, before[name].shape))]
        assert np.array_equal(held, before[name]), name
    grown = [name for name, one in larger.named_parameters() if list(one.shape) != list(before[name].shape)]
    assert grown == [f"{name}.weight" for name in token_layers(larger)] and grown


def config(folder: Path, model: Path, **keys) -> str:
    sets = {"train": [{"name": "vqa_dataset", "data_files": "train.json"}]}
    values = {"model_name_or_path": str(model), "dataset": sets, "output_dir": str(folder / "out"), "do_train": True}
    (folder / "config.json").write_text(json.dumps({**values, **keys}))
    return str(folder / "config.json")


def test_a_file_lists_a_token_a_line_and_is_looked_for_beside_the_config(tiny_checkpoint, tmp_path):
    (tmp_path / "tokens.txt").write_text("<loc_1>\n\n  <loc_2>  \r\n<猫>\n", encoding="utf-8")
    found = load_config(config(tmp_path, tiny_checkpoint, new_tokens="tokens.txt"), has_gpu=False)
    assert found.model.new_tokens == ["<loc_1>", "<loc_2>", "<猫>"]
    with pytest.raises(FileNotFoundError, match="`new_tokens` is nowhere.txt"):
        load_config(config(tmp_path, tiny_checkpoint, new_tokens="nowhere.txt"), has_gpu=False)


def test_entries_may_say_whether_a_token_is_special(tiny_checkpoint, tmp_path):
    entries = ["<loc_1>", {"token": "<sep>", "special": True}]
    found = load_config(config(tmp_path, tiny_checkpoint, new_tokens=entries), has_gpu=False)
    assert found.model.new_tokens == ["<loc_1>", TokenItem("<sep>", special=True)]
    with pytest.raises(ConfigError, match="unknown key `new_tokens\\[0\\].specal`"):
        load_config(config(tmp_path, tiny_checkpoint, new_tokens=[{"token": "<sep>", "specal": True}]), has_gpu=False)


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"new_tokens": ["<a>"], "tensor_parallel_degree": 2}, "rows are added to whole models only"),
        ({"new_tokens": ["<a>"], "added_tokens": "text"}, "no text would ever hold one of them"),
        ({"new_tokens_init": "random"}, "`new_tokens_init` has no effect unless `new_tokens`"),
    ],
)
def test_keys_that_contradict_new_tokens_are_refused(tiny_checkpoint, tmp_path, keys, sentence):
    with pytest.raises(ConfigError, match=sentence):
        load_config(config(tmp_path, tiny_checkpoint, **keys), has_gpu=False)


def test_a_list_of_more_tokens_than_any_vocabulary_gets_is_refused_soon() -> None:
    with pytest.raises(ValueError, match="`new_tokens` lists 300,000 tokens; expected at most 16,384"):
        listed_tokens([f"<t{number}>" for number in range(300_000)])
    with pytest.raises(ValueError, match=r"lists '<t1>', which .* is listed twice") as refused:
        listed_tokens([*(f"<t{number}>" for number in range(16_000)), "<t1>"])
    assert len(str(refused.value)) < 300
