"""Models with quantised weights, of each family: as the published formats have them, and rounded while being read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import paddle
import pytest
from safetensors.numpy import load_file, save_file

from paddlemix.auto import AutoModelMIX
from paddlemix.models.base import MixPretrainedModel
from paddlemix.models.quantized import Quantizing, quantized_layers
from paddlemix.models.registry import find_family
from paddlemix.models.vocabulary import with_rows
from paddlemix.peft.adapter_config import AdapterConfig
from paddlemix.peft.lora_model import MixLoRAModel
from paddlemix.peft.merging.adapted import AdaptedWeights
from paddlemix.peft.targets import language_layers
from paddlemix.quantization.rounding import KINDS

from ..families import FamilyCase, each_family
from ..quantization.packing import PACKINGS, Packing

FIXTURES = Path(__file__).parents[1] / "fixtures"
# Of the largest: products of codes sum in other parts than those of plain weights.
TOLERANCE = 1e-5


def pack(folder: Path, target: Path, packing: Packing, *, empty_biases: bool = False) -> Path:
    """Write a checkpoint as `target` with its decoder's linear layers packed, and as `target`-plain what that means."""
    family = find_family(folder)
    layers = language_layers(AutoModelMIX.from_pretrained(folder), family.language_globs)
    layout = family.model_class.weight_layout(AutoModelMIX.from_pretrained(folder).config)
    stored = load_file(folder / "model.safetensors")
    packed, plain = {}, {}
    for name, array in stored.items():
        layer = layout.name_here(name).removesuffix(".weight")
        if layer not in layers or not name.endswith(".weight"):
            packed[name] = plain[name] = array
            continue
        tensors, plain[name] = packing.pack(array.astype(np.float32))
        there = name.removesuffix(".weight")
        packed |= {f"{there}.{part}": one for part, one in tensors.items()}
        if empty_biases and f"{there}.bias" not in stored:
            packed[f"{there}.bias"] = np.zeros(len(array), np.float16)
    values = json.loads((folder / "config.json").read_text("utf-8"))
    for path, tensors, extra in ((target, packed, {"quantization_config": packing.config}),
                                 (target.with_name(f"{target.name}-plain"), plain, {})):  # fmt: skip
        shutil.copytree(folder, path)
        save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
        (path / "config.json").write_text(json.dumps({**values, **extra}), "utf-8")
    return target


def logits(model: MixPretrainedModel) -> np.ndarray:
    ids = paddle.to_tensor(np.random.default_rng(0).integers(5, 200, (2, 12)))
    with paddle.no_grad():
        return model(input_ids=ids).logits.numpy()


def assert_close(found: np.ndarray, wanted: np.ndarray, name: str = "") -> None:
    assert np.abs(wanted).max() > 1e-5, name
    np.testing.assert_allclose(found, wanted, atol=TOLERANCE * np.abs(wanted).max(), err_msg=name)


def adapted(model: MixPretrainedModel, layers: list[str]) -> MixLoRAModel:
    """Put adapters on layers that change what they compute."""
    made = MixLoRAModel.adapting(model, AdapterConfig(4, 8), layers)
    rng = np.random.default_rng(1)
    for name, parameter in made.named_parameters():
        if "lora_" in name:
            parameter.set_value(rng.normal(size=parameter.shape).astype("float32") * 0.1)
    made.train()
    return made


@each_family
@pytest.mark.parametrize("form", PACKINGS)
def test_published_formats_compute_what_their_codes_stand_for(case: FamilyCase, form, request, tmp_path):
    folder = pack(case.folder(request), tmp_path / "packed", PACKINGS[form])
    model, plain = (AutoModelMIX.from_pretrained(one) for one in (folder, tmp_path / "packed-plain"))
    layers = language_layers(plain, find_family(folder).language_globs)
    assert model.is_quantized and list(quantized_layers(model)) == layers and not plain.is_quantized
    assert_close(logits(model), logits(plain))


@each_family
def test_adapters_on_codes_get_the_gradients_of_those_on_plain_weights(case: FamilyCase, request, tmp_path):
    folder = pack(case.folder(request), tmp_path / "packed", PACKINGS["awq"])
    ids = paddle.to_tensor(np.random.default_rng(0).integers(5, 200, (2, 12)))
    gradients = []
    for one in (folder, tmp_path / "packed-plain"):
        model = AutoModelMIX.from_pretrained(one)
        made = adapted(model, language_layers(model, find_family(folder).language_globs))
        made(input_ids=ids, labels=ids).loss.backward()
        found = {name: parameter.grad.numpy() for name, parameter in made.named_parameters() if "lora_" in name}
        gradients.append(found)
        assert {name for name, parameter in made.named_parameters() if parameter.grad is not None} == found.keys()
    assert len(gradients[0]) > 10
    for name, wanted in gradients[1].items():
        assert_close(gradients[0][name], wanted, name)


@each_family
@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_rounded_while_they_are_read(case: FamilyCase, kind, request):
    family = find_family(folder := case.folder(request))
    model, same = (family.model_class.from_pretrained(folder, quantizing=Quantizing(kind)) for _ in range(2))
    same.dequantize()
    assert model.is_quantized and not same.is_quantized and not quantized_layers(same)
    assert_close(logits(model), logits(same))
    whole = logits(family.model_class.from_pretrained(folder))
    assert 0 < np.abs(logits(model) - whole).max() < 0.5 * np.abs(whole).max()


@each_family
def test_the_tower_is_rounded_where_it_is_asked_for_and_the_head_never(case: FamilyCase, request):
    family = find_family(folder := case.folder(request))
    model, all_of_it = (
        family.model_class.from_pretrained(folder, quantizing=Quantizing("nf4", vision)) for vision in (False, True)
    )
    language = set(quantized_layers(model))
    others = set(quantized_layers(all_of_it)) - language
    assert language == set(language_layers(model, family.language_globs)) and others
    assert not any(name.endswith("lm_head") or "patch_embed" in name or "conv1" in name for name in others)


def test_biases_of_zeros_that_no_layer_has_are_left_out(tiny_checkpoint, tmp_path):
    folder = pack(tiny_checkpoint, tmp_path / "packed", PACKINGS["gptq-int4"], empty_biases=True)
    assert_close(logits(AutoModelMIX.from_pretrained(folder)), logits(AutoModelMIX.from_pretrained(f"{folder}-plain")))
    stored = load_file(folder / "model.safetensors")
    stored["model.layers.0.self_attn.o_proj.bias"][3] = 1
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"unexpected: model\.layers\.0\.self_attn\.o_proj\.bias"):
        AutoModelMIX.from_pretrained(folder)


def test_a_missing_part_is_named(tiny_checkpoint, tmp_path):
    folder = pack(tiny_checkpoint, tmp_path / "packed", PACKINGS["gptq-int4"])
    stored = load_file(folder / "model.safetensors")
    del stored["model.layers.1.mlp.up_proj.scales"]
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"weight of model\.layers\.1\.mlp\.up_proj cannot be read: scales is missing"):
        AutoModelMIX.from_pretrained(folder)


@pytest.mark.parametrize("base", ["tied", "untied"])
def test_a_quantised_head_is_refused_before_it_is_compared_with_an_embedding(base, tmp_path, monkeypatch):
    folder = shutil.copytree(FIXTURES / "qwen2_vl_tiny" / base, tmp_path / "base")
    stored = load_file(folder / "model.safetensors")
    head = stored.pop("lm_head.weight", stored["model.embed_tokens.weight"])
    tensors, _ = PACKINGS["awq"].pack(head.astype(np.float32))
    save_file(
        stored | {f"lm_head.{part}": one for part, one in tensors.items()},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    values = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps({**values, "quantization_config": PACKINGS["awq"].config}), "utf-8")
    monkeypatch.setattr("paddlemix.quantization.stored.QuantizedTensor.read_into", None)
    for read in (AutoModelMIX.from_pretrained, lambda one: AdaptedWeights.of(one, FIXTURES / "peft_adapter" / base)):
        with pytest.raises(ValueError, match=r"lm_head\.weight is quantised; expected that of linear layers other"):
            read(folder)


def test_models_of_codes_are_not_saved_and_not_split(tiny_checkpoint, tmp_path):
    family = find_family(tiny_checkpoint)
    model = family.model_class.from_pretrained(tiny_checkpoint, quantizing=Quantizing("int8"))
    with pytest.raises(ValueError, match="held as codes, which no files are written of"):
        model.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()
    with pytest.raises(ValueError, match="quantised layers are not split over ranks"):
        family.model_class.from_pretrained(tiny_checkpoint, quantizing=Quantizing("int8"), tensor_parallel_degree=2)
    with pytest.raises(ValueError, match="`quantize` is 'int3'; expected one of nf4, int8, int4"):
        Quantizing("int3")
    layers = language_layers(model, family.language_globs)
    with pytest.raises(ValueError, match="`use_dora`"):
        MixLoRAModel.adapting(model, AdapterConfig(4, 8, dora=True), layers)
    with pytest.raises(ValueError, match="held as codes, which it cannot be added to"):
        adapted(model, layers).take_off()


def test_tokens_can_be_added_to_a_model_of_codes(tiny_checkpoint):
    model = find_family(tiny_checkpoint).model_class.from_pretrained(tiny_checkpoint, quantizing=Quantizing("nf4"))
    before, tokens = logits(model), model.config.vocab_size
    larger = with_rows(model, tokens + 8)
    assert larger.is_quantized and len(quantized_layers(larger)) == 14
    after = logits(larger)
    assert after.shape[-1] == tokens + 8
    assert_close(after[..., :tokens], before)
