"""What a model computes for one image and a question, to compare models with."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import paddle
import PIL.Image

from paddlemix.contract import Model, Processor
from paddlemix.conversation import Conversation, Image, RecordId, Text, Turn
from paddlemix.datasets.collate import PadCollator

_SIDE, _QUESTION = 112, "Describe the picture, and name what stands in its upper left corner. 图里有什么？"


def probe_inputs(processor: Processor) -> dict[str, paddle.Tensor]:
    """Make a prompt with an image of coloured noise, the same every time.

    Args:
        processor: of the model's family.

    Returns:
        The model's inputs, one row.
    """
    noise = np.random.default_rng(0).integers(0, 256, [_SIDE, _SIDE, 3], dtype=np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "noise.png"
        PIL.Image.fromarray(noise).save(path)
        turn = Turn("user", (Image(str(path)), Text(_QUESTION)))
        sample = processor.encode_prompt(Conversation((turn,), RecordId("the probe", 0)))
    batch = PadCollator(processor.tokenizer.pad_token_id, side="left")([sample])
    return {name: paddle.to_tensor(array) for name, array in batch.items() if name != "labels"}


def logits_of(model: Model, inputs: dict[str, paddle.Tensor]) -> np.ndarray:
    """Compute the model's logits, float32[tokens, vocabulary]."""
    with paddle.no_grad():
        logits = model(**inputs).logits
    assert logits is not None, "they are left out in training alone"
    return logits[0].astype("float32").numpy()
