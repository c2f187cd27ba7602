from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import paddle
import pytest
from safetensors.numpy import load_file, save_file

from paddlemix.auto import AutoModelMIX
from paddlemix.peft.merge import Merge
from paddlemix.peft.merging.adapted import AdaptedWeights
from paddlemix.weights.saving import save_weights

from ..references import PEFT_ADAPTERS, base_of

FIXTURES = Path(__file__).parents[1] / "fixtures"
BASES, ADAPTERS = FIXTURES / "qwen2_vl_tiny", FIXTURES / "peft_adapter"


def merged(base: Path, adapter: Path, folder: Path, dtype: str | None = None) -> Path:
    merge, told = Merge(AdaptedWeights.of(base, adapter), dtype), []
    folder.mkdir()
    merge.write_weights(folder, told.append)
    merge.write_side_files(folder)
    assert sum(told) == merge.bytes > 0
    return folder


@pytest.mark.parametrize("variant", PEFT_ADAPTERS)
def test_the_merged_model_computes_what_base_and_adapter_compute(variant, logits_of, tmp_path):
    folder = merged(base_of(variant), ADAPTERS / variant, tmp_path / "merged")
    found, wanted = (
        logits_of(AutoModelMIX.from_pretrained(*words), variant, "mixed_left")
        for words in ((folder,), (base_of(variant), "float32"))
    )
    assert np.abs(found - wanted).max() > 1, "the adapter changes nothing"
    adapted = AutoModelMIX.from_pretrained(base_of(variant), lora_path=ADAPTERS / variant)
    # Logits of size 5 to 20, float32 noise.
    np.testing.assert_allclose(found, logits_of(adapted, variant, "mixed_left"), atol=5e-5, rtol=0)


def test_weights_without_an_adapter_stay_bit_equal_under_their_own_names(tmp_path):
    folder = merged(BASES / "tied", ADAPTERS / "tied", tmp_path / "merged")
    before, after = load_file(BASES / "tied" / "model.safetensors"), load_file(folder / "model.safetensors")
    assert before.keys() == after.keys()
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    kinds = {name.split(".")[-2] for name in changed}
    assert kinds == {"q_proj", "v_proj", "down_proj", "qkv"} and len(changed) == 2 * len(kinds)
    assert all(name.endswith("weight") for name in changed)


def test_shards_are_merged_one_by_one_and_cut_as_the_bases(tmp_path):
    base = AutoModelMIX.from_pretrained(BASES / "untied")
    base.save_pretrained(tmp_path / "base")
    save_weights(base, tmp_path / "base", base.weight_layout(base.config), max_shard_bytes=40_000)
    folder = merged(tmp_path / "base", ADAPTERS / "untied", tmp_path / "merged")
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 2
    bases = json.loads((tmp_path / "base" / "model.safetensors.index.json").read_text())
    assert index["weight_map"] == bases["weight_map"]
    whole = merged(BASES / "untied", ADAPTERS / "untied", tmp_path / "whole")
    for one, other in zip(
        *(dict(AutoModelMIX.from_pretrained(name).named_parameters()).values() for name in (folder, whole)), strict=True
    ):
        assert np.array_equal(one.numpy(), other.numpy())


MEMORY = """
import json, re, sys
from pathlib import Path
import paddle
import paddlemix
from paddlemix.weights.layout import WeightLayout
from paddlemix.peft.merging.adapted import AdaptedWeights
from paddlemix.peft.adapter import read_adapter
from paddlemix.peft.merge import Merge
from paddlemix.peft.merging.tying import Tying
from paddlemix.weights.files import stored_tensors

def high_water() -> int:
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024

base, target = Path(sys.argv[1]), Path(sys.argv[2])
layout = WeightLayout((), {}, ())
stored = {one.name: one for one in stored_tensors(base)}
adapter = read_adapter(base / "adapter", layout)
merge = Merge(AdaptedWeights(base, {}, adapter, layout, stored, Tying("wte.weight", "lm_head.weight", False)))
(paddle.ones([1024, 8]) @ paddle.ones([8, 1024])).numpy()  # the library of products loads 20 to 40 MiB of itself here
before = high_water()
merge.write_weights(target)
print(high_water() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="the peak of memory is read from /proc")
def test_merging_needs_memory_for_a_few_tensors_not_for_a_shard(tmp_path):
    width, layers, rng = 1024, [f"h.{number}.attn.c_proj" for number in range(48)], np.random.default_rng(0)
    base, adapter = tmp_path / "base", tmp_path / "base" / "adapter"
    adapter.mkdir(parents=True)
    weights = {f"{layer}.weight": rng.random([width, width], dtype=np.float32) for layer in layers}
    save_file(weights, base / "model.safetensors")
    factors = {}
    for layer in layers:
        factors[f"base_model.model.{layer}.lora_A.weight"] = rng.random([8, width], dtype=np.float32)
        factors[f"base_model.model.{layer}.lora_B.weight"] = rng.random([width, 8], dtype=np.float32)
    save_file(factors, adapter / "adapter_model.safetensors")
    (adapter / "adapter_config.json").write_text(json.dumps({"r": 8, "lora_alpha": 16}))
    (tmp_path / "merged").mkdir()
    command = [sys.executable, "-c", MEMORY, str(base), str(tmp_path / "merged")]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    shard, tensor = 48 * width**2 * 4, width**2 * 4
    # Measured: 3.5 to 6.5 tensors of 4 MiB.
    assert int(ended.stdout) < 10 * tensor < shard / 3
    merged = load_file(tmp_path / "merged" / "model.safetensors")
    down, up = (factors[f"base_model.model.{layers[7]}.{one}.weight"] for one in ("lora_A", "lora_B"))
    wanted = weights[f"{layers[7]}.weight"] + 2 * up @ down
    np.testing.assert_allclose(merged[f"{layers[7]}.weight"], wanted, rtol=1e-6)


def test_weights_in_paddles_order_are_turned_as_they_are_merged(tmp_path):
    base = AutoModelMIX.from_pretrained(BASES / "tied")
    folder = tmp_path / "base"
    folder.mkdir()
    shutil.copyfile(BASES / "tied" / "config.json", folder / "config.json")
    paddle.save(base.state_dict(), str(folder / "model_state.pdparams"))
    merged(folder, ADAPTERS / "tied", tmp_path / "merged")
    expected = load_file(merged(BASES / "tied", ADAPTERS / "tied", tmp_path / "expected") / "model.safetensors")
    found = load_file(tmp_path / "merged" / "model.safetensors")
    assert found.keys() == {name.replace("model.language_model.", "model.") for name in found}
    layout = base.weight_layout(base.config)
    by_parameter = {layout.name_here(name): array for name, array in expected.items()}
    assert found.keys() == by_parameter.keys()
    assert all(np.array_equal(found[name], by_parameter[name]) for name in found)
    assert not list((tmp_path / "merged").glob("*.pdparams"))


def test_another_dtype_is_stored_everywhere_and_named_by_config_json(tmp_path):
    folder = merged(BASES / "tied", ADAPTERS / "tied", tmp_path / "merged", "float16")
    arrays = load_file(folder / "model.safetensors")
    assert {str(array.dtype) for array in arrays.values()} == {"float16"}
    assert json.loads((folder / "config.json").read_text())["dtype"] == "float16"
    wide = load_file(merged(BASES / "tied", ADAPTERS / "tied", tmp_path / "wide") / "model.safetensors")
    assert all(np.array_equal(wide[name].astype(np.float16), arrays[name]) for name in arrays)


def test_side_files_are_the_bases_unless_the_adapter_says_otherwise(tiny_checkpoint, tmp_path):
    base, adapter = shutil.copytree(tiny_checkpoint, tmp_path / "base"), tmp_path / "adapter"
    (base / "modeling_extra.py").write_text("of the base")
    (base / "pytorch_model.bin").write_bytes(b"other weights")
    model = AutoModelMIX.from_pretrained(base)
    from paddlemix.peft.adapter_config import AdapterConfig
    from paddlemix.peft.lora_model import MixLoRAModel

    MixLoRAModel.adapting(model, AdapterConfig(2, 4), ["model.layers.0.self_attn.q_proj"]).save_pretrained(adapter)
    (adapter / "generation_config.json").write_text('{"max_new_tokens": 7}')
    (adapter / "all_results.json").write_text("{}")
    folder = merged(base, adapter, tmp_path / "merged")
    names = {path.name for path in folder.iterdir()}
    wanted = {path.name for path in tiny_checkpoint.iterdir()} | {"modeling_extra.py", "generation_config.json"}
    assert names == wanted and len(names) > 6
    assert (folder / "tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()
    assert json.loads((folder / "generation_config.json").read_text()) == {"max_new_tokens": 7}


def test_an_adapter_of_another_base_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(
        ValueError, match=r"does not fit .*untied.*trained on .*tied.*lora_A.weight of \[3, 64\], where the base has"
    ):
        merged(BASES / "untied", ADAPTERS / "tied", tmp_path / "merged")
    assert not (tmp_path / "merged").exists()
