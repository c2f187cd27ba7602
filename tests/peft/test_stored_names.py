"""Adapters whose tensors lie under other names, or in other files, than PEFT's own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from paddlemix.auto import AutoModelMIX
from paddlemix.peft.adapter import ADAPTER_FILE, ADAPTER_INDEX_FILE
from paddlemix.peft.renaming import rename_adapter

from .test_versions import BASES, ROOT, logits_of

BASE = BASES / "qwen2_vl_untied"
LAYERS = ROOT / "5.24" / "layers"


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """A copy of an adapter, to be changed."""
    return shutil.copytree(LAYERS, tmp_path / "adapter")


def write(folder: Path, tensors: dict[str, np.ndarray], file: str = ADAPTER_FILE) -> None:
    save_file({name: np.ascontiguousarray(array) for name, array in tensors.items()}, folder / file)


def cut_in_two(folder: Path) -> list[str]:
    """Write the tensors as transformers writes those of a large adapter."""
    tensors = load_file(folder / ADAPTER_FILE)
    (folder / ADAPTER_FILE).unlink()
    files = [f"adapter_model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    places = {name: files[index % 2] for index, name in enumerate(tensors)}
    for file in files:
        write(folder, {name: array for name, array in tensors.items() if places[name] == file}, file)
    (folder / ADAPTER_INDEX_FILE).write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return files


@pytest.mark.parametrize(
    "rename",
    [
        "module.{}".format,
        "_orig_mod.{}".format,
        lambda name: name.replace("base_model.model.", "base_model.model._orig_mod."),
        lambda name: name.replace(".weight", ".sft.weight"),
        lambda name: name.removeprefix("base_model.model."),
    ],
)
def test_names_that_trainers_left_otherwise_are_read(rename, adapter):
    tensors = load_file(adapter / ADAPTER_FILE)
    assert all(name != rename(name) for name in tensors)
    write(adapter, {rename(name): array for name, array in tensors.items()})
    found, wanted = (logits_of(AutoModelMIX.from_pretrained(BASE, lora_path=one)) for one in (adapter, LAYERS))
    np.testing.assert_array_equal(found, wanted)


def test_an_adapter_in_shards_is_read_and_a_missing_one_is_named(adapter):
    files = cut_in_two(adapter)
    found, wanted = (logits_of(AutoModelMIX.from_pretrained(BASE, lora_path=one)) for one in (adapter, LAYERS))
    np.testing.assert_array_equal(found, wanted)
    (adapter / files[1]).unlink()
    with pytest.raises(FileNotFoundError, match=rf"no {files[1]}, which {ADAPTER_INDEX_FILE} names"):
        AutoModelMIX.from_pretrained(BASE, lora_path=adapter)


def test_an_adapter_in_shards_is_renamed_into_one_file(adapter, tmp_path):
    cut_in_two(adapter)
    layout = AutoModelMIX.from_pretrained(BASE)
    (tmp_path / "renamed").mkdir()
    rename_adapter(adapter, tmp_path / "renamed", layout.weight_layout(layout.config), in_memory=False)
    assert [file.name for file in (tmp_path / "renamed").glob("adapter_model*")] == [ADAPTER_FILE]
    assert len(load_file(tmp_path / "renamed" / ADAPTER_FILE)) == len(load_file(LAYERS / ADAPTER_FILE))


def test_tensors_without_numbers_are_named_with_what_gathers_them(adapter):
    write(adapter, {name: array.reshape(-1)[:0] for name, array in load_file(adapter / ADAPTER_FILE).items()})
    with pytest.raises(ValueError, match=r"holds no numbers .*`stage3_gather_16bit_weights_on_model_save` true"):
        AutoModelMIX.from_pretrained(BASE, lora_path=adapter)


def test_one_layer_to_save_whole_may_stand_without_a_list(tmp_path):
    folder = shutil.copytree(ROOT / "5.24" / "whole", tmp_path / "adapter")
    values = json.loads((folder / "adapter_config.json").read_text())
    from paddlemix.peft.adapter_config import read_adapter_config

    first = values["modules_to_save"][0]
    (folder / "adapter_config.json").write_text(json.dumps({**values, "modules_to_save": first}))
    assert read_adapter_config(folder).modules_to_save == (first,)
