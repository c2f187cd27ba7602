"""The whole tool, in this process."""

from __future__ import annotations

import errno
import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from paddle.base import core
from safetensors.numpy import load_file, save_file

from paddlemix.auto import AutoModelMIX
from paddlemix.models.qwen2_vl.family import FAMILY as QWEN2_VL
from paddlemix.peft import probe
from paddlemix.peft.adapter_config import AdapterConfig
from paddlemix.peft.lora_model import MixLoRAModel
from paddlemix.peft.merging import adapted
from paddlemix.peft.targets import language_layers
from paddlemix.tools import merge_lora_params
from paddlemix.weights import published


@pytest.fixture
def adapter(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    model = AutoModelMIX.from_pretrained(tiny_checkpoint)
    layers = language_layers(model, QWEN2_VL.language_globs)
    model = MixLoRAModel.adapting(model, AdapterConfig(4, 8, base=str(tiny_checkpoint)), layers)
    rng = np.random.default_rng(0)
    for name, parameter in model.named_parameters():
        if name.endswith("lora_B"):
            parameter.set_value(rng.normal(size=parameter.shape).astype("float32") * 0.1)
    model.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


@pytest.fixture
def merge(adapter, tmp_path, monkeypatch):
    """A function that runs the tool, on the adapter unless told otherwise."""

    def run(*words: object, lora_path: Path = adapter, target: Path = tmp_path / "merged") -> Path:
        given = ["--lora_path", lora_path, "--merge_model_path", target, *words]
        monkeypatch.setattr(sys, "argv", ["merge_lora_params.py", *map(str, given)])
        merge_lora_params.main()
        return target

    return run


def test_the_merged_folder_is_a_model_and_the_difference_is_told(merge, tiny_checkpoint, capsys):
    folder = merge("--model_name_or_path", tiny_checkpoint)
    said = capsys.readouterr().out
    difference, moved = map(float, re.search(r"differ by (\S+); .* by (\S+),", said).groups())
    assert 0 <= difference < 1e-4 < 0.01 < moved
    assert not isinstance(AutoModelMIX.from_pretrained(folder), MixLoRAModel)
    assert not list(folder.parent.glob(".merged*"))


@pytest.fixture
def room(monkeypatch):
    """A function that says how much is free on a machine with a card, and gives the devices that computing moves to."""

    def room(**free: int) -> list[str]:
        devices = []
        monkeypatch.setattr(merge_lora_params, "memory_free", free.__getitem__)
        monkeypatch.setattr(merge_lora_params, "gpu_is_usable", lambda: True)
        monkeypatch.setattr(merge_lora_params.paddle, "set_device", devices.append)
        return devices

    return room


def test_a_probe_without_room_for_it_is_left_out_and_that_is_said(merge, room, monkeypatch, capsys):
    devices = room(cpu=0, gpu=24 * 2**20)
    monkeypatch.setattr(merge_lora_params.AutoModelMIX, "from_pretrained", None)  # nothing is loaded
    folder = merge()
    said = capsys.readouterr().out
    assert (
        "was not compared with base and adapter: in float32 it takes 0.3 GiB, and 0.0 GiB are free on the CPU" in said
    )
    assert "are free on the GPU" in said and (folder / "model.safetensors").is_file() and devices == ["cpu"]


@pytest.mark.parametrize(
    ("words", "free", "devices"),
    [
        ((), {"cpu": 2**40, "gpu": 2**40}, ["cpu", "cpu"]),
        ((), {"cpu": 0, "gpu": 2**40}, ["cpu", "gpu"]),
        (("--device", "gpu"), {"cpu": 2**40, "gpu": 2**40}, ["gpu", "gpu"]),
    ],
)
def test_the_cpu_is_asked_first_and_no_product_is_of_tf32(merge, room, monkeypatch, capsys, words, free, devices):
    moves, switches, probed = room(**free), [], merge_lora_params.logits_of
    before = core.get_cublas_switch()
    core.set_cublas_switch(True)  # as a build for CUDA begins

    def logits_of(*arguments):
        switches.append(core.get_cublas_switch())
        return probed(*arguments)

    monkeypatch.setattr(merge_lora_params, "logits_of", logits_of)
    try:
        merge(*words)
        after = core.get_cublas_switch()
    finally:
        core.set_cublas_switch(before)
    assert "logits of a probe" in capsys.readouterr().out
    assert moves == devices and switches == [False] * 3 and after is True


def test_the_memory_of_a_probe_is_that_of_the_weights_in_float32(tiny_checkpoint, tmp_path):
    numbers = sum(array.size for array in load_file(tiny_checkpoint / "model.safetensors").values())
    assert 4 * numbers < probe.memory_needed(tiny_checkpoint) < 8 * numbers + 2**28
    assert probe.memory_free("cpu", tmp_path) > 2**20  # no limits there


@pytest.mark.parametrize(
    ("folder", "limit", "used"),
    [(".", "memory.max", "memory.current"), ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes")],
)
def test_a_container_has_what_its_limit_leaves_and_copies_of_files_take_none_of_it(tmp_path, folder, limit, used):
    group = tmp_path / folder
    group.mkdir(exist_ok=True)
    (group / limit).write_text("5000\n")
    (group / used).write_text("4000\n")
    assert probe.memory_free("cpu", tmp_path) == 1000
    (group / "memory.stat").write_text("anon 1000\ninactive_file 2000\nactive_file 1000\n")
    assert probe.memory_free("cpu", tmp_path) == 4000
    (group / limit).write_text("max\n")
    assert probe.memory_free("cpu", tmp_path) > 2**20


def test_half_precision_is_stored_and_its_rounding_told(merge, capsys):
    folder = merge("--dtype", "bfloat16")
    said = capsys.readouterr().out
    assert 1e-4 < float(re.search(r"differ by (\S+);", said)[1]) < 1
    assert (folder / "model.safetensors").stat().st_size < 0.6 * sum(
        parameter.size * 4 for parameter in AutoModelMIX.from_pretrained(folder).parameters()
    )


def test_a_folder_that_is_not_empty_is_not_overwritten(merge, tmp_path):
    (tmp_path / "merged").mkdir()
    (tmp_path / "merged" / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="is there already and is not overwritten"):
        merge()
    assert [path.name for path in (tmp_path / "merged").iterdir()] == ["notes.txt"]


def test_a_merge_that_computes_something_else_leaves_nothing_behind(merge, tmp_path, monkeypatch):
    monkeypatch.setattr(adapted, "with_adapter", lambda weight, layer, adapter: weight)
    with pytest.raises(ValueError, match=r"differ by .*; expected at most .*Nothing was written"):
        merge()
    assert not list(tmp_path.glob("*merged*"))


def with_more(adapter: Path, folder: Path, config: dict, **tensors: np.ndarray) -> Path:
    """Copy an adapter, with more tensors by their layers' names and other values of its config."""
    shutil.copytree(adapter, folder)
    file = folder / "adapter_model.safetensors"
    more = {f"base_model.model.{name.replace('__', '.')}.weight": array for name, array in tensors.items()}
    save_file({**load_file(file), **more}, file)
    values = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**values, **config}))
    return folder


def test_a_head_that_was_trained_apart_from_its_embedding_is_kept(merge, adapter, tiny_checkpoint, tmp_path):
    weights = load_file(tiny_checkpoint / "model.safetensors")
    embedding = weights["model.embed_tokens.weight"]
    folder = with_more(adapter, tmp_path / "more", {"modules_to_save": ["lm_head"]}, lm_head=embedding * 2)
    target = merge(lora_path=folder)
    merged = load_file(target / "model.safetensors")
    assert np.array_equal(merged["lm_head.weight"], embedding * 2)
    assert np.array_equal(merged["model.embed_tokens.weight"], embedding)
    assert json.loads((target / "config.json").read_text())["tie_word_embeddings"] is False


@pytest.mark.parametrize("has_tokenizer", [True, False])
def test_a_vocabulary_that_has_grown_is_merged_and_its_tokenizer_asked_for(
    merge, adapter, tiny_checkpoint, tmp_path, caplog, has_tokenizer
):
    embedding = load_file(tiny_checkpoint / "model.safetensors")["model.embed_tokens.weight"]
    grown = np.concatenate([embedding, embedding[:3]])
    folder = with_more(adapter, tmp_path / "more", {}, model__language_model__embed_tokens=grown, lm_head=grown.copy())
    for file in folder.glob("tokenizer*"):
        file.unlink()
    if has_tokenizer:
        shutil.copyfile(tiny_checkpoint / "tokenizer.json", folder / "tokenizer.json")
    target = merge(lora_path=folder)
    config = json.loads((target / "config.json").read_text())
    assert config["vocab_size"] == len(grown) and config["tie_word_embeddings"] is True
    assert ("has no tokenizer for them" in caplog.text) is not has_tokenizer


def test_a_base_quantised_otherwise_is_refused_before_anything_is_written(merge, tiny_checkpoint, tmp_path):
    base = shutil.copytree(tiny_checkpoint, tmp_path / "base")
    values = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**values, "quantization_config": {"quant_method": "bitsandbytes"}}))
    with pytest.raises(ValueError, match=r"quantised in a way that is not read: bitsandbytes' 8 bits"):
        merge("--model_name_or_path", base)
    assert not list(tmp_path.glob("*merged*"))


def test_a_base_of_another_shape_is_refused(merge, tmp_path):
    other = Path(__file__).parents[1] / "fixtures" / "qwen2_vl_tiny" / "untied"
    with pytest.raises(ValueError, match="does not fit"):
        merge("--model_name_or_path", other)
    assert not list(tmp_path.glob("*merged*"))


def test_an_adapter_that_is_not_there_is_told_by_its_own_key(merge, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"^`lora_path` nowhere/at/all is no local folder"):
        merge(lora_path=Path("nowhere/at/all"))
    assert not list(tmp_path.glob("*merged*"))


def test_a_base_with_another_name_is_told(merge, tiny_checkpoint, tmp_path, caplog):
    moved = shutil.copytree(tiny_checkpoint, tmp_path / "elsewhere" / tiny_checkpoint.name)
    merge("--model_name_or_path", moved, "--skip_check")
    assert "trained on" not in caplog.text
    other = shutil.copytree(tiny_checkpoint, tmp_path / "other")
    merge("--model_name_or_path", other, "--skip_check", target=tmp_path / "merged_too")
    assert f"says that it was trained on {tiny_checkpoint} and is put on {other}" in caplog.text


def test_a_full_disk_is_told_with_the_folder_and_leaves_nothing_behind(merge, tmp_path, monkeypatch):
    def write(file: Path, *_: object) -> None:
        file.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(published, "write_safetensors", write)
    with pytest.raises(OSError, match=r"merged cannot be written: No space left on device; make room there."):
        merge()
    assert not list(tmp_path.glob("*merged*"))


def test_a_folder_that_cannot_be_made_is_told_by_its_own_name(merge, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OSError, match=r"^\S*/file/merged cannot be made: Not a directory; give a folder where you may"):
        merge(target=tmp_path / "file" / "merged")
