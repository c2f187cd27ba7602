"""What a model computes for one image and a question, to compare models with."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import paddle
import PIL.Image
import psutil
from paddle.base import core

from paddlemix.contract import Model, Processor
from paddlemix.conversation import Conversation, Image, RecordId, Text, Turn
from paddlemix.datasets.collate import PadCollator
from paddlemix.weights.files import stored_tensors

_ACTIVATIONS = 2**28
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


def memory_needed(folder: Path) -> int:
    """Count the bytes that a model takes, loaded in float32, while it answers a probe.

    Args:
        folder: of its checkpoint; only the headers of its files are read.

    Returns:
        Its weights, the largest of them once more, from which it is filled, and what a prompt of some hundred tokens
        needs.
    """
    sizes = [4 * int(np.prod(tensor.shape)) for tensor in stored_tensors(folder)]
    return sum(sizes) + max(sizes) + _ACTIVATIONS


def memory_free(device: str, limits: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the bytes that are free on a device, "cpu" or "gpu", where other processes on a card are not known.

    Args:
        device: that is asked about.
        limits: the folder in which the kernel says what a container may have.

    Returns:
        The bytes; for the CPU what the machine has, or a container's limit leaves.
    """
    if device == "gpu":
        return paddle.device.cuda.get_device_properties().total_memory - paddle.device.cuda.memory_allocated()
    free = psutil.virtual_memory().available
    return min([free, *(limit - _held(limits / group) for group, limit in _limits_of(limits))])


def _limits_of(folder: Path) -> Iterator[tuple[str, int]]:
    """Find the limits of a container's memory, in the file of version 2 of Linux' control groups and that of 1."""
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        if (folder / name).is_file() and (limit := (folder / name).read_text().strip()).isdigit():
            yield str(Path(name).parent), int(limit)


def _held(group: Path) -> int:
    """Count the bytes that a container holds; copies of files, which the kernel drops when it needs room, do not."""
    files = [group / name for name in ("memory.current", "memory.usage_in_bytes")]
    used = next((int(file.read_text()) for file in files if file.is_file()), 0)
    lines = (group / "memory.stat").read_text().splitlines() if (group / "memory.stat").is_file() else []
    counts = dict(line.split(maxsplit=1) for line in lines)
    return used - int(counts.get("inactive_file", 0)) - int(counts.get("active_file", 0))


@contextmanager
def whole_float32() -> Iterator[None]:
    """Let the block's float32 products on a card be of float32, not of TF32, which has 11 bits of each factor."""
    before = core.get_cublas_switch()
    core.set_cublas_switch(False)
    try:
        yield
    finally:
        core.set_cublas_switch(before)
