"""Checkpoints that the tool quantises, from the command line to what is read of its files."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from paddlemix.tools import quantize

from ..families import FamilyCase, each_family


def write_config(folder: Path, shapes: Path, **keys: object) -> Path:
    sets = {
        name: [{"name": "vqa_dataset", "data_files": str(shapes / f"{file}_vqa.json")}]
        for name, file in (("train", "train"), ("eval", "eval"))
    }
    config = {"model_name_or_path": "unused", "dataset": sets, "output_dir": str(folder / "out"), "do_train": True}
    path = folder / "calibration.json"
    path.write_text(json.dumps({**config, "per_device_train_batch_size": 4, **keys}))
    return path


@pytest.fixture
def run(monkeypatch, capsys):
    def run(*words: object) -> str:
        monkeypatch.setattr(sys, "argv", ["quantize.py", *map(str, words)])
        quantize.main()
        return capsys.readouterr().out

    return run


@each_family
@pytest.mark.parametrize("form", ["gptq", "awq"])
def test_families(case: FamilyCase, form, run, request, shapes, tmp_path):
    folder = case.folder(request)
    said = run("--model_name_or_path", folder, "--calibration", write_config(tmp_path, shapes), "--format", form,
               "--group_size", 16, "--output", tmp_path / "int4")  # fmt: skip
    print(said)
    assert re.search("a", said)
