"""Every family answers on two ranks that share it as it does alone; a new family enters by its row in the table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage

from paddlemix.auto import AutoModelMIX, AutoProcessorMIX
from paddlemix.conversation import Conversation, Image, RecordId, Text, Turn
from paddlemix.datasets.collate import PadCollator

from ..families import FAMILIES, FamilyCase, each_family
from .answer_split import outputs_of
from .conftest import Launch

SCRIPT = Path(__file__).with_name("answer_split.py")
# Sums of float32 in another order: 4e-7 of the largest logit were measured.
CLOSE = 2e-6


@pytest.fixture(scope="module")
def answered(launch: Launch, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All families' cases, answered by two ranks in one run."""
    folder = tmp_path_factory.mktemp("split")
    image = folder / "image.png"
    PILImage.effect_noise((56, 56), 90).convert("RGB").save(image)
    turns = (Turn("user", (Image(str(image)), Text("What is it?"))), Turn("assistant", (Text("a red star"),)))
    for case in FAMILIES:
        (folder / case.model_type).mkdir()
        checkpoint = case.folder_for_two(request, folder / case.model_type / "checkpoint")
        sample = AutoProcessorMIX.from_pretrained(checkpoint).encode(Conversation(turns, RecordId("a test", 0)))
        np.savez(folder / case.model_type / "batch.npz", **PadCollator(0)([sample]))
    launch(SCRIPT, *(folder / case.model_type for case in FAMILIES))
    return folder


@each_family
def test_two_ranks_that_share_it_answer_as_one_does(answered: Path, case: FamilyCase):
    folder = answered / case.model_type
    with np.load(folder / "batch.npz") as batch, np.load(folder / "split.npz") as split:
        alone = outputs_of(AutoModelMIX.from_pretrained(folder / "checkpoint"), dict(batch))
        together = dict(split)
    assert together["split"] > 15, "most matrices are split"
    largest = np.abs(alone["logits"]).max()
    assert largest > 0.05 and alone["logits"].std() > 0.01
    np.testing.assert_allclose(together["logits"], alone["logits"], atol=CLOSE * largest, rtol=0)
    np.testing.assert_allclose(together["loss"], alone["loss"], rtol=CLOSE)
    np.testing.assert_array_equal(together["tokens"], alone["tokens"])
