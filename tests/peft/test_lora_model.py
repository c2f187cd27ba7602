"""Adapters against those of PEFT itself: the fixtures of make_adapter_reference.py, and PEFT where it is installed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import paddle
import pytest
from safetensors.numpy import load_file, save_file

from paddlemix import ops
from paddlemix.auto import AutoModelMIX
from paddlemix.files import write_json
from paddlemix.models.qwen2_vl.family import FAMILY as QWEN2_VL
from paddlemix.models.qwen_vl.family import FAMILY as QWEN_VL
from paddlemix.models.registry import find_family
from paddlemix.peft.adapter_config import AdapterConfig
from paddlemix.peft.lora_model import MixLoRAModel
from paddlemix.peft.targets import language_layers, linear_layers

from ..references import PEFT_ADAPTERS, base_of

FIXTURES = Path(__file__).parents[1] / "fixtures"
BASES, ADAPTERS = FIXTURES / "qwen2_vl_tiny", FIXTURES / "peft_adapter"
SCRIPT = Path(__file__).parents[1] / "models" / "make_adapter_reference.py"
VARIABLE = "REFERENCE_PYTHON"
CONFIG = AdapterConfig(rank=3, alpha=6, dropout=0.25)
# Logits of size 5 to 20; float32 noise measured at 6e-6.
TOLERANCE = 5e-5


@pytest.fixture(scope="module")
def peft_python() -> str:
    python = os.environ.get(VARIABLE)
    if python is None or subprocess.run([python, "-c", "import peft"], capture_output=True).returncode:
        pytest.skip(f"{VARIABLE} names no Python that has torch, transformers and peft")
    return python


def adapted(variant: str) -> MixLoRAModel:
    return AutoModelMIX.from_pretrained(base_of(variant), lora_path=ADAPTERS / variant)


def copy(variant: str, folder: Path, **changes) -> Path:
    shutil.copytree(ADAPTERS / variant, folder)
    values = json.loads((folder / "adapter_config.json").read_text("utf-8"))
    write_json(folder / "adapter_config.json", {**values, **changes})
    return folder


@pytest.mark.parametrize("variant", PEFT_ADAPTERS)
def test_logits_with_pefts_adapter_are_those_of_peft(variant, logits_of):
    model, base = adapted(variant), AutoModelMIX.from_pretrained(base_of(variant))
    with np.load(ADAPTERS / variant / "logits.npz") as stored:
        assert len(stored.files) == 2
        for batch in stored.files:
            found = logits_of(model, variant, batch)
            expected = stored[batch] * (found != 0)
            np.testing.assert_allclose(found, expected, atol=TOLERANCE, rtol=0)
            assert np.abs(found - logits_of(base, variant, batch)).max() > 1


@pytest.mark.parametrize("variant", PEFT_ADAPTERS)
def test_pefts_adapter_is_written_again_as_it_was_read(variant, tmp_path):
    adapted(variant).save_pretrained(tmp_path)
    theirs = load_file(ADAPTERS / variant / "adapter_model.safetensors")
    ours = load_file(tmp_path / "adapter_model.safetensors")
    assert ours.keys() == theirs.keys() and len(ours) > 8
    assert all(np.array_equal(ours[name], array) for name, array in theirs.items())
    read, written = (json.loads((one / "adapter_config.json").read_text()) for one in (ADAPTERS / variant, tmp_path))
    same = ["peft_type", "r", "lora_alpha", "use_rslora", "lora_dropout", "base_model_name_or_path"]
    assert {name: read[name] for name in same} == {name: written[name] for name in same}
    assert set(written["modules_to_save"] or ()) == set(read["modules_to_save"] or ())


@pytest.mark.parametrize(
    ("variant", "tower", "whole"),
    [
        ("tied", ["attn.proj"], ()),
        ("tied", ["attn.proj"], ("model.embed_tokens.weight",)),
        ("qwen2_5_vl", ["attn.proj", "mlp.gate_proj", "mlp.down_proj"], ()),
    ],
)
def test_peft_computes_the_same_logits_from_our_adapter(
    variant, tower, whole, scramble, logits_of, peft_python, tmp_path
):
    base = AutoModelMIX.from_pretrained(base_of(variant))
    layers = [*language_layers(base, find_family(base_of(variant)).language_globs), "visual.merger.mlp.0"]
    layers += [f"visual.blocks.0.{layer}" for layer in tower]
    model = MixLoRAModel.adapting(base, CONFIG, layers, whole)
    scramble(model)
    model.eval()
    model.save_pretrained(tmp_path / "adapter")
    model_name = base_of(variant).relative_to(FIXTURES)
    words = [peft_python, SCRIPT, "--check", tmp_path / "adapter", model_name]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

    def check(name: str) -> subprocess.CompletedProcess[str]:
        np.savez(tmp_path / name, **{batch: logits_of(model, variant, batch) for batch in ("mixed_left", "video")})
        return subprocess.run([*words, tmp_path / name], env=environment, capture_output=True, text=True)

    checked = check("logits.npz")
    assert checked.returncode == 0, checked.stderr
    assert checked.stdout.count("logits differ by") == 2
    # And would have told a difference.
    scramble(model, seed=1)
    assert "differ by" in check("other.npz").stderr


def test_qwen_vls_adapters_lie_in_pefts_layout_and_come_back(qwen_vl, tiny_qwen_vl, scramble, tmp_path):
    layers = language_layers(qwen_vl, QWEN_VL.language_globs)
    whole = ["transformer.wte.weight", "lm_head.weight"]
    inputs = {"input_ids": paddle.to_tensor([[5, 6, 7, 8, 9]])}
    model = MixLoRAModel.adapting(qwen_vl, CONFIG, layers, whole)
    scramble(model)
    model.eval()
    model.save_pretrained(tmp_path)
    stored = load_file(tmp_path / "adapter_model.safetensors")
    begin = "base_model.model.transformer.h.1.attn.c_attn"
    down, up = (stored[f"{begin}.{factor}.weight"] for factor in ("lora_A", "lora_B"))
    layer = qwen_vl.transformer.h[1].attn.c_attn
    assert np.array_equal(down, layer.lora_A.numpy().T) and np.array_equal(up, layer.lora_B.numpy().T)
    assert np.array_equal(stored["base_model.model.lm_head.weight"], qwen_vl.lm_head.weight.numpy().T)
    assert np.array_equal(stored["base_model.model.transformer.wte.weight"], qwen_vl.transformer.wte.weight.numpy())

    again = AutoModelMIX.from_pretrained(tiny_qwen_vl, lora_path=tmp_path)
    assert np.array_equal(again(**inputs).logits.numpy(), model(**inputs).logits.numpy())
    # PEFT takes an ending for every layer that has it: the tower's are not among them.
    endings = json.loads((tmp_path / "adapter_config.json").read_text())["target_modules"]
    matched = [name for name in linear_layers(again.model) if any(f".{name}".endswith(f".{one}") for one in endings)]
    assert matched == layers


def test_dropout_acts_in_training_alone_and_the_base_is_frozen(tied, scramble):
    model = MixLoRAModel.adapting(tied, CONFIG, language_layers(tied, QWEN2_VL.language_globs))
    scramble(model)
    inputs = {"input_ids": paddle.to_tensor([[5, 6, 7, 8, 9]])}

    def loss() -> paddle.Tensor:
        return model(**inputs, labels=inputs["input_ids"]).loss

    model.eval()
    assert float(loss()) == float(loss())
    model.train()
    first = loss()
    assert float(first) != float(loss())
    first.backward()
    reached = {name for name, parameter in tied.named_parameters() if parameter.grad is not None}
    assert len(reached) == 28 and all(name.endswith(("lora_A", "lora_B")) for name in reached)


def test_every_product_is_computed_by_our_op(tied, monkeypatch):
    model = MixLoRAModel.adapting(tied, CONFIG, ["model.layers.0.self_attn.q_proj"])
    layer, shapes = tied.model.layers[0].self_attn.q_proj, []
    run = ops.linear
    monkeypatch.setattr(ops, "linear", lambda x, weight, *rest: shapes.append(weight.shape) or run(x, weight, *rest))
    layer(paddle.ones([2, 48]))
    assert shapes == [[48, 48], [48, 3], [3, 48]]
    model.disable_lora()
    layer(paddle.ones([2, 48]))
    assert shapes[3:] == [[48, 48]]


def test_the_factor_that_starts_as_zero_learns_faster_with_lora_plus(tied):
    model = MixLoRAModel.adapting(tied, CONFIG, ["model.layers.0.self_attn.q_proj"], lora_plus_scale=16)
    factors = {name: one for name, one in tied.named_parameters() if not one.stop_gradient}
    before = {name: one.numpy() for name, one in factors.items()}
    optimizer = paddle.optimizer.AdamW(1e-3, parameters=list(factors.values()), weight_decay=0.0)
    layer = tied.model.layers[0].self_attn.q_proj
    layer.lora_B.set_value(paddle.full([3, 48], 0.1))
    before = {name: one.numpy() for name, one in factors.items()}
    model.train()
    model(input_ids=paddle.to_tensor([[5, 6, 7]]), labels=paddle.to_tensor([[5, 6, 7]])).loss.backward()
    optimizer.step()
    down, up = (np.median(np.abs(one.numpy() - before[name])) for name, one in factors.items())
    # AdamW's first step is the learning rate, whatever the gradient.
    assert np.isclose(down, 1e-3, rtol=1e-2) and np.isclose(up, 16e-3, rtol=1e-2)


class TestRefused:
    def test_an_adapter_of_a_wider_base_is_named_with_both_shapes_and_its_base(self):
        with pytest.raises(ValueError) as caught:
            AutoModelMIX.from_pretrained(BASES / "untied", lora_path=ADAPTERS / "tied")
        said = str(caught.value)
        assert "does not fit" in said and "trained on tests/fixtures/qwen2_vl_tiny/tied" in said and "\n" not in said
        assert "wrong shape" in said and "is [3, 64], the config asks for [3, 40]" in said

    def test_an_adapter_of_another_family_is_named_with_a_layer_that_is_not_there(self, tiny_qwen_vl):
        with pytest.raises(ValueError, match=r"does not fit the model.*no linear layer"):
            AutoModelMIX.from_pretrained(tiny_qwen_vl, lora_path=ADAPTERS / "tied")

    @pytest.mark.parametrize(
        ("changes", "expected"),
        [
            ({"r": 0}, "`r` is 0; expected a whole number above 0"),
            ({"r": 4}, r"`r` is 4, but .*lora_A.weight is \[3, 64\]"),
            ({"lora_alpha": "8"}, '`lora_alpha` is "8"; expected'),
            ({"use_dora": True}, "`use_dora` is true, but .* has no lora_magnitude_vector"),
            ({"peft_type": "IA3"}, '`peft_type` is "IA3", which is not done here'),
            ({"init_lora_weights": "pissa"}, r'`init_lora_weights` is "pissa".*Merge the adapter with PEFT'),
            ({"peft_type": "LOHA"}, r'"LOHA".*`PeftModel.from_pretrained\(base, folder\).merge_and_unload\(\)'),
            ({"peft_type": "PROMPT_TUNING"}, '"PROMPT_TUNING".*PEFT cannot merge it.*train a LoRA adapter'),
            ({"alora_invocation_tokens": [5]}, r"`alora_invocation_tokens` is \[5\].*PEFT cannot merge it"),
            ({"rank_pattern": {"q_proj": "4"}}, '`q_proj` is "4"; expected a whole number above 0'),
            ({"modules_to_save": {"merger": 1}}, '`modules_to_save` is {"merger": "..."}; expected a list of names'),
            ({"alpha_pattern": {"(": 4}}, r"`alpha_pattern`: .\(. is no regular expression"),
            ({"bias": "some"}, '`bias` is "some"; expected one of none, all, lora_only'),
        ],
    )
    def test_a_config_that_asks_for_something_else_is_refused_by_its_key(self, changes, expected, tied, tmp_path):
        with pytest.raises(ValueError, match=expected):
            MixLoRAModel.from_pretrained(tied, copy("tied", tmp_path / "adapter", **changes))

    def test_missing_and_damaged_files_are_named(self, tied, tmp_path):
        folder = copy("tied", tmp_path / "adapter")
        (folder / "adapter_model.safetensors").write_bytes(b"\0" * 20)
        with pytest.raises(ValueError, match=r"adapter_model.safetensors: damaged"):
            MixLoRAModel.from_pretrained(tied, folder)
        (folder / "adapter_model.safetensors").unlink()
        with pytest.raises(FileNotFoundError, match=r"no adapter_model.safetensors"):
            MixLoRAModel.from_pretrained(tied, folder)
        (folder / "adapter_config.json").write_text("{")
        with pytest.raises(ValueError, match=r"adapter_config.json:1: not valid JSON"):
            MixLoRAModel.from_pretrained(tied, folder)
        (folder / "adapter_config.json").unlink()
        with pytest.raises(FileNotFoundError, match=r"no adapter_config.json"):
            MixLoRAModel.from_pretrained(tied, folder)

    def test_one_factor_without_the_other_is_refused(self, tied, tmp_path):
        folder = copy("tied", tmp_path / "adapter")
        tensors = load_file(folder / "adapter_model.safetensors")
        tensors.pop(next(name for name in tensors if "lora_B" in name))
        save_file(tensors, folder / "adapter_model.safetensors")
        with pytest.raises(ValueError, match="has one of lora_A and lora_B"):
            MixLoRAModel.from_pretrained(tied, folder)

    def test_resuming_with_another_choice_of_layers_is_refused(self, tied):
        model = MixLoRAModel.adapting(tied, AdapterConfig(3, 8), ["model.layers.0.self_attn.q_proj"])
        with pytest.raises(ValueError, match="does not fit the adapters that `lora_target_modules` asks for"):
            model.load_adapter(ADAPTERS / "tied")
