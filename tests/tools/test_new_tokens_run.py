"""Runs with `new_tokens`, whole and with adapters, from the config to what other programs read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import paddle
import pytest
from paddle.utils import unique_name
from safetensors.numpy import load_file, save_file

from paddlemix.auto import AutoModelMIX, AutoProcessorMIX, AutoTokenizerMIX
from paddlemix.models.config_file import read_config
from paddlemix.tools import merge_lora_params, preview_data, supervised_finetune

TEXTS = ["<loc_1>", "at <loc_1>, <loc_2> and <sep>", "<loc_1<loc_2>>"]
EMBEDDING = "base_model.model.model.language_model.embed_tokens.weight"
TOKENS = ["<loc_1>", "<loc_2>", {"token": "<sep>", "special": True}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for runs, with records that spell new tokens."""
    folder = tmp_path_factory.mktemp("new_tokens")
    answers = [{"from": "human", "value": "Where is <loc_1>?"}, {"from": "gpt", "value": "At <loc_2>.<sep>"}]
    (folder / "train.json").write_text(json.dumps([{"conversations": answers}] * 8))
    return folder


def run(folder: Path, model: Path, name: str, **keys) -> Path:
    out = folder / name
    sets = {"train": [{"name": "sharegpt", "data_files": str(folder / "train.json")}]}
    config = {"model_name_or_path": str(model), "dataset": sets, "output_dir": str(out), "do_train": True}
    config |= {"learning_rate": 1e-2, "per_device_train_batch_size": 4, "report_to": "none", "max_steps": 4}
    config |= {"save_steps": 2, "new_tokens": TOKENS, **keys}
    (folder / f"{name}.json").write_text(json.dumps(config))
    # The optimizer's state goes by Paddle's own names of parameters, which count from 0 in a new process.
    with unique_name.guard():
        supervised_finetune.main([str(folder / f"{name}.json")])
    return out


@pytest.fixture(scope="module")
def whole(folder, tiny_checkpoint) -> Path:
    return run(folder, tiny_checkpoint, "whole")


@pytest.fixture(scope="module")
def adapter(folder, tiny_checkpoint) -> Path:
    return run(folder, tiny_checkpoint, "adapter", lora=True)


@pytest.fixture(scope="module")
def merged(adapter) -> Path:
    into = adapter.parent / "merged"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["merge", "--lora_path", str(adapter), "--merge_model_path", str(into)])
        merge_lora_params.main()
    return into


def logits(model, ids: list[int]) -> np.ndarray:
    return model(paddle.to_tensor([ids])).logits.numpy()[0]


def encoded(folder: Path) -> list[list[int]]:
    tokenizer = AutoTokenizerMIX.from_pretrained(folder)
    return [tokenizer.encode(text) for text in TEXTS]


def test_new_rows_are_trained_and_the_saved_model_answers_with_them(whole, tiny_checkpoint):
    rows = read_config(tiny_checkpoint)["vocab_size"]
    assert read_config(whole)["vocab_size"] == rows + 3
    ids = encoded(whole)
    assert ids[0] == [rows] and ids[1][-1] == rows + 2 and rows + 1 in ids[2]
    model = AutoModelMIX.from_pretrained(whole)
    weights = model.get_input_embeddings().weight.numpy()
    assert np.abs(weights[rows:] - weights[rows : rows + 1]).max() > 0.01
    assert logits(model, ids[1]).shape[-1] == rows + 3


def test_a_resumed_run_ends_as_one_that_was_never_stopped(whole, folder, tiny_checkpoint):
    resumed = run(folder, tiny_checkpoint, "resumed", resume_from_checkpoint=str(whole / "checkpoint-2"))
    first, again = (load_file(one / "model.safetensors") for one in (whole, resumed))
    assert first.keys() == again.keys() and all(np.array_equal(first[name], again[name]) for name in first)
    with pytest.raises(ValueError, match="is of another run: .*`new_tokens`"):
        run(
            folder,
            tiny_checkpoint,
            "other",
            resume_from_checkpoint=str(whole / "checkpoint-2"),
            new_tokens=["<loc_1>", "<loc_2>", "<other>"],
        )


def test_an_adapter_with_more_tokens_loads_again_on_the_same_base(adapter, tiny_checkpoint):
    rows = read_config(tiny_checkpoint)["vocab_size"]
    model = AutoModelMIX.from_pretrained(adapter)
    assert model.config.vocab_size == rows + 3 and encoded(adapter)[0] == [rows]
    stored = load_file(adapter / "adapter_model.safetensors")[EMBEDDING]
    assert np.array_equal(model.get_input_embeddings().weight.numpy(), stored) and stored.shape[0] == rows + 3
    assert AutoProcessorMIX.from_pretrained(adapter).tokenizer.size == rows + 3
    assert read_config(tiny_checkpoint)["vocab_size"] == rows


def test_a_resumed_run_of_adapters_ends_as_one_that_was_never_stopped(adapter, folder, tiny_checkpoint):
    again = run(folder, tiny_checkpoint, "again", lora=True, resume_from_checkpoint=str(adapter / "checkpoint-2"))
    first, second = (load_file(one / "adapter_model.safetensors") for one in (adapter, again))
    assert first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)


def test_an_adapter_with_more_tokens_is_trained_further(adapter, folder, tiny_checkpoint):
    further = run(folder, tiny_checkpoint, "further", lora=True, lora_path=str(adapter))
    first, second = (load_file(one / "adapter_model.safetensors") for one in (adapter, further))
    assert {name: one.shape for name, one in first.items()} == {name: one.shape for name, one in second.items()}
    assert all(not np.array_equal(first[name], second[name]) for name in first)
    assert encoded(further) == encoded(adapter)


def test_tokens_that_an_adapter_has_no_rows_for_need_a_new_adapter(adapter, folder, tiny_checkpoint):
    keys = {"lora": True, "lora_path": str(adapter), "new_tokens": [*TOKENS, "<other>"]}
    with pytest.raises(ValueError, match="has no rows for, .*Set `create_new_adapter` to true"):
        run(folder, tiny_checkpoint, "refused", **keys)
    above = run(folder, tiny_checkpoint, "above", create_new_adapter=True, **keys)
    rows = read_config(tiny_checkpoint)["vocab_size"]
    assert read_config(above / "merged_base")["vocab_size"] == rows + 4
    tokenizer = AutoTokenizerMIX.from_pretrained(above)
    assert tokenizer.encode("<other><loc_2>") == [rows + 3, rows + 1]
    assert logits(AutoModelMIX.from_pretrained(above), [rows + 3]).shape[-1] == rows + 4


@pytest.mark.parametrize("goes_on", [False, True])
def test_a_preview_asks_the_model_that_a_run_begins_with(goes_on, adapter, folder, monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(preview_data, "answer", lambda model, *rest: asked.append(model) or ["<loc_1>"])
    words = [str(folder / "adapter.json"), "--output", str(tmp_path / "page.html"), "--records", "1", "--answers"]
    preview_data.main([*words, *(["--lora_path", str(adapter)] if goes_on else [])])
    [model] = asked
    rows = model.get_input_embeddings().weight.numpy()
    trained = load_file(adapter / "adapter_model.safetensors")[EMBEDDING]
    assert rows.shape == trained.shape and np.array_equal(rows, trained) == goes_on


def test_a_merged_model_has_the_adapters_tokens(merged, adapter):
    ids = encoded(merged)
    assert ids == encoded(adapter)
    assert read_config(merged)["vocab_size"] == read_config(adapter.parent / "whole")["vocab_size"]
    one, other = (logits(AutoModelMIX.from_pretrained(folder), ids[1]) for folder in (merged, adapter))
    np.testing.assert_allclose(one, other, atol=1e-5)


def test_a_merge_refuses_an_adapter_whose_head_does_not_grow_with_its_embedding(adapter, tmp_path):
    from paddlemix.peft.merging.adapted import AdaptedWeights
    from paddlemix.weights.safetensors_writer import Entry, write_safetensors

    base = Path(json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"])
    arrays = load_file(base / "model.safetensors")
    arrays["lm_head.weight"] = arrays["model.embed_tokens.weight"]
    entries = [Entry(name, "float32", one.shape, lambda one=one: one) for name, one in arrays.items()]
    write_safetensors(tmp_path / "model.safetensors", entries)
    (tmp_path / "config.json").write_text(json.dumps({**read_config(base), "tie_word_embeddings": False}))
    copy = tmp_path / "adapter"
    copy.mkdir()
    (copy / "adapter_config.json").write_bytes((adapter / "adapter_config.json").read_bytes())
    held = {k: v for k, v in load_file(adapter / "adapter_model.safetensors").items() if "lm_head" not in k}
    save_file(held, copy / "adapter_model.safetensors")
    with pytest.raises(ValueError, match=r"the base's lm_head.weight is for \d+ tokens, and the embedding has"):
        AdaptedWeights.of(tmp_path, copy)


IN_TRANSFORMERS = """
import json, sys
import numpy as np, torch
from transformers import AutoTokenizer, Qwen2VLForConditionalGeneration
model_folder, adapter, rows, out, *texts = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(adapter or model_folder)
ids = [tokenizer(text).input_ids for text in texts]
model = Qwen2VLForConditionalGeneration.from_pretrained(model_folder, dtype=torch.float32)
if adapter:
    from peft import PeftModel
    model.resize_token_embeddings(int(rows))
    model = PeftModel.from_pretrained(model, adapter)
with torch.no_grad():
    np.savez(out, *[model(input_ids=torch.tensor([one])).logits[0].numpy() for one in ids])
print(json.dumps(ids))
"""


@pytest.mark.parametrize("kind", ["whole", "adapter", "merged"])
def test_transformers_and_peft_give_the_same_ids_and_logits(kind, request, tiny_checkpoint, tmp_path):
    if "REFERENCE_PYTHON" not in os.environ:
        pytest.skip("REFERENCE_PYTHON names no Python with torch, transformers and peft")
    saved = request.getfixturevalue(kind)
    model = AutoModelMIX.from_pretrained(saved)
    model.eval()
    folders = [str(tiny_checkpoint), str(saved)] if kind == "adapter" else [str(saved), ""]
    words = [*folders, str(model.config.vocab_size), str(tmp_path / "logits.npz"), *TEXTS]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [os.environ["REFERENCE_PYTHON"], "-c", IN_TRANSFORMERS, *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ids = json.loads(done.stdout.splitlines()[-1])
    assert ids == encoded(saved)
    with np.load(tmp_path / "logits.npz") as theirs:
        for one, expected in zip(ids, theirs.values(), strict=True):
            np.testing.assert_allclose(logits(model, one), expected, atol=5e-5, rtol=0)
