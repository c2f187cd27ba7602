"""Trains one config after the other as the tool does, and writes what each rank saw.

Run it by itself or once a rank: python train_cases.py CONFIGS.json, a list of paths.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import paddlemix  # isort: skip - before Paddle, which it prepares for
import paddle
from paddle.distributed import fleet, parallel_helper
from paddle.distributed.fleet.base import topology
from paddlenlp.trainer import TrainerCallback

from paddlemix.configuration import file as config_file
from paddlemix.tools import supervised_finetune
from paddlemix.training import sft as sft_trainer

del paddlemix

SEEN_FILE = "seen-{rank}.json"


class Watcher(TrainerCallback):
    """Notes what each batch of this rank shows, and the norm of each step's gradients where they are all here."""

    seen: list[dict[str, Any]]

    def __init__(self) -> None:
        self.shows: list[list[str]] = []
        self.norms: list[float] = []

    def on_load_data_end(self, args: Any, state: Any, control: Any, inputs: Any, **kwargs: Any) -> None:
        kinds = {"pixel_values": "image", "pixel_values_videos": "video", "cu_seqlens": "pack"}
        self.shows.append([kind for name, kind in kinds.items() if name in (inputs or {})])

    def on_optimizer_begin(self, args: Any, state: Any, control: Any, model: Any, **kwargs: Any) -> None:
        squares = [float(p.grad.square().sum()) for p in model.parameters() if p.grad is not None]
        self.norms.append(sum(squares) ** 0.5)


def train(config_path: str) -> None:
    """Run the tool in this process; what was seen goes into `output_dir`, by rank."""
    watcher, whole = Watcher(), sft_trainer.SFTTrainer.__init__

    def begin(self: Any, *arguments: Any, **options: Any) -> None:
        whole(self, *arguments, **options)
        self.add_callback(watcher)

    sft_trainer.SFTTrainer.__init__ = begin
    try:
        config = config_file.load_config(config_path, has_gpu=True)  # which stages 2 and 3 need without the patches
        supervised_finetune.run(config)
    finally:
        sft_trainer.SFTTrainer.__init__ = whole
    seen = {"shows": watcher.shows, "norms": watcher.norms}
    file = Path(config.training["output_dir"]) / SEEN_FILE.format(rank=paddle.distributed.get_rank())
    file.write_text(json.dumps(seen), "utf-8")


def forget_groups() -> None:
    """Let the next case group the ranks in its own way; Paddle does so once in a process."""
    parallel_helper._is_parallel_ctx_initialized = lambda: False
    topology._HYBRID_PARALLEL_GROUP = None
    fleet.fleet.__dict__.pop("_hcg", None)


if __name__ == "__main__":
    paddle.set_device("cpu")
    for path in json.loads(Path(sys.argv[1]).read_text("utf-8")):
        print(f"--- {path}", flush=True)
        forget_groups()
        train(path)
