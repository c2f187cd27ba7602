"""Adapters say what weights they were trained on, and are not put on others that they do not fit."""

from __future__ import annotations

import logging
import shutil
import sys
from itertools import product
from pathlib import Path

import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from paddlemix.auto import AutoModelMIX
from paddlemix.models.quantized import Quantizing
from paddlemix.models.registry import find_family
from paddlemix.peft.adapter_config import AdapterConfig
from paddlemix.peft.lora_model import MixLoRAModel
from paddlemix.peft.merging.adapted import AdaptedWeights
from paddlemix.peft.targets import language_layers
from paddlemix.tools import merge_lora_params

from ..families import FamilyCase, each_family
from ..models.test_quantized import pack
from ..quantization.packing import PACKINGS

REFUSED = r"was not trained on the weights of .* AWQ moves scales into norms"


def adapter_on(base: Path, folder: Path, dtype: str = "float32", quantizing: Quantizing | None = None) -> Path:
    """Save a new adapter on a base."""
    family = find_family(base)
    model = family.model_class.from_pretrained(base, dtype, quantizing=quantizing)
    config = AdapterConfig(4, 8, base=str(base))
    MixLoRAModel.adapting(model, config, language_layers(model, family.language_globs)).save_pretrained(folder)
    return folder


def with_other_norms(folder: Path) -> Path:
    """Move a scale into the norms before the layers of each block, as AWQ does."""
    stored = load_file(folder / "model.safetensors")
    ends = ("input_layernorm.weight", "post_attention_layernorm.weight", "ln_1.weight", "ln_2.weight")
    moved = [name for name in stored if name.endswith(ends) and "visual" not in name]
    assert len(moved) == 4
    stored |= {name: stored[name] * stored[name].dtype.type(1.25) for name in moved}
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


# Each takes a base and an adapter.
WAYS = (
    AdaptedWeights.of,
    lambda base, adapter: AutoModelMIX.from_pretrained(base, lora_path=adapter),
    lambda base, adapter: MixLoRAModel.continuing(AutoModelMIX.from_pretrained(base), adapter, base=str(base)),
)


@each_family
def test_an_adapter_on_awqs_weights_is_not_put_on_those_before_it(case: FamilyCase, request, tmp_path):
    base = case.folder(request)
    awq = with_other_norms(pack(base, tmp_path / "awq", PACKINGS["awq"]))
    adapters = {one: adapter_on(one, tmp_path / f"adapter-{one.name}") for one in (base, awq)}
    for put in WAYS:
        for one, adapter in adapters.items():
            put(one, adapter)
        for other, adapter in ((awq, adapters[base]), (base, adapters[awq])):
            with pytest.raises(ValueError, match=REFUSED):
                put(other, adapter)


def test_what_leaves_norms_alone_changes_nothing(tiny_checkpoint, tmp_path, caplog):
    gptq = pack(tiny_checkpoint, tmp_path / "gptq", PACKINGS["gptq-int4"])
    adapters = [
        adapter_on(gptq, tmp_path / "of-gptq"),
        adapter_on(tiny_checkpoint, tmp_path / "of-half", dtype="bfloat16"),
        adapter_on(tiny_checkpoint, tmp_path / "of-codes", quantizing=Quantizing("nf4")),
    ]
    with caplog.at_level(logging.WARNING):
        for adapter, base, put in product(adapters, (tiny_checkpoint, gptq), WAYS):
            put(base, adapter)
    assert "norms" not in caplog.text
    with safe_open(adapters[0] / "adapter_model.safetensors", "np") as opened:
        said = opened.metadata()
    assert said["format"] == "pt" and said["base_quantized"] == "gptq" and len(said["base_norms"]) == 64


def test_files_of_one_adapter_are_the_same_bytes(tiny_checkpoint, tmp_path):
    model = AutoModelMIX.from_pretrained(tiny_checkpoint)
    layers = language_layers(model, find_family(tiny_checkpoint).language_globs)
    adapted = MixLoRAModel.adapting(model, AdapterConfig(4, 8), layers)
    written = set()
    for place in range(6):
        adapted.save_pretrained(tmp_path / str(place))
        written.add((tmp_path / str(place) / "adapter_model.safetensors").read_bytes())
    assert len(written) == 1


def test_other_norms_alone_are_warned_of(tiny_checkpoint, tmp_path, caplog):
    adapter = adapter_on(tiny_checkpoint, tmp_path / "adapter")
    other = with_other_norms(shutil.copytree(tiny_checkpoint, tmp_path / "other"))
    with caplog.at_level(logging.WARNING):
        AdaptedWeights.of(other, adapter)
    assert "was trained on a model whose norms are other than those of" in caplog.text


def test_adapters_that_say_nothing_are_taken(tiny_checkpoint, tmp_path):
    awq = with_other_norms(pack(tiny_checkpoint, tmp_path / "awq", PACKINGS["awq"]))
    adapter = adapter_on(tiny_checkpoint, tmp_path / "adapter")
    tensors = load_file(adapter / "adapter_model.safetensors")
    save_file(tensors, adapter / "adapter_model.safetensors", metadata={"format": "pt"})
    for put in WAYS:
        put(awq, adapter)


def test_a_checkpoint_on_other_weights_is_not_gone_on_from(tiny_checkpoint, tmp_path):
    awq = with_other_norms(pack(tiny_checkpoint, tmp_path / "awq", PACKINGS["awq"]))
    adapter = adapter_on(awq, tmp_path / "adapter")
    model = AutoModelMIX.from_pretrained(tiny_checkpoint)
    layers = language_layers(model, find_family(tiny_checkpoint).language_globs)
    with pytest.raises(ValueError, match=REFUSED):
        MixLoRAModel.adapting(model, AdapterConfig(4, 8), layers).load_adapter(adapter)


def test_the_merge_tool_says_it_in_one_sentence(tiny_checkpoint, tmp_path, monkeypatch, capsys):
    awq = with_other_norms(pack(tiny_checkpoint, tmp_path / "awq", PACKINGS["awq"]))
    adapter = adapter_on(awq, tmp_path / "adapter")
    words = ["--lora_path", adapter, "--model_name_or_path", tiny_checkpoint, "--merge_model_path", tmp_path / "merged"]
    monkeypatch.setattr(sys, "argv", ["merge_lora_params.py", *map(str, words)])
    with pytest.raises(ValueError, match=REFUSED):
        merge_lora_params.main()
    assert not (tmp_path / "merged").exists()
