"""Adapters that versions of PEFT and transformers wrote, read and merged here; see make_adapter_versions.py."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import paddle
import pytest

from paddlemix.auto import AutoModelMIX
from paddlemix.peft.merge import Merge
from paddlemix.peft.merging.adapted import AdaptedWeights

ROOT = Path(__file__).parents[1] / "fixtures" / "adapters"
BASES = ROOT / "bases"
FOLDERS = sorted(file.parent for file in ROOT.glob("[45]*/*/adapter_config.json"))
MERGED = [folder for folder in FOLDERS if any("merged/" in name for name in np.load(folder / "reference.npz").files)]
IDS, GRID = [5, 6, 30, 32, 31, 7, 3, 9], [1, 2, 2]
# Logits of size 1 to 10; float32 noise measured at 4e-6, of merged weights at 2.4e-7.
TOLERANCE, WEIGHT_TOLERANCE = 2e-5, 1e-6
# PEFT adds a tied weight's product in place, and so to both head and embedding, or twice; before merging it computes
# what we do.
MERGED_OTHERWISE = {
    "embedding_tied": ["lm_head.weight"],
    "head_tied": ["model.embed_tokens.weight"],
    "tied_ensured_lora": ["lm_head.weight", "model.embed_tokens.weight"],
}


def name_of(folder: Path) -> str:
    return f"{folder.parent.name}-{folder.name}"


def base_of(folder: Path) -> Path:
    return BASES / json.loads((folder / "adapter_config.json").read_text("utf-8"))["base_model_name_or_path"]


def logits_of(model) -> np.ndarray:
    pixels = np.random.default_rng(0).normal(size=(4, 96)).astype("float32")
    inputs = {"input_ids": [IDS], "pixel_values": pixels, "image_grid_thw": [GRID]}
    with paddle.no_grad():
        return model(**{name: paddle.to_tensor(one) for name, one in inputs.items()}).logits.numpy()


def merged(folder: Path, target: Path) -> Path:
    target.mkdir()
    merge = Merge(AdaptedWeights.of(base_of(folder), folder))
    merge.write_weights(target)
    merge.write_side_files(target)
    return target


def test_every_version_has_adapters_of_every_part():
    versions = {folder.parent.name for folder in FOLDERS}
    assert len(versions) == 6 and len(MERGED) > 20
    assert {name_of(folder) for folder in FOLDERS} > {f"{version}-whole" for version in versions}


@pytest.mark.parametrize("folder", FOLDERS, ids=name_of)
def test_an_adapter_gives_the_logits_of_the_version_that_wrote_it(folder, tmp_path):
    wanted = np.load(folder / "reference.npz")["logits"]
    before = logits_of(AutoModelMIX.from_pretrained(base_of(folder)))
    found = logits_of(AutoModelMIX.from_pretrained(base_of(folder), lora_path=folder))
    np.testing.assert_allclose(found, wanted, atol=TOLERANCE, rtol=0)
    assert np.abs(found[..., :40] - before).max() > 0.1, "the adapter changes nothing"
    again = logits_of(AutoModelMIX.from_pretrained(merged(folder, tmp_path / "merged")))
    np.testing.assert_allclose(again, wanted, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("folder", MERGED, ids=name_of)
def test_merged_weights_are_those_of_peft(folder):
    weights = AdaptedWeights.of(base_of(folder), folder)
    with np.load(folder / "reference.npz") as reference:
        for name in (name for name in reference.files if name.startswith("merged/")):
            here = weights.layout.name_here(name.removeprefix("merged/"))
            if here in MERGED_OTHERWISE.get(folder.name, []):
                continue
            is_tied = here == "lm_head.weight" and weights.config["tie_word_embeddings"]
            source = "model.embed_tokens.weight" if is_tied else here
            found = weights.numbers(source, "float32")
            np.testing.assert_allclose(found, reference[name], atol=WEIGHT_TOLERANCE, rtol=0)


@pytest.mark.parametrize(
    ("kind", "unties"), [("tied_both", True), ("tied_embedding", True), ("tied_head", True), ("tied_ensured", False)]
)
def test_a_head_becomes_a_weight_of_its_own_where_it_differs_from_the_embedding(kind, unties, tmp_path):
    folder = merged(ROOT / "5.24" / kind, tmp_path / "merged")
    assert json.loads((folder / "config.json").read_text())["tie_word_embeddings"] is not unties
    names = AdaptedWeights.of(base_of(ROOT / "5.24" / kind), ROOT / "5.24" / kind).tensors
    assert ("lm_head.weight" in names) is unties


def test_a_grown_vocabulary_is_merged_with_the_tokenizer_of_the_adapter(tmp_path):
    folder = merged(ROOT / "5.24" / "grown_tied", tmp_path / "merged")
    assert json.loads((folder / "config.json").read_text())["vocab_size"] == 46
    assert len(json.loads((folder / "added_tokens.json").read_text())) == 6


def test_names_written_here_are_those_that_the_newest_version_writes():
    from safetensors.numpy import load_file

    ours, theirs = (load_file(ROOT / one / "layers" / "adapter_model.safetensors") for one in ("ours", "5.24"))
    shared = {name for name in ours if "q_proj" in name or "qkv" in name}
    assert len(shared) == len(ours) == 4 and shared < theirs.keys()


def test_every_version_since_4_52_reads_what_is_written_here():
    matrix = json.loads((ROOT / "matrix.json").read_text())
    assert {reader for reader, found in matrix.items() if not found["ours"]} == {"4.52", "4.57", "5.0", "5.24"}
    assert not matrix["4.49"]["ours_before_4.52"]
    # Of 4.45 nothing but Qwen2.5-VL, which it does not have.
    assert set(matrix["4.45"]["ours_before_4.52"]) <= {"layers_2_5"}


def test_the_table_of_the_docs_is_what_the_versions_did():
    from .versions.table import table

    assert table() in (Path(__file__).parents[2] / "docs" / "adapters.md").read_text("utf-8")


def copy(folder: Path, target: Path, **changes: object) -> Path:
    shutil.copytree(folder, target)
    values = json.loads((target / "adapter_config.json").read_text("utf-8"))
    (target / "adapter_config.json").write_text(json.dumps({**values, **changes}))
    return target


def test_a_base_quantised_otherwise_is_told_and_not_called_another(tmp_path):
    base = shutil.copytree(BASES / "qwen2_vl_untied", tmp_path / "base")
    values = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(
        json.dumps({**values, "quantization_config": {"quant_method": "awq", "version": "gemv"}})
    )
    with pytest.raises(ValueError, match=r"AWQ's `version` \"gemv\".*was made from"):
        AdaptedWeights.of(base, ROOT / "5.24" / "layers")


def test_a_vocabulary_that_the_file_does_not_hold_is_told(tmp_path):
    from safetensors.numpy import load_file, save_file

    folder = copy(ROOT / "5.24" / "grown_embedding", tmp_path / "adapter")
    tensors = load_file(folder / "adapter_model.safetensors")
    kept = {name: one for name, one in tensors.items() if "base_layer" not in name and "lm_head" not in name}
    save_file(kept, folder / "adapter_model.safetensors")
    with pytest.raises(ValueError, match=r"another vocabulary .*for 46 tokens, and the embedding has 40"):
        AutoModelMIX.from_pretrained(base_of(folder), lora_path=folder)


def test_a_products_bias_without_a_bias_to_add_it_to_is_told(tmp_path):
    from safetensors.numpy import load_file, save_file

    folder = copy(ROOT / "5.24" / "layers", tmp_path / "adapter")
    tensors = load_file(folder / "adapter_model.safetensors")
    layer = "base_model.model.model.language_model.layers.0.mlp.down_proj"
    save_file({**tensors, f"{layer}.lora_B.bias": np.ones(16, np.float32)}, folder / "adapter_model.safetensors")
    with pytest.raises(ValueError, match=r"`lora_bias` gives model.layers.0.mlp.down_proj a bias, and .* has none"):
        AutoModelMIX.from_pretrained(base_of(folder), lora_path=folder)


def test_names_of_a_whole_state_with_the_adapters_own_name_are_read_too(tmp_path):
    from safetensors.numpy import load_file, save_file

    folder = copy(ROOT / "5.24" / "layers", tmp_path / "adapter")
    tensors = load_file(folder / "adapter_model.safetensors")
    save_file(
        {name.replace(".weight", ".default.weight"): one for name, one in tensors.items()},
        folder / "adapter_model.safetensors",
    )
    found = logits_of(AutoModelMIX.from_pretrained(base_of(folder), lora_path=folder))
    np.testing.assert_allclose(found, np.load(folder / "reference.npz")["logits"], atol=TOLERANCE, rtol=0)
