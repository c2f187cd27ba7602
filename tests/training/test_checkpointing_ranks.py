"""Two ranks save together and go on together."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from safetensors.numpy import load_file

from paddlemix.checkpoints.manifest import find_damage

TOOL = Path(__file__).parents[2] / "paddlemix" / "tools" / "supervised_finetune.py"
STEPS = 3


def run_on_two_ranks(folder: Path, checkpoint: Path, shapes: Path, out: str, *flags: object) -> Path:
    config = {
        "model_name_or_path": str(checkpoint),
        "dataset": {"train": [{"name": "vqa_dataset", "data_files": str(shapes / "train_vqa.json"), "max_samples": 8}]},
        "output_dir": str(folder / out),
        "do_train": True,
        "max_steps": STEPS,
        "per_device_train_batch_size": 2,
        "learning_rate": 5e-3,
        "save_steps": 1,
        "report_to": "none",
        "skip_memory_metrics": True,
    }
    (folder / "config.json").write_text(json.dumps(config))
    on_two_ranks(folder / f"log-{out}", TOOL, folder / "config.json", *flags)
    return folder / out


def on_two_ranks(logs: Path, script: Path, *arguments: object) -> str:
    """Start a script twice; what both say."""
    environment = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    environment |= {"OMP_NUM_THREADS": "1", "PADDLE_DISTRI_BACKEND": "gloo", "PYTHONPATH": str(TOOL.parents[2])}
    launcher = [sys.executable, "-m", "paddle.distributed.launch", "--nproc_per_node", "2", "--log_dir", str(logs)]
    command = [*launcher, str(script), *map(str, arguments)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False)
    said = [path.read_text("utf-8", "replace") for path in sorted(logs.glob("workerlog.*"))]
    text = "\n".join(said)
    assert len(said) == 2 and ended.returncode == 0, text[-5000:]
    return text


def test_two_ranks_go_on_with_what_both_have_written(tiny_checkpoint: Path, shapes: Path, tmp_path: Path) -> None:
    whole = run_on_two_ranks(tmp_path, tiny_checkpoint, shapes, "whole")
    assert sorted(path.name for path in whole.glob("*checkpoint*")) == [f"checkpoint-{n}" for n in range(1, STEPS + 1)]
    checkpoint = whole / "checkpoint-1"
    written = {path.name for path in checkpoint.iterdir()}
    assert {"random_state-00000.json", "random_state-00001.json"} <= written and find_damage(checkpoint) is None
    # What both ranks hold alike is written once.
    assert [name for name in written if name.startswith("optimizer")] == ["optimizer-00000-00000.safetensors"]
    flags = ["--resume_from_checkpoint", checkpoint, "--output_dir", tmp_path / "resumed"]
    resumed = run_on_two_ranks(tmp_path, tiny_checkpoint, shapes, "resumed", *flags)
    first, second = (load_file(out / "model.safetensors") for out in (whole, resumed))
    assert len(first) > 30 and [name for name in first if first[name].tobytes() != second[name].tobytes()] == []


def test_a_signal_to_one_rank_stops_both_after_the_same_step(tmp_path: Path) -> None:
    script = tmp_path / "two.py"
    script.write_text(SIGNALLED)
    text = on_two_ranks(tmp_path / "log", script)
    assert "rank 0 stops after step 2" in text and "rank 1 stops after step 2" in text


SIGNALLED = """
import os
import signal
from types import SimpleNamespace

import paddlemix  # before Paddle, which it prepares for
import paddle

from paddlemix.training.callbacks.interruption import Interruption

paddle.distributed.init_parallel_env()
rank, interruption = paddle.distributed.get_rank(), Interruption()
control = SimpleNamespace(should_save=False, should_training_stop=False)
with interruption.watching():
    for step in range(1, 5):
        if (rank, step) == (1, 2):
            os.kill(os.getpid(), signal.SIGTERM)
        interruption.on_step_end(SimpleNamespace(world_size=2), SimpleNamespace(global_step=step), control)
        if control.should_training_stop:
            print(f"rank {rank} stops after step {step}", flush=True)
            break
"""
