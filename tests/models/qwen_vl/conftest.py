from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest

from paddlemix.models.qwen_vl import QWenConfig, QWenLMHeadModel

NAME = "qwen_vl_tiny"
SHARED = [parent / "shared" / "fixtures" / NAME for parent in Path(__file__).parents]
INPUTS = ["input_ids", "attention_mask", "labels"]


@dataclass(frozen=True)
class Original:
    """A tiny model of the original code, and what that computed; `manifest` says how."""

    folder: Path
    arrays: dict[str, np.ndarray]
    manifest: dict[str, Any]

    def inputs(self, case: str) -> dict[str, paddle.Tensor]:
        """What the model is given: ids, mask and labels as stored, and the images that the ids name."""
        found = {key: self.arrays.get(f"{case}/{key}") for key in INPUTS}
        images = self.images(found["input_ids"])
        if images:
            found["pixel_values"] = np.stack([self.pixels(name) for name in images])
        return {key: paddle.to_tensor(array) for key, array in found.items() if array is not None}

    def images(self, input_ids: np.ndarray) -> list[str]:
        """The files that the original opened: it spells their names in bytes, filled up with padding."""
        start, padding = self.manifest["special"]["img"], self.manifest["special"]["img_pad"]
        names = []
        for ids in input_ids.tolist():
            for place in [place for place, token in enumerate(ids) if token == start]:
                behind = ids[place + 1 :]
                names.append(bytes(behind[: behind.index(padding)]).decode("utf-8"))
        return names

    def pixels(self, name: str) -> np.ndarray:
        """float32[3, S, S] of one of the folder's images."""
        names = sorted(path.name for path in self.folder.glob("*.png"))
        return self.arrays["vision/pixel_values"][names.index(name)]


@pytest.fixture(scope="session")
def original() -> Original:
    folder = next((folder for folder in SHARED if folder.is_dir()), None)
    if folder is None:
        pytest.skip(f"the original's numbers ({NAME}) are in no folder shared/fixtures beside this repository")
    with np.load(folder / "fixture.npz") as stored:
        return Original(folder, dict(stored), json.loads((folder / "manifest.json").read_text("utf-8")))


@pytest.fixture(scope="session")
def model(original) -> QWenLMHeadModel:
    """Shared: a test that changes it takes `fresh_model`."""
    return QWenLMHeadModel.from_pretrained(original.folder)


@pytest.fixture
def fresh_model(original) -> QWenLMHeadModel:
    return QWenLMHeadModel.from_pretrained(original.folder)


@pytest.fixture(scope="session")
def short_model(original) -> QWenLMHeadModel:
    """The same weights, as if they had been trained on 24 tokens at most."""
    from paddlemix.weights.loading import load_weights

    model = QWenLMHeadModel(QWenConfig(**json.loads((original.folder / "config_seq24.json").read_text("utf-8"))))
    load_weights(model, original.folder, model.weight_layout(model.config))
    model.carried_files = {"generation_config.json": (original.folder / "generation_config.json").read_bytes()}
    assert model.config.seq_length == 24
    return model.eval()
