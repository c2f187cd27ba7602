"""Where in its data a run was, kept in each checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from paddlenlp.trainer import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from paddlemix.datasets.sampler import GlobalBatchSampler
from paddlemix.files import write_json

FILE = "data_position.json"


class DataPosition(TrainerCallback):
    """Writes the position into each checkpoint.

    Args:
        sampler: draws what is trained.
    """

    def __init__(self, sampler: GlobalBatchSampler) -> None:
        self.sampler = sampler

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Write it; rank 0 does."""
        if state.is_world_process_zero:
            epoch, step = divmod(state.global_step, self.sampler.steps)
            position = {"epoch": epoch, "step": step, "drawn_from": self.sampler.fingerprint}
            write_json(Path(args.output_dir) / f"checkpoint-{state.global_step}" / FILE, position)


def check_position(checkpoint: str, sampler: GlobalBatchSampler) -> None:
    """Make sure that a run can go on with the records that come next.

    Args:
        checkpoint: its folder; one without a position is taken as it is.
        sampler: draws what is to be trained.

    Raises:
        ValueError: the sampler draws other batches than the one that the checkpoint was written with.
    """
    file = Path(checkpoint) / FILE
    if file.is_file() and json.loads(file.read_text("utf-8"))["drawn_from"] != sampler.fingerprint:
        raise ValueError(
            f"{checkpoint} was written while other batches were drawn: the records, their mixture, `seed`, "
            "`max_length`, batch sizes or packing have changed. Restore them, or set `ignore_data_skip` to true to "
            "begin the epoch anew with the model of this checkpoint."
        )
