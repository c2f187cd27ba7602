"""Trains one optimizer step after the other as the tool does, and writes what each one's loss and gradients were.

Run it by itself, or once a rank: python -m paddle.distributed.launch --nproc_per_node 2 record_steps.py OUT CONFIG ...
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import paddlemix  # isort: skip - before Paddle, which it prepares for
import numpy as np
import paddle
from paddlenlp.trainer import TrainerCallback

from paddlemix.configuration import file as config_file
from paddlemix.training.finetune import Run

del paddlemix


class Recorder(TrainerCallback):
    """Keeps the gradients that the optimizer is about to apply."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.gradients: list[dict[str, np.ndarray]] = []
        self.has_images: list[bool] = []

    def on_load_data_end(self, args: Any, state: Any, control: Any, inputs: Any, **kwargs: Any) -> None:
        self.has_images.append("pixel_values" in inputs)

    def on_optimizer_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        named = self.model.named_parameters()
        self.gradients.append({name: p.grad.numpy().copy() for name, p in named if p.grad is not None})


def record_steps(config_path: str, flags: list[str]) -> tuple[dict[str, np.ndarray], Any]:
    """Train as the config says.

    Returns:
        "loss" float[steps], "has_images" bool[batches of this rank], "eval_loss" where it was asked for, and
        "<step>/<parameter>" the gradients; and the trainer.
    """
    from paddlemix.training.sft import SFTTrainer

    config = config_file.load_config(config_path, flags, has_gpu=False)
    run = Run.of(config)
    train, evaluation = run.load_datasets()
    args = config_file.build_training_arguments(config)
    model = run.load_model(args)
    run.set_recompute(model)
    trainer = SFTTrainer(model, args, train, evaluation, run.processor, sampling=run.sampling)
    recorder = Recorder(model)
    trainer.add_callback(recorder)
    trainer.train()
    found: dict[str, Any] = {
        f"{step}/{name}": gradient for step, one in enumerate(recorder.gradients) for name, gradient in one.items()
    }
    found["loss"] = [entry["loss"] for entry in trainer.log_history if "loss" in entry]
    found["has_images"] = recorder.has_images
    if evaluation is not None:
        found["eval_loss"] = trainer.evaluate()["eval_loss"]
    return {name: np.asarray(value) for name, value in found.items()}, trainer


if __name__ == "__main__":
    paddle.set_device("cpu")
    out, config_path, *flags = sys.argv[1:]
    recorded, _ = record_steps(config_path, flags)
    np.savez(Path(out) / f"rank{paddle.distributed.get_rank()}.npz", **recorded)
    # All is written: gloo has aborted while Python took its groups down.
    sys.path.append(str(Path(__file__).parents[1] / "distributed"))
    from run_patched import leave

    leave()
