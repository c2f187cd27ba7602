"""Adapters that are trained on quantised weights, from the config to a merged model, in this process."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from paddle.utils import unique_name
from safetensors.numpy import load_file

from paddlemix.auto import AutoModelMIX
from paddlemix.configuration.problems import ConfigError
from paddlemix.tools import merge_lora_params, supervised_finetune

from ..models.test_quantized import assert_close, logits, pack
from ..quantization.packing import PACKINGS


def write_config(folder: Path, model: Path, shapes: Path, **keys: object) -> Path:
    sets = {"train": [{"name": "vqa_dataset", "data_files": str(shapes / "train_vqa.json")}]}
    config = {"model_name_or_path": str(model), "dataset": sets, "output_dir": str(folder / "out"), "do_train": True}
    config |= {"lora": True, "lora_rank": 4, "learning_rate": 5e-3, "per_device_train_batch_size": 4}
    config |= {"max_steps": 4, "save_steps": 2, "report_to": "none"}
    path = folder / "config.json"
    path.write_text(json.dumps(config | keys))
    return path


def run(config: Path, *words: object) -> None:
    # The optimizer's state goes by Paddle's own names of parameters, which count from 0 in a new process.
    with unique_name.guard():
        supervised_finetune.main([str(config), *map(str, words)])


def adapter_in(folder: Path) -> dict[str, np.ndarray]:
    return load_file(folder / "adapter_model.safetensors")


def losses_in(folder: Path) -> list[float]:
    return [one["loss"] for one in json.loads((folder / "trainer_log.json").read_text()) if "loss" in one]


@pytest.mark.parametrize("recompute", [False, True])
def test_a_run_on_rounded_weights_learns_and_goes_on_bit_by_bit(recompute, tiny_checkpoint, shapes, tmp_path):
    config = write_config(
        tmp_path, tiny_checkpoint, shapes, quantize="nf4", quantize_vision=True, logging_steps=1, recompute=recompute
    )
    run(config)
    whole = adapter_in(tmp_path / "out" / "checkpoint-4")
    assert len(whole) == 28 and all(np.abs(one).max() > 0 for name, one in whole.items() if "lora_B" in name)
    losses = losses_in(tmp_path / "out")
    assert len(losses) == 4 and losses[-1] < losses[0]
    resumed = tmp_path / "resumed"
    run(config, "--output_dir", resumed, "--resume_from_checkpoint", tmp_path / "out" / "checkpoint-2")
    again = adapter_in(resumed / "checkpoint-4")
    assert all(np.array_equal(again[name], whole[name]) for name in whole)


def test_an_adapter_on_a_quantised_checkpoint_is_merged_into_a_plain_one(
    tiny_checkpoint, shapes, tmp_path, monkeypatch, capsys
):
    base = pack(tiny_checkpoint, tmp_path / "base", PACKINGS["gptq-int4"], empty_biases=True)
    run(write_config(tmp_path, base, shapes))
    merged = tmp_path / "merged"
    words = ["--lora_path", tmp_path / "out", "--merge_model_path", merged]
    monkeypatch.setattr(sys, "argv", ["merge_lora_params.py", *map(str, words)])
    merge_lora_params.main()
    assert "differ by" in capsys.readouterr().out
    values, stored = json.loads((merged / "config.json").read_text()), load_file(merged / "model.safetensors")
    assert (
        "quantization_config" not in values and stored.keys() == load_file(tiny_checkpoint / "model.safetensors").keys()
    )
    # What was quantised has the dtype of its scales.
    assert stored["model.layers.0.mlp.up_proj.weight"].dtype == np.float16
    model, plain = AutoModelMIX.from_pretrained(tmp_path / "out"), AutoModelMIX.from_pretrained(merged)
    found, wanted = logits(plain), logits(model)
    # Half precision rounds each merged weight by 2 ** -11.
    assert 0 < np.abs(found - wanted).max() < 5e-3 * np.abs(wanted).max()
    assert np.abs(wanted - logits(AutoModelMIX.from_pretrained(base))).max() > 0.01 * np.abs(wanted).max()
    assert_close(
        logits(AutoModelMIX.from_pretrained(tmp_path / "base-plain")), logits(AutoModelMIX.from_pretrained(base))
    )


def test_quantised_weights_themselves_are_not_trained(tiny_checkpoint, shapes, tmp_path):
    base = pack(tiny_checkpoint, tmp_path / "base", PACKINGS["awq"])
    config = write_config(tmp_path, base, shapes)
    values = json.loads(config.read_text())
    config.write_text(json.dumps({key: one for key, one in values.items() if not key.startswith("lora")}))
    with pytest.raises(ValueError, match="quantised, and such are not trained. Set `lora` to true"):
        run(config)


@pytest.mark.parametrize("name", ["q_proj", "o_proj"])  # with a bias, which is a parameter, and without
def test_layers_of_codes_are_not_trained_whole(name, tiny_checkpoint, shapes, tmp_path):
    keys = {"quantize": "nf4", "lora_target_modules": ["up_proj"], "lora_modules_to_save": [name]}
    with pytest.raises(ValueError, match=rf"names model\.layers\.0\.self_attn\.{name}, whose weight is held as codes"):
        run(write_config(tmp_path, tiny_checkpoint, shapes, **keys))
    assert not (tmp_path / "out" / "adapter_model.safetensors").exists()


def test_embedding_head_and_new_tokens_are_trained_beside_codes(tiny_checkpoint, shapes, tmp_path):
    config = write_config(tmp_path, tiny_checkpoint, shapes, quantize="int4", new_tokens=["<one>"], max_steps=2)
    run(config, "--save_strategy", "no")
    adapter = adapter_in(tmp_path / "out")
    base = load_file(tiny_checkpoint / "model.safetensors")["model.embed_tokens.weight"]
    trained = adapter["base_model.model.model.language_model.embed_tokens.weight"]
    assert trained.shape[1] == base.shape[1] and len(trained) >= len(base)
    assert np.abs(trained[: len(base)] - base).max() > 0
    logits(AutoModelMIX.from_pretrained(tmp_path / "out"))


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"quantize": "nf4", "lora": False}, "quantised weights are not trained. Set `lora` to true"),
        ({"quantize": "int8", "lora_dora": True}, "DoRA needs the numbers of the weights"),
        ({"quantize": "int3"}, '`quantize` is "int3"; expected one of "nf4", "int8", "int4"'),
        ({"quantize_vision": True}, "no effect unless `quantize` is set. Take the key out, or set `quantize`."),
    ],
)
def test_keys_that_contradict_are_refused_when_the_config_is_read(keys, problem, tiny_checkpoint, shapes, tmp_path):
    config = write_config(tmp_path, tiny_checkpoint, shapes, **keys)
    if keys.get("lora") is False:
        values = json.loads(config.read_text())
        del values["lora_rank"]
        config.write_text(json.dumps(values))
    with pytest.raises(ConfigError) as raised:
        run(config)
    assert problem in str(raised.value)
