"""The tiny models that the reference implementation saved: `tests/models/make_reference.py` makes their folders."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    import paddle

FIXTURES = Path(__file__).parent / "fixtures"
# What PEFT saved: `tests/models/make_adapter_reference.py` makes these folders.
PEFT_ADAPTERS = ["tied", "untied", "qwen2_5_vl"]
VARIANTS = ["tied", "untied", "one_key_head"]
INPUTS = ["input_ids", "labels", "attention_mask"]
INPUTS += ["pixel_values", "image_grid_thw", "pixel_values_videos", "video_grid_thw", "second_per_grid_ts"]


@dataclass(frozen=True)
class Reference:
    """A tiny model that the reference implementation saved, and what it computed."""

    folder: Path
    arrays: dict[str, np.ndarray]

    @classmethod
    def read(cls, folder: Path) -> Reference:
        """Read a model's folder."""
        with np.load(folder / "reference.npz") as stored:
            return cls(folder, dict(stored))

    @property
    def batches(self) -> list[str]:
        return [key.removesuffix("/loss") for key in self.arrays if key.endswith("/loss")]

    def inputs(self, batch: str) -> dict[str, paddle.Tensor]:
        import paddle

        found = {key: self.arrays.get(f"{batch}/{key}") for key in INPUTS}
        return {key: paddle.to_tensor(array) for key, array in found.items() if array is not None}

    @property
    def training(self) -> dict[str, np.ndarray]:
        with np.load(self.folder / "training.npz") as stored:
            return dict(stored)

    def is_token(self, batch: str) -> np.ndarray:
        return self.arrays[f"{batch}/attention_mask"] == 1


def base_of(adapter: str) -> Path:
    """Find the model that an adapter of PEFT's is for."""
    settings = json.loads((FIXTURES / "peft_adapter" / adapter / "adapter_config.json").read_text("utf-8"))
    return FIXTURES.parents[1] / settings["base_model_name_or_path"]


def names(*families: str) -> list[str]:
    """List the models of families by their folders."""
    return [f"{family}/{variant}" for family in families for variant in VARIANTS]


def references_of(*families: str) -> pytest.MarkDecorator:
    """Mark tests whose fixtures `reference`, `model` and `fresh_model` are to be of these families in turn."""
    return pytest.mark.parametrize("reference", names(*families), indirect=True, scope="session")
