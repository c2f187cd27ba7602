"""Each kind of adapter trained further as PEFT trains it: against the files of kinds_reference.py, and PEFT itself."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import paddle
import pytest
from paddle import nn
from safetensors.numpy import load_file, save_file

from paddlemix.auto import AutoModelMIX
from paddlemix.peft.adapter import trained_tensors
from paddlemix.peft.adapter_config import AdapterConfig, read_adapter_config
from paddlemix.peft.adapter_names import parse
from paddlemix.peft.layers import DoRALinear
from paddlemix.peft.lora_model import MixLoRAModel
from paddlemix.peft.merge import Merge
from paddlemix.peft.merging.adapted import AdaptedWeights
from paddlemix.peft.renaming import rename_adapter
from paddlemix.peft.targets import linear_layers

FIXTURES = Path(__file__).parents[1] / "fixtures"
ROOT, BASE = FIXTURES / "adapter_kinds", FIXTURES / "adapters" / "bases" / "qwen2_vl_untied"
SCRIPT, VARIABLE = Path(__file__).with_name("kinds_reference.py"), "REFERENCE_PYTHON"
KINDS = sorted(path.name for path in ROOT.iterdir())
IDS, GRID = [5, 6, 30, 32, 31, 7, 3, 9], [1, 2, 2]
STEPS, RATE = 3, 0.02
# Of the largest number of a gradient, and of weights of size 1 after three steps; measured at 3e-6 and 3e-7.
GRADIENT_TOLERANCE, WEIGHT_TOLERANCE = 2e-5, 3e-6
LOGITS_TOLERANCE = 2e-5
LAYERS = r".*\.(q_proj|down_proj)|.*blocks\.0\.attn\.qkv"


class EverySecond(nn.Dropout):
    """As kinds_reference.py has it."""

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return x * 2 * (paddle.arange(x.shape[-1]) % 2 == 0).astype(x.dtype) if self.training else x


def batch() -> dict[str, paddle.Tensor]:
    pixels = np.random.default_rng(0).normal(size=(4, 96)).astype("float32")
    inputs = {"input_ids": [IDS], "pixel_values": pixels, "image_grid_thw": [GRID]}
    return {name: paddle.to_tensor(one) for name, one in inputs.items()}


def logits_of(model) -> np.ndarray:
    with paddle.no_grad():
        return model(**batch()).logits.numpy()


def loss_of(model) -> paddle.Tensor:
    return model(**batch(), labels=batch()["input_ids"]).loss


def continued(folder: Path, **options) -> MixLoRAModel:
    model = MixLoRAModel.continuing(AutoModelMIX.from_pretrained(BASE), folder, base=BASE.name, **options)
    for layer in model.sublayers():
        if isinstance(getattr(layer, "lora_dropout", None), nn.Dropout):
            layer.lora_dropout = EverySecond(layer.lora_dropout.p)
    return model


def reference(kind: str, part: str, model: MixLoRAModel) -> dict[str, np.ndarray]:
    """What PEFT found for each tensor, in the order of axes that ours has."""
    layout = model.model.weight_layout(model.model.config)
    with np.load(ROOT / kind / "reference.npz") as stored:
        found = {name.removeprefix(f"{part}/"): stored[name] for name in stored.files if name.startswith(part)}
    return {parse(name).here(layout): one.T for name, one in found.items()}


def adapting(seed: int | None = None, **settings) -> MixLoRAModel:
    """A new adapter, whose trained numbers are moved by a seed."""
    base = AutoModelMIX.from_pretrained(BASE)
    layers = [name for name in linear_layers(base) if re.fullmatch(LAYERS, name)]
    model = MixLoRAModel.adapting(base, AdapterConfig(2, 5, base=str(BASE), **settings), layers)
    if seed is not None:
        rng = np.random.default_rng(seed)
        for parameter in trained_tensors(model).values():
            parameter.set_value(parameter + paddle.to_tensor(rng.normal(size=parameter.shape).astype("float32") * 0.2))
    model.eval()
    return model


@pytest.mark.parametrize("kind", KINDS)
def test_loss_and_gradients_are_those_of_peft(kind: str) -> None:
    model = continued(ROOT / kind)
    wanted = reference(kind, "gradient", model)
    model.train()
    loss = loss_of(model)
    assert float(loss) == pytest.approx(float(np.load(ROOT / kind / "reference.npz")["loss"]), rel=1e-5)
    loss.backward()
    found = {name: one.grad.numpy() for name, one in trained_tensors(model.model).items()}
    assert found.keys() == wanted.keys() and len(found) >= 10
    for name, gradient in wanted.items():
        tolerance = GRADIENT_TOLERANCE * max(np.abs(gradient).max(), 1e-3)
        np.testing.assert_allclose(found[name], gradient, atol=tolerance, rtol=0, err_msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_steps_lead_where_those_of_peft_do_and_are_saved_under_its_names(kind: str, tmp_path: Path) -> None:
    model = continued(ROOT / kind)
    model.train()
    optimizer = paddle.optimizer.SGD(RATE, parameters=list(trained_tensors(model.model).values()))
    for _ in range(STEPS):
        loss_of(model).backward()
        optimizer.step()
        optimizer.clear_grad()
    model.save_pretrained(tmp_path)
    found, before = (load_file(one / "adapter_model.safetensors") for one in (tmp_path, ROOT / kind))
    with np.load(ROOT / kind / "reference.npz") as stored:
        assert {f"after/{name}" for name in found} == {name for name in stored.files if name.startswith("after/")}
        for name, one in found.items():
            np.testing.assert_allclose(one, stored[f"after/{name}"], atol=WEIGHT_TOLERANCE, rtol=0, err_msg=name)
    assert any(np.abs(found[name] - before[name]).max() > 1e-3 for name in found)
    # What the config says of it is what PEFT's says, whatever the patterns look like.
    ours, theirs = read_adapter_config(tmp_path), read_adapter_config(ROOT / kind)
    for name in (parse(one).place for one in found if "lora_A" in one):
        assert ours.product_of(name).alpha == theirs.product_of(name).alpha
        assert ours.product_of(name).rank == found[f"base_model.model.{name}.lora_A.weight"].shape[0]
    assert (ours.dora, ours.bias, ours.modules_to_save) == (theirs.dora, theirs.bias, ())


@pytest.mark.parametrize("kind", KINDS)
def test_beside_the_layers_and_in_the_weights_the_same_is_computed(kind: str, tmp_path: Path) -> None:
    beside = MixLoRAModel.from_pretrained(AutoModelMIX.from_pretrained(BASE), ROOT / kind)
    wanted = logits_of(beside)
    merge = Merge(AdaptedWeights.of(BASE, ROOT / kind))
    merge.write_weights(tmp_path)
    merge.write_side_files(tmp_path)
    np.testing.assert_allclose(logits_of(AutoModelMIX.from_pretrained(tmp_path)), wanted, atol=LOGITS_TOLERANCE)
    loaded = logits_of(AutoModelMIX.from_pretrained(BASE, lora_path=ROOT / kind))
    np.testing.assert_allclose(loaded, wanted, atol=LOGITS_TOLERANCE)
    np.testing.assert_allclose(logits_of(beside.take_off()), wanted, atol=LOGITS_TOLERANCE)
    assert np.abs(wanted - logits_of(AutoModelMIX.from_pretrained(BASE))).max() > 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_is_written_as_it_was_read(kind: str, tmp_path: Path) -> None:
    continued(ROOT / kind).save_pretrained(tmp_path)
    ours, theirs = (load_file(one / "adapter_model.safetensors") for one in (tmp_path, ROOT / kind))
    assert ours.keys() == theirs.keys() and all(np.array_equal(ours[name], theirs[name]) for name in ours)


class TestDoRA:
    def test_begins_as_the_base_with_the_lengths_of_its_weights(self) -> None:
        model = adapting(dora=True)
        layer = model.model.model.layers[0].self_attn.q_proj
        lengths = np.linalg.norm(layer.weight.numpy(), axis=0)
        np.testing.assert_allclose(layer.lora_magnitude_vector.numpy(), lengths, rtol=1e-6)
        np.testing.assert_allclose(
            logits_of(model), logits_of(AutoModelMIX.from_pretrained(BASE)), atol=LOGITS_TOLERANCE
        )

    def test_lengths_of_large_weights_are_summed_in_blocks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        model = adapting(seed=1, dora=True)
        wanted = logits_of(model)
        monkeypatch.setattr("paddlemix.peft.layers._ROWS", 5)
        np.testing.assert_allclose(logits_of(model), wanted, atol=LOGITS_TOLERANCE)

    def test_lengths_learn_as_fast_as_the_factor_that_starts_as_zero(self) -> None:
        model = continued(ROOT / "dora_patterns_bias", lora_plus_scale=16.0)
        rates = {name: one.optimize_attr["learning_rate"] for name, one in trained_tensors(model.model).items()}
        slow = {name for name, rate in rates.items() if rate == 1}
        assert slow == {name for name in rates if name.endswith("lora_A")}
        assert {rate for name, rate in rates.items() if name not in slow} == {16.0}

    def test_is_merged_and_unmerged(self) -> None:
        model = adapting(seed=1, dora=True)
        layers = [one for one in model.sublayers() if isinstance(one, DoRALinear)]
        wanted, weights = logits_of(model), [one.weight.numpy() for one in layers]
        model.merge()
        np.testing.assert_allclose(logits_of(model), wanted, atol=LOGITS_TOLERANCE)
        assert not any(np.array_equal(one.weight.numpy(), before) for one, before in zip(layers, weights, strict=True))
        model.unmerge()
        assert all(np.array_equal(one.weight.numpy(), before) for one, before in zip(layers, weights, strict=True))
        assert np.array_equal(logits_of(model), wanted)


class TestPatterns:
    def test_saved_endings_stand_for_each_layer_alone(self, tmp_path: Path) -> None:
        patterns = {"rank_pattern": {r"model\..*q_proj": 3}, "alpha_pattern": {"qkv": 9, "down_proj": 5}}
        model = adapting(**patterns)
        ranks = {name.rpartition(".")[2]: product for name, product in model.products.items()}
        assert ranks == {"q_proj": (3, 5), "down_proj": (2, 5), "qkv": (2, 9)}
        model.save_pretrained(tmp_path)
        written = json.loads((tmp_path / "adapter_config.json").read_text())
        # The same keys in both, for versions of PEFT that look for one key in both.
        assert written["rank_pattern"] == {"qkv": 2, "q_proj": 3} and written["alpha_pattern"] == {
            "qkv": 9,
            "q_proj": 5,
        }
        again = MixLoRAModel.from_pretrained(AutoModelMIX.from_pretrained(BASE), tmp_path)
        assert again.products == model.products and again.adapter_config == model.adapter_config

    def test_without_patterns_the_file_has_no_keys_of_them(self, tmp_path: Path) -> None:
        adapting().save_pretrained(tmp_path)
        written = json.loads((tmp_path / "adapter_config.json").read_text())
        assert not {"rank_pattern", "alpha_pattern", "use_dora"} & written.keys() and written["bias"] == "none"


class TestBiases:
    @pytest.mark.parametrize(("bias", "count"), [("all", 12), ("lora_only", 2)])
    def test_are_trained_and_are_no_layers_that_are_saved_whole(self, bias: str, count: int, tmp_path: Path) -> None:
        model = adapting(bias=bias)
        assert len(model.trained_biases) == count and model.whole_layers == []
        model.save_pretrained(tmp_path)
        stored = load_file(tmp_path / "adapter_model.safetensors")
        assert sum(name.endswith("q_proj.base_layer.bias") for name in stored) == 1
        assert json.loads((tmp_path / "adapter_config.json").read_text())["modules_to_save"] is None

    def test_that_an_old_version_did_not_write_are_the_bases(self, tmp_path: Path) -> None:
        model = adapting(seed=1, bias="lora_only")
        model.save_pretrained(tmp_path)
        file = tmp_path / "adapter_model.safetensors"
        save_file({name: one for name, one in load_file(file).items() if "bias" not in name}, file)
        again = continued(tmp_path)
        own = AutoModelMIX.from_pretrained(BASE).model.layers[0].self_attn.q_proj.bias.numpy()
        assert np.array_equal(again.model.model.layers[0].self_attn.q_proj.bias.numpy(), own)
        assert again.trained_biases == model.trained_biases


@pytest.mark.parametrize("settings", [{"dora": True, "bias": "all"}, {"rank_pattern": {"c_attn": 3}}], ids=str)
def test_qwen_vls_adapters_of_each_kind_come_back(settings, qwen_vl, tiny_qwen_vl, scramble, tmp_path) -> None:
    layers = [name for name in linear_layers(qwen_vl) if name.endswith(("c_attn", "c_proj", "c_fc"))]
    model = MixLoRAModel.adapting(qwen_vl, AdapterConfig(2, 5, base=str(tiny_qwen_vl), **settings), layers)
    scramble(model)
    model.eval()
    model.save_pretrained(tmp_path)
    inputs = {"input_ids": paddle.to_tensor([[5, 6, 7, 8, 9]])}
    again = MixLoRAModel.from_pretrained(AutoModelMIX.from_pretrained(tiny_qwen_vl), tmp_path)
    assert again.adapter_config == model.adapter_config
    found, wanted = (trained_tensors(one.model) for one in (again, model))
    assert found.keys() == wanted.keys() and len(found) >= 2 * len(layers) > 0
    assert all(np.array_equal(found[name].numpy(), one.numpy()) for name, one in wanted.items())
    assert np.array_equal(again(**inputs).logits.numpy(), model(**inputs).logits.numpy())
    merged = AutoModelMIX.from_pretrained(tiny_qwen_vl, lora_path=tmp_path)
    np.testing.assert_allclose(merged(**inputs).logits.numpy(), model(**inputs).logits.numpy(), atol=LOGITS_TOLERANCE)


def test_patterns_are_written_again_for_the_names_that_layers_get(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    shutil.copytree(ROOT / "patterns", source)
    values = json.loads((source / "adapter_config.json").read_text())
    values["alpha_pattern"] = {r"model\.language_model\..*\.q_proj": 7}
    (source / "adapter_config.json").write_text(json.dumps(values))
    target.mkdir()
    model = continued(source)
    rename_adapter(source, target, model.model.weight_layout(model.model.config), in_memory=False)
    names = [parse(name).place for name in load_file(target / "adapter_model.safetensors") if "lora_A" in name]
    assert "model.layers.0.self_attn.q_proj" in names
    config = read_adapter_config(target)
    alphas = {name.rpartition(".")[2]: config.product_of(name).alpha for name in names}
    assert alphas == {"q_proj": 7, "down_proj": 5, "qkv": 5, "fc1": 5, "0": 5}
    wanted = logits_of(model)
    found = logits_of(MixLoRAModel.from_pretrained(AutoModelMIX.from_pretrained(BASE), target))
    np.testing.assert_allclose(found, wanted, atol=LOGITS_TOLERANCE)


def test_what_is_no_product_beside_a_linear_layer_is_not_trained_further() -> None:
    folder = FIXTURES / "adapters" / "5.24" / "dora_embedding"
    with pytest.raises(ValueError, match="more than products beside linear layers.*Merge it into its base with"):
        continued(folder)


@pytest.fixture(scope="module")
def peft_python() -> str:
    python = os.environ.get(VARIABLE)
    if python is None or subprocess.run([python, "-c", "import peft"], capture_output=True).returncode:
        pytest.skip(f"{VARIABLE} names no Python that has torch, transformers and peft")
    return python


@pytest.mark.parametrize(
    "settings",
    [
        {"rank_pattern": {"q_proj": 3}, "alpha_pattern": {"qkv": 9}, "rslora": True},
        {"dora": True, "rank_pattern": {"q_proj": 3}},
        {"bias": "all"},
        {"bias": "lora_only", "dora": True},
    ],
    ids=["patterns", "dora", "bias_all", "bias_lora_only"],
)
def test_peft_computes_the_same_from_what_is_written_here(settings: dict, peft_python: str, tmp_path: Path) -> None:
    model = adapting(seed=1, **settings)
    model.save_pretrained(tmp_path / "adapter")

    def difference() -> float:
        np.savez(tmp_path / "logits.npz", logits=logits_of(model))
        words = [peft_python, SCRIPT, "--read", tmp_path / "adapter", tmp_path / "logits.npz"]
        ended = subprocess.run(words, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr
        return json.loads(ended.stdout.splitlines()[-1])

    assert difference() < LOGITS_TOLERANCE
    up = model.model.model.layers[0].self_attn.q_proj.lora_B
    up.set_value(paddle.ones_like(up))
    # And would have told a difference.
    assert difference() > 1e-3
