"""Checkpoints that the tool quantises, from the command line to what is read of its files."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import paddle
import PIL.Image
import pytest
from safetensors.numpy import load_file, save_file

from paddlemix.auto import AutoModelMIX, AutoProcessorMIX
from paddlemix.calibration import base as calibration_base
from paddlemix.calibration import walk
from paddlemix.conversation import Conversation, Image, RecordId, Text, Turn
from paddlemix.generation import greedy_config
from paddlemix.generation.answer import answer
from paddlemix.models.base import MixPretrainedModel
from paddlemix.models.quantized import quantized_layers
from paddlemix.models.registry import find_family
from paddlemix.peft.targets import language_layers
from paddlemix.quantization.blocks import Blocks
from paddlemix.quantization.calibrated.columns import ColumnRounding
from paddlemix.quantization.scheme import read_scheme
from paddlemix.quantization.stored import QuantizedTensor, joined
from paddlemix.tools import quantize
from paddlemix.weights.files import stored_tensors

from ..families import FamilyCase, each_family
from ..models.test_quantized import assert_close, logits
from ..references import FIXTURES

Run = Callable[..., str]


def write_config(folder: Path, shapes: Path, *, evaluates: bool = True, **keys: object) -> Path:
    sets = {"train": [{"name": "vqa_dataset", "data_files": str(shapes / "train_vqa.json")}]}
    if evaluates:
        sets["eval"] = [{"name": "vqa_dataset", "data_files": str(shapes / "eval_vqa.json")}]
    config = {"model_name_or_path": "not read", "dataset": sets, "output_dir": str(folder / "out"), "do_train": True}
    path = folder / "calibration.json"
    path.write_text(json.dumps({**config, "per_device_train_batch_size": 3, **keys}))
    return path


@pytest.fixture
def run(monkeypatch, capsys) -> Run:
    """A function that runs the tool, and gives what it has printed."""

    def run(*words: object) -> str:
        monkeypatch.setattr(sys, "argv", ["quantize.py", *map(str, words)])
        quantize.main()
        return capsys.readouterr().out

    return run


@pytest.fixture
def intended(monkeypatch) -> dict[str, Blocks]:
    """The weights that the tool is about to write, by layer."""
    found: dict[str, Blocks] = {}
    parts = calibration_base.Base.parts

    def see(self: calibration_base.Base, layer: str, blocks: Blocks) -> dict[str, np.ndarray]:
        found[layer] = blocks
        return parts(self, layer, blocks)

    monkeypatch.setattr(calibration_base.Base, "parts", see)
    return found


def losses_in(said: str) -> tuple[float, float]:
    before, after = re.search(r": (\S+) before, (\S+) after", said).groups()
    return float(before), float(after)


def weights_in(folder: Path) -> dict[str, np.ndarray]:
    """Read what the codes of a folder's files stand for, by layer."""
    family, values = find_family(folder), json.loads((folder / "config.json").read_text("utf-8"))
    layout = family.model_class.weight_layout(family.config_class(**values))
    sources = joined(stored_tensors(folder), read_scheme(values, folder))
    return {
        layout.name_here(one.name).removesuffix(".weight"): one.blocks().numbers(slice(None))
        for one in sources
        if isinstance(one, QuantizedTensor)
    }


@each_family
@pytest.mark.parametrize("form", ["gptq", "awq"])
def test_a_model_is_quantised_and_read_again(case: FamilyCase, form, run, intended, request, shapes, tmp_path):
    folder, written = case.folder(request), tmp_path / "int4"
    said = run("--model_name_or_path", folder, "--calibration", write_config(tmp_path, shapes), "--format", form,
               "--group_size", 16, "--output", written)  # fmt: skip
    assert re.search(r"calibrating with 5 of 5 records of `dataset.train` \(\d{3} tokens\)", said)
    assert "loss of 4 of 4 records of `dataset.eval`" in said
    before, after = losses_in(said)
    assert 0 < abs(after - before) < 0.05 * before

    plain, model = AutoModelMIX.from_pretrained(folder), AutoModelMIX.from_pretrained(written)
    layers = language_layers(plain, find_family(folder).language_globs)
    assert list(intended) and sorted(intended) == sorted(layers) == sorted(quantized_layers(model))
    found = weights_in(written)
    for layer in layers:
        np.testing.assert_array_equal(found[layer], intended[layer].numbers(slice(None)), err_msg=layer)
    difference = np.abs(logits(model) - logits(plain)).max()
    assert 0 < difference < 0.5 * np.abs(logits(plain)).max()
    model.dequantize()
    assert_close(logits(model), logits(AutoModelMIX.from_pretrained(written)))

    names = {file.name for file in folder.iterdir()}
    assert {file.name for file in written.iterdir()} == names
    for name in names - {"config.json", "model.safetensors"}:
        assert (written / name).read_bytes() == (folder / name).read_bytes()
    values = json.loads((written / "config.json").read_text("utf-8"))
    assert values.pop("quantization_config")["quant_method"] == form
    assert values == json.loads((folder / "config.json").read_text("utf-8"))
    processor = AutoProcessorMIX.from_pretrained(written)
    noise = PIL.Image.effect_noise((64, 64), 40).convert("RGB")
    noise.save(tmp_path / "noise.png")
    asked = Conversation((Turn("user", (Image(str(tmp_path / "noise.png")), Text("What?"))),), RecordId("asked", 0))
    settings = greedy_config(model, max_new_tokens=4)
    found, same = (answer(one, processor, [asked], settings) for one in (model, AutoModelMIX.from_pretrained(written)))
    assert found == same and len(found[0]) > 0


def hessians_of(model: MixPretrainedModel, dataset: object, layers: list[str]) -> dict[str, np.ndarray]:
    """Add up the products of what layers get, record by record, so that nothing is padded."""
    found: dict[str, np.ndarray] = {}
    named = dict(model.named_sublayers())

    def hook(name: str) -> Callable[..., None]:
        def see(_: object, inputs: tuple[paddle.Tensor, ...]) -> None:
            x = inputs[0].numpy().reshape(-1, inputs[0].shape[-1]).astype(np.float64)
            found[name] = found.get(name, 0) + x.T @ x

        return see

    handles = [named[name].register_forward_pre_hook(hook(name)) for name in layers]
    for index in range(len(dataset)):
        sample = dataset[index]
        inputs = {"input_ids": sample.input_ids[None], **sample.media}
        if sample.position_ids is not None:
            inputs["position_ids"] = sample.position_ids[:, None]
        with paddle.no_grad():
            model(**{name: paddle.to_tensor(array) for name, array in inputs.items()})
    for handle in handles:
        handle.remove()
    return found


@each_family
@pytest.mark.parametrize("packs", [False, True], ids=["padded", "packed"])
def test_layers_are_quantised_for_what_they_get_from_quantised_ones(
    case: FamilyCase, packs, run, request, shapes, tmp_path, monkeypatch
):
    folder, written = case.folder(request), tmp_path / "int4"
    seen, calibrations = [], []

    class Seeing(ColumnRounding):
        def __init__(self, hessian, recipe):
            seen.append(hessian.copy())
            super().__init__(hessian, recipe)

    def choose_records(*arguments, **keys):
        calibrations.append(chosen(*arguments, **keys))
        return calibrations[0]

    chosen = quantize.choose_records
    monkeypatch.setattr(walk, "ColumnRounding", Seeing)
    monkeypatch.setattr(quantize, "choose_records", choose_records)
    config = write_config(tmp_path, shapes, mixtoken=packs, max_length=512)
    run("--model_name_or_path", folder, "--calibration", config, "--group_size", 16, "--output", written)
    if not packs:  # so that there is padding to be left out
        assert any(batch.places is not None for batch in calibrations[0].records)

    # In the whole model each layer gets what it got when it was quantised: all in front of it hold their codes.
    model = AutoModelMIX.from_pretrained(written)
    layers = list(quantized_layers(model))
    found = hessians_of(model, calibrations[0].records.dataset, layers)
    plain = hessians_of(AutoModelMIX.from_pretrained(folder), calibrations[0].records.dataset, layers)
    # The layers of one input share a Hessian: the three in front of attention, the one behind it, and so on.
    distinct = [layer for place, layer in enumerate(layers)
                if not any(np.array_equal(found[layer], found[other]) for other in layers[:place])]  # fmt: skip
    assert len(seen) == len(distinct) == 8
    others = 0
    for wanted in (found[layer] for layer in distinct):
        scale = np.abs(wanted).max()
        fitting = [one for one in seen if one.shape == wanted.shape and np.abs(one - wanted).max() < 1e-3 * scale]
        assert len(fitting) == 1
        others += not any(np.abs(one - fitting[0]).max() < 2e-3 * scale
                          for one in plain.values() if one.shape == fitting[0].shape)  # fmt: skip
    assert others >= 6  # which the model with plain weights would not have shown


def test_it_is_nearer_to_the_model_than_rounding_alone(run, tiny_qwen_vl, shapes, tmp_path):
    config = write_config(tmp_path, shapes)
    words = ["--model_name_or_path", tiny_qwen_vl, "--calibration", config, "--group_size", 64, "--output"]
    run(*words, tmp_path / "gptq")
    run(*words, tmp_path / "ordered", "--desc_act")
    run(*words, tmp_path / "rtn", "--method", "rtn")
    processor = AutoProcessorMIX.from_pretrained(tiny_qwen_vl)
    records = quantize.choose_records(
        quantize.load_config(str(config), ["--model_name_or_path", str(tiny_qwen_vl)], has_gpu=True),
        processor, count=5, held_out=4, pixel_dtype="float32",
    ).records  # fmt: skip
    computed = {}
    for name, folder in {"plain": tiny_qwen_vl, **{one: tmp_path / one for one in ("gptq", "ordered", "rtn")}}.items():
        model = AutoModelMIX.from_pretrained(folder)
        with paddle.no_grad():
            computed[name] = np.concatenate([model(**batch.inputs).logits.numpy().ravel() for batch in records])
    off = {name: np.square(one - computed["plain"]).mean() for name, one in computed.items()}
    assert 0 < max(off["gptq"], off["ordered"]) < 0.7 * off["rtn"]
    assert quantized_layers(AutoModelMIX.from_pretrained(tmp_path / "ordered"))
    stored = load_file(tmp_path / "ordered" / "model.safetensors")
    groups = stored["transformer.h.0.mlp.c_proj.g_idx"]
    assert len(groups) == 128 and not np.array_equal(groups, np.sort(groups))
    assert np.array_equal(np.bincount(groups), [64, 64])


def test_eight_bits_cost_next_to_nothing(run, tiny_checkpoint, shapes, tmp_path):
    words = ["--model_name_or_path", tiny_checkpoint, "--calibration", write_config(tmp_path, shapes)]
    said = run(*words, "--bits", 8, "--group_size", -1, "--no-sym", "--output", tmp_path / "int8")
    before, after = losses_in(said)
    assert abs(after - before) < 1e-3 * before
    values = json.loads((tmp_path / "int8" / "config.json").read_text("utf-8"))["quantization_config"]
    assert (values["bits"], values["group_size"], values["sym"]) == (8, -1, False)
    assert values["checkpoint_format"] == "gptq_v2"


def test_records_are_chosen_alike_each_time_and_others_are_held_out(run, tiny_checkpoint, shapes, tmp_path):
    config = write_config(tmp_path, shapes, evaluates=False)
    words = ["--model_name_or_path", tiny_checkpoint, "--calibration", config, "--group_size", 16]
    said = [
        run(*words, "--calibration_records", 2, "--held_out_records", 2, "--output", tmp_path / name)
        for name in ("one", "other")
    ]
    assert "calibrating with 2 of 5 records of `dataset.train`" in said[0]
    assert "loss of 2 of 5 records of `dataset.train`" in said[0]
    assert said[0].replace("one: ", "other: ") == said[1]
    one, other = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "other"))
    assert one == other
    assert "calibrating with 4 of 5 records" in (said := run(*words, "--output", tmp_path / "all"))
    assert "loss of 1 of 5 records" in said
    found = quantize.choose_records(
        quantize.load_config(str(config), ["--model_name_or_path", "m"], has_gpu=True),
        AutoProcessorMIX.from_pretrained(tiny_checkpoint), count=3, held_out=9, pixel_dtype="float32",
    )  # fmt: skip
    assert sorted([*found.records.chosen, *found.held_out.chosen]) == [0, 1, 2, 3, 4]


@pytest.fixture
def sharded(tiny_checkpoint, tmp_path) -> Path:
    """A base in bfloat16 whose weights are two files."""
    folder = tmp_path / "base"
    shutil.copytree(tiny_checkpoint, folder)
    model = AutoModelMIX.from_pretrained(tiny_checkpoint)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, dtype="bfloat16")
    from paddlemix.weights.saving import save_weights

    save_weights(model, folder, model.weight_layout(model.config), dtype="bfloat16", max_shard_bytes=150_000)
    return folder


def test_files_are_cut_as_the_bases_are_and_what_is_not_quantised_keeps_its_dtype(run, sharded, tmp_path):
    said = run("--model_name_or_path", sharded, "--method", "rtn", "--group_size", 16, "--output", tmp_path / "int4")
    assert "no loss was computed: --calibration names no records" in said
    names = sorted(file.name for file in sharded.glob("*.safetensors*"))
    assert len(names) > 2 and sorted(file.name for file in (tmp_path / "int4").glob("*.safetensors*")) == names
    index = json.loads((tmp_path / "int4" / "model.safetensors.index.json").read_text("utf-8"))["weight_map"]
    layer = "model.layers.1.mlp.down_proj"
    before = json.loads((sharded / "model.safetensors.index.json").read_text("utf-8"))["weight_map"]
    assert {index[f"{layer}.{part}"] for part in ("qweight", "qzeros", "scales", "g_idx")} == {
        before[f"{layer}.weight"]
    }
    dtypes = {one.name: one.dtype for one in stored_tensors(tmp_path / "int4")}
    assert dtypes[f"{layer}.scales"] == "float16" and dtypes["model.norm.weight"] == "bfloat16"
    AutoModelMIX.from_pretrained(tmp_path / "int4")
    run("--model_name_or_path", sharded, "--method", "rtn", "--group_size", 16, "--dtype", "float16", "--format", "awq",
        "--output", tmp_path / "half")  # fmt: skip
    dtypes = {one.dtype for one in stored_tensors(tmp_path / "half")}
    values = json.loads((tmp_path / "half" / "config.json").read_text("utf-8"))
    assert dtypes == {"float16", "int32"} and values["torch_dtype"] == "float16"


def test_paddles_files_are_quantised_as_the_published_ones_are(run, tiny_checkpoint, tmp_path):
    base = tmp_path / "base"
    shutil.copytree(tiny_checkpoint, base)
    (base / "model.safetensors").unlink()
    paddle.save(AutoModelMIX.from_pretrained(tiny_checkpoint).state_dict(), str(base / "model_state.pdparams"))
    for name, folder in (("published", tiny_checkpoint), ("paddle", base)):
        run("--model_name_or_path", folder, "--method", "rtn", "--group_size", 16, "--output", tmp_path / name)
    wanted, found = (load_file(tmp_path / name / "model.safetensors") for name in ("published", "paddle"))
    assert wanted.keys() == found.keys()
    assert all(np.array_equal(one, found[name]) for name, one in wanted.items())
    assert not list((tmp_path / "paddle").glob("*.pdparams"))


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--bits", 3], "`bits` is 3; expected 4 or 8"),
        (["--group_size", 24], r"does not divide the 32 inputs of \S+; expected .* such as 8, or -1"),
        (["--group_size", 64], r"`group_size` 64 does not divide the 32 inputs of .*such as 32, or -1"),
        (["--format", "awq", "--bits", 8], "`bits` is 8; expected 4 for files of awq"),
        (["--format", "awq", "--desc_act"], "awq's files cannot say which group"),
        (["--format", "awq", "--sym"], "`sym` is set, but awq's files"),
        (["--method", "rtn", "--desc_act"], "`desc_act` needs a Hessian"),
        (["--method", "rtn", "--damp_percent", 0.1], "--damp_percent has no effect with --method rtn"),
        (["--method", "rtn", "--calibration_records", 3], "--calibration_records has no effect with --method rtn"),
        (["--calibration_records", 0], "--calibration_records is 0; expected 1 or more"),
        (["--damp_percent", -1], "`damp_percent` is -1.0"),
    ],
)
def test_flags_that_make_no_sense_are_refused_and_nothing_is_written(
    words, problem, run, tiny_checkpoint, shapes, tmp_path
):
    folder = tmp_path / "results"
    folder.mkdir()
    with pytest.raises(ValueError, match=problem):
        run("--model_name_or_path", tiny_checkpoint, "--calibration", write_config(tmp_path, shapes), "--group_size",
            16, *words, "--output", folder / "int4")  # fmt: skip
    assert list(folder.iterdir()) == []


def test_what_cannot_be_quantised_is_said_in_a_sentence(run, tiny_checkpoint, shapes, tmp_path):
    config, output = write_config(tmp_path, shapes), tmp_path / "results" / "int4"
    model, last = ["--model_name_or_path", tiny_checkpoint], ["--group_size", 16, "--output", output]
    with pytest.raises(ValueError, match="--method gptq needs records: give a fine-tuning config with --calibration"):
        run(*model, *last)
    with pytest.raises(ValueError, match="--held_out_records has no effect without --calibration"):
        run(*model, "--method", "rtn", "--held_out_records", 3, *last)
    run(*model, "--method", "rtn", *last)
    with pytest.raises(FileExistsError, match="is there already and is not overwritten"):
        run(*model, "--method", "rtn", *last)
    other = ["--group_size", 16, "--output", tmp_path / "results" / "other"]
    with pytest.raises(ValueError, match="int4: the weights are quantised already, as `quantization_config`"):
        run("--model_name_or_path", output, "--method", "rtn", *other)
    with pytest.raises(ValueError, match=r"is an adapter; merge it into its base with \S+merge_lora_params\.py"):
        run("--model_name_or_path", FIXTURES / "peft_adapter" / "tied", "--method", "rtn", *other)
    with pytest.raises(FileNotFoundError, match="missing"):
        run("--model_name_or_path", tmp_path / "missing", "--method", "rtn", *other)
    with pytest.raises(ValueError, match="missing.json"):
        run(*model, "--calibration", tmp_path / "missing.json", *other)
    values = json.loads(config.read_text())
    values["dataset"]["train"] = []
    config.write_text(json.dumps({**values, "do_train": False, "do_eval": True}))
    with pytest.raises(ValueError, match="`dataset.train` of the calibration's config names no records"):
        run(*model, "--calibration", config, *other)
    config = write_config(tmp_path, shapes, evaluates=False)
    values = json.loads(config.read_text())
    values["dataset"]["train"][0]["max_samples"] = 1
    config.write_text(json.dumps(values))
    with pytest.raises(ValueError, match="names one record and no `dataset.eval`"):
        run(*model, "--calibration", config, *other)
    assert {one.name for one in (tmp_path / "results").iterdir()} == {"int4"}


@pytest.mark.parametrize("method", ["gptq", "rtn"])
def test_a_weight_without_codes_is_named_and_nothing_is_written(method, run, tiny_checkpoint, shapes, tmp_path):
    base = tmp_path / "base"
    shutil.copytree(tiny_checkpoint, base)
    stored = load_file(base / "model.safetensors")
    name = "model.layers.1.mlp.gate_proj.weight"
    stored[name] = stored[name].copy()
    stored[name][0, 0] = 1e7
    save_file(stored, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"model\.layers\.1\.mlp\.gate_proj: the weight holds numbers that are too"):
        run("--model_name_or_path", base, "--calibration", write_config(tmp_path, shapes), "--method", method,
            "--group_size", 16, "--output", tmp_path / "results" / "int4")  # fmt: skip
    assert list((tmp_path / "results").iterdir()) == []
