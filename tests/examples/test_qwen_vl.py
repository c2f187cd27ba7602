"""A tiny Qwen-VL the whole way: fine-tuned from a config and by finetune.py, evaluated, asked, drawn."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import paddle
import pytest
from PIL import Image, ImageChops, ImageDraw
from safetensors.numpy import load_file

from paddlemix.auto import AutoModelMIX, AutoProcessorMIX, AutoTokenizerMIX
from paddlemix.datasets.collate import PadCollator
from paddlemix.datasets.mix_dataset import DatasetSpec, MixDataset
from paddlemix.examples.qwen_vl import chat_demo, run_predict
from paddlemix.tools import evaluate, predict
from paddlemix.training.freezing import freeze

ROOT = Path(__file__).parents[2]
QUESTION, ANSWER = "Find the star.", "<ref>star</ref><box>(250,250),(750,500)</box>"
STEPS = 60  # enough for two records to be known by heart
TRAINED = ("transformer.visual.attn_pool.", "transformer.wte.", "transformer.h.", "transformer.ln_f.", "lm_head.")


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One record with an image and one without, in a file that lies beside the image."""
    folder = tmp_path_factory.mktemp("records")
    image = Image.new("RGB", (160, 120), "grey")
    ImageDraw.Draw(image).rectangle((40, 30, 120, 60), fill="red")
    image.save(folder / "a.png")
    turns = [(f"Picture 1: <img>a.png</img>\n{QUESTION}", ANSWER), ("你好", "你好！")]
    path = folder / "records.json"
    path.write_text(json.dumps([{"conversations": [turn]} for turn in turns], ensure_ascii=False))
    return path


def finetune(script: str, *words: object) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "paddlemix" / script), *map(str, words)]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=900)
    assert ended.returncode == 0, ended.stderr


@pytest.fixture(scope="module")
def finished(tiny_qwen_vl: Path, records: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the model that learned the records, from a JSON config."""
    folder = tmp_path_factory.mktemp("run")
    config = {
        "model_name_or_path": str(tiny_qwen_vl),
        "freeze_include": ["*visual*"],
        "freeze_exclude": ["*visual.attn_pool*"],
        "dataset": {"train": [{"name": "chatml_dataset", "data_files": str(records)}]},
        "output_dir": str(folder / "model"),
        "do_train": True,
        "max_steps": STEPS,
        "per_device_train_batch_size": 2,
        "learning_rate": 3e-3,
        "save_strategy": "no",
        "report_to": "none",
    }
    (folder / "config.json").write_text(json.dumps(config))
    finetune("tools/supervised_finetune.py", folder / "config.json")
    return folder / "model"


def test_the_tower_stays_bit_equal_and_its_resampler_and_the_decoder_move(finished: Path, tiny_qwen_vl: Path) -> None:
    before, after = load_file(tiny_qwen_vl / "model.safetensors"), load_file(finished / "model.safetensors")
    assert before.keys() == after.keys() and sum(name.startswith("transformer.visual.") for name in before) > 20
    for name, tensor in before.items():
        is_trained = name.startswith(TRAINED) and not name.endswith("pos_embed")
        assert np.array_equal(tensor, after[name]) != is_trained, name


def test_the_flags_of_finetune_do_what_the_config_does(
    finished: Path, tiny_qwen_vl: Path, records: Path, tmp_path: Path
) -> None:
    words = f"--per_device_train_batch_size 2 --gradient_accumulation_steps 1 --learning_rate 3e-3 --max_steps {STEPS}"
    words += " --fix_vit True --model_max_length 2048 --lazy_preprocess True --dtype float32 --bf16 False"
    words += " --save_strategy no --report_to none"
    places = ["--model_name_or_path", tiny_qwen_vl, "--data_path", records, "--output_dir", tmp_path / "model"]
    finetune("examples/qwen_vl/finetune.py", *places, *words.split())
    by_config, by_flags = load_file(finished / "model.safetensors"), load_file(tmp_path / "model/model.safetensors")
    assert len(by_config) > 40 and by_config.keys() == by_flags.keys()
    for name, tensor in by_config.items():
        assert np.array_equal(tensor, by_flags[name]), name


def test_run_predict_draws_the_box_that_was_learned(
    finished: Path, records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    image = records.parent / "a.png"
    words = ["--model_name_or_path", finished, "--input_image", image, "--prompt", QUESTION]
    monkeypatch.setattr(sys, "argv", ["run_predict.py", *map(str, words), "--output_dir", str(tmp_path)])
    predict.main(run_predict.SCRIPT)
    shown = capsys.readouterr().out
    assert f"raw:    {ANSWER}\n" in shown and "1 boxes" in shown
    drawn, plain = Image.open(tmp_path / "pred.jpg"), Image.open(image)
    changed = ImageChops.difference(drawn.convert("RGB"), plain).convert("L").point(lambda value: 255 * (value > 60))
    left, _, right, bottom = changed.getbbox()
    assert (left, right, bottom) == pytest.approx((40, 120, 60), abs=4)


def test_chat_demo_draws_the_box_that_was_learned(
    finished: Path, records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [f"/image {records.parent / 'a.png'}", QUESTION, "clear", "你好", ""]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines)))
    words = ["--model_name_or_path", finished, "--output_dir", tmp_path, "--max_new_tokens", 60]
    monkeypatch.setattr(sys, "argv", ["chat_demo.py", *map(str, words)])
    chat_demo.main()
    shown = capsys.readouterr().out
    assert f"{ANSWER}\n{tmp_path / 'chat_1.jpg'}: the image with" in shown
    assert shown.endswith("你好！\nyou> \nGoodbye.\n")
    assert Image.open(tmp_path / "chat_1.jpg").size == (160, 120)


def test_a_base_model_completes_prompts_until_it_is_tuned_on_turns(tiny_qwen_vl: Path, tmp_path: Path) -> None:
    folder = tmp_path / "base"
    shutil.copytree(tiny_qwen_vl, folder)
    (folder / "generation_config.json").write_text(json.dumps({"chat_format": "raw", "top_p": 0.3}))
    model, tokenizer = AutoModelMIX.from_pretrained(folder), AutoTokenizerMIX.from_pretrained(folder)
    completed, _ = model.chat(tokenizer, "Hello", max_new_tokens=8)
    model.begin_tuning_on_turns(tokenizer.im_end_id, (tokenizer.eos_token_id, tokenizer.pad_token_id))
    answered, _ = model.chat(tokenizer, "Hello", max_new_tokens=8)
    assert completed != answered
    model.save_pretrained(tmp_path / "tuned")
    saved = json.loads((tmp_path / "tuned" / "generation_config.json").read_text())
    ends = [tokenizer.im_end_id, tokenizer.eod_id]
    assert saved == {"chat_format": "chatml", "top_p": 0.3, "eos_token_id": ends}


def test_evaluate_finds_the_learned_box(
    finished: Path, records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets = json.dumps([{"name": "chatml_dataset", "data_files": str(records), "max_samples": 1}])
    words = [finished, "--dataset", sets, "--output", tmp_path / "metrics.json", "--max_new_tokens", 60]
    monkeypatch.setattr(sys, "argv", ["evaluate.py", *map(str, words)])
    evaluate.main()
    report = json.loads((tmp_path / "metrics.json").read_text())
    assert report["grounding"]["questions"] == 1 and report["grounding"]["grounding_accuracy@0.5"] == 1


@pytest.mark.parametrize("chosen", [[0], [1], [0, 1], [1, 0, 0]], ids=["image", "text", "mixed", "two images"])
def test_every_batch_has_a_gradient_for_the_resampler(tiny_qwen_vl: Path, records: Path, chosen: list[int]) -> None:
    processor = AutoProcessorMIX.from_pretrained(tiny_qwen_vl)
    model = AutoModelMIX.from_pretrained(tiny_qwen_vl)
    freeze(model, ["*visual*"], ["*visual.attn_pool*"])
    model.train()
    mix = MixDataset.load([DatasetSpec("chatml_dataset", str(records))], processor, "raise")
    batch = PadCollator(processor.tokenizer.pad_token_id)([mix[index] for index in chosen])
    assert ("pixel_values" in batch) == (0 in chosen)
    loss = model(**{name: paddle.to_tensor(array) for name, array in batch.items()}).loss
    loss.backward()
    assert np.isfinite(float(loss))
    pool = {name: one for name, one in model.named_parameters() if "attn_pool" in name}
    assert len(pool) > 5 and all(one.grad is not None for one in pool.values())
    reached = [name for name, one in pool.items() if float(one.grad.abs().max())]
    assert bool(reached) == (0 in chosen), "a batch of texts has gradients of zero"
    tower = [one for name, one in model.named_parameters() if "visual" in name and "attn_pool" not in name]
    assert len(tower) > 5 and all(one.grad is None for one in tower)
