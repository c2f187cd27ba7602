"""Fine-tunes a tiny model on an emulated card, as the tool does, and prints as JSON what came of it.

Run it by itself: emulated_tool.py LIBRARY CHECKPOINT SHAPES FOLDER, where LIBRARY is that of `host_ops`, or "-" for
none, and FOLDER is for the runs.
"""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from itertools import pairwise
from pathlib import Path
from typing import Any

import emulated_card  # isort: skip - first: it prepares Paddle
from safetensors import safe_open

from paddlemix.configuration import file as config_file
from paddlemix.tools import supervised_finetune

ANSWERS = {
    "do_eval": True,
    "evaluation_strategy": "steps",
    "eval_steps": 2,
    "predict_with_generate": True,
    "max_new_tokens": 4,
    "per_device_eval_batch_size": 2,
}
BF16 = {"bf16": True, "fp16_opt_level": "O2"}
# At these scales the gradients of the first steps are too large for float16.
FP16 = {"fp16": True, "fp16_opt_level": "O2", "scale_loss": 2.0**18, "max_grad_norm": 0.5, "save_steps": 1}
FP16_LORA = {"fp16": True, "fp16_opt_level": "O1", "scale_loss": 2.0**18, "lora": True, "lora_rank": 4}
LORA = {"lora": True, "lora_rank": 4}


class Runs:
    """A config, and what comes of running it on the card.

    Args:
        checkpoint: of the model.
        shapes: with records.
        folder: for the runs.
    """

    def __init__(self, checkpoint: Path, shapes: Path, folder: Path) -> None:
        self.folder = folder
        self._config = {
            "model_name_or_path": str(checkpoint),
            "dataset": {
                part: [{"name": "vqa_dataset", "data_files": str(shapes / f"{part}_vqa.json"), "max_samples": 4}]
                for part in ("train", "eval")
            },
            "do_train": True,
            "max_steps": 4,
            "gradient_accumulation_steps": 2,
            "learning_rate": 5e-3,
            "warmup_ratio": 0.0,
            "save_steps": 2,
            "logging_steps": 1,
            "report_to": "none",
            "skip_memory_metrics": True,
        }

    def __call__(self, name: str, **keys: Any) -> dict[str, Any]:
        """Run, and tell what was written, logged and asked of the card."""
        file, out = self.folder / "config.json", self.folder / name
        file.write_text(json.dumps({**self._config, "output_dir": str(out), **keys}))
        with _captured() as (said, printed), emulated_card.inserted() as card:
            supervised_finetune.run(config_file.load_config(str(file), has_gpu=True))
        checkpoints = sorted(out.glob("checkpoint-*"))
        return {
            "dtypes": {path.name: _dtypes(path) for path in checkpoints[-1].glob("*.safetensors")},
            "states": {path.name: json.loads((path / "resume_state.json").read_text()) for path in checkpoints},
            "log": json.loads((out / "trainer_log.json").read_text()),
            "first_scale": keys.get("scale_loss"),
            "asked": card.asked.total(),
            "refused": sorted({f"{op} {dtypes}" for op, dtypes, takes in card.asked if not takes}),
            "warnings": said,
            "printed": printed.getvalue(),
        }

    def twice(self, name: str, step: int, **keys: Any) -> dict[str, Any]:
        """Run, and run again from the checkpoint of a step; tell of the first, and where the second differs."""
        whole = self(name, **keys)
        again = f"{name}-again"
        resumed = self(again, **keys, resume_from_checkpoint=str(self.folder / name / f"checkpoint-{step}"))
        last = f"checkpoint-{keys.get('max_steps', 4)}"
        files = [path.relative_to(self.folder / name) for path in (self.folder / name).rglob("*.safetensors")]
        ends = [path for path in files if len(path.parts) == 1 or path.parts[0] == last]
        differ = [str(path) for path in ends if self.read(name, path) != self.read(again, path)]
        differ += ["log"] if _figures(whole["log"]) != _figures(resumed["log"]) else []
        states = (dict(run["states"][last], log=None, total_loss=None) for run in (whole, resumed))
        differ += ["states"] if next(states) != next(states) else []
        return {**whole, "compared": len(ends), "differ": differ}

    def read(self, name: str, path: Path | str) -> bytes:
        """Read a file of a run."""
        return (self.folder / name / path).read_bytes()


def _figures(log: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Take out of a log what is the same in runs that end alike."""
    kept = ("step", "loss", "grad_norm", "learning_rate", "loss_scale", "eval_loss", "eval_vqa_exact_match")
    return [{name: entry[name] for name in kept if name in entry} for entry in log]


def _dtypes(file: Path) -> dict[str, list[str]]:
    """Tell of each kind of tensors, by what stands behind the last slash of their names, the dtypes."""
    found: dict[str, set[str]] = {}
    with safe_open(file, "np") as tensors:
        for name in tensors.keys():  # noqa: SIM118 - it is no dict
            found.setdefault(name.rpartition("/")[2] if "/" in name else "", set()).add(
                tensors.get_slice(name).get_dtype()
            )
    return {kind: sorted(dtypes) for kind, dtypes in found.items()}


@contextmanager
def _captured() -> Iterator[tuple[list[str], io.StringIO]]:
    """Collect warnings, and what is printed."""
    said: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())
    loggers = [logging.getLogger(name) for name in ("paddlemix", "PaddleNLP")]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        with redirect_stdout(io.StringIO()) as printed:
            yield said, printed
    finally:
        for logger in loggers:
            logger.removeHandler(handler)


def main() -> None:
    """Do all runs."""
    library, checkpoint, shapes, folder = sys.argv[1:]
    emulated_card.card.ops = None if library == "-" else Path(library)
    runs = Runs(Path(checkpoint), Path(shapes), Path(folder))
    found = {
        "bf16": runs.twice("bf16", 2, **BF16, **ANSWERS),
        "lora": runs.twice("lora", 2, **BF16, **LORA),
        "held": runs.twice("held", 1, bf16=True, dtype="bfloat16", max_steps=2, save_steps=1, **LORA),
        "fp16": runs.twice("fp16", 1, **FP16),
        # The weights stay where they begin.
        "still": runs("still", **{**FP16, "scale_loss": 1024.0, "learning_rate": 1e-12}),
        "fp16_lora": runs.twice("fp16_lora", 1, **FP16_LORA, max_steps=3, save_steps=1),
    }
    for name, file in (("fp16", "model"), ("fp16_lora", "adapter_model")):
        models = [runs.read(name, f"{checkpoint}/{file}.safetensors") for checkpoint in found[name]["states"]]
        found[name]["moved"] = [one != other for one, other in pairwise(models)]
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
