"""Blocks that are computed twice: the same loss and gradients, of models of either family."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import paddle
import pytest

from paddlemix.auto import AutoProcessorMIX
from paddlemix.configuration.arguments import DataArguments, FinetuneConfig, ModelArguments
from paddlemix.datasets.collate import TrainingCollator
from paddlemix.datasets.mix_dataset import DatasetSpec, MixDataset
from paddlemix.datasets.mixing.loss_weights import WeightedSample
from paddlemix.training.finetune import Run

ARGS = SimpleNamespace(tensor_parallel_degree=-1, fp16_opt_level="O1", bf16=False, fp16=False, seed=3)
BOTH = {"vision": True, "language": True}
# The built ops join a tower's linear layers with their activation where no gradient is asked for, as in the first of
# two passes, and round otherwise: 2.5e-6 of the largest gradient was measured. Without them nothing differs.
TOWER_NOISE = 1e-5
# The tiny models have 1 block in the tower and 2 in the decoder.
TOWER, DECODER = ("VisionBlock",), ("DecoderBlock",)

Gradients = dict[str, np.ndarray]
Measure = Callable[..., tuple[float, Gradients, Counter]]


@pytest.fixture(scope="module", params=["tiny_checkpoint", "tiny_qwen_vl"])
def checkpoint(request: pytest.FixtureRequest) -> Path:
    """A tiny model of either family."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module", params=["padded", "packed"])
def batch(request: pytest.FixtureRequest, checkpoint: Path, shapes: Path) -> dict[str, paddle.Tensor]:
    """Three records with images."""
    processor = AutoProcessorMIX.from_pretrained(checkpoint)
    records = MixDataset.load([DatasetSpec("chatml_dataset", str(shapes / "train_grounding.json"))], processor)
    rows = [[WeightedSample(records[index], weight)] for index, weight in ((0, 0.1), (1, 0.3), (2, 0.2))]
    arrays = TrainingCollator(0, packs=request.param == "packed")(rows)
    assert ("cu_seqlens" in arrays) == (request.param == "packed") and len(arrays["pixel_values"]) >= 3
    return {name: paddle.to_tensor(array) for name, array in arrays.items()}


@pytest.fixture
def measure(checkpoint: Path, batch: dict[str, paddle.Tensor]) -> Measure:
    """Loss, gradients, and how often the blocks of each class were computed."""

    def run(*, training: bool = True, vision: bool = False, language: bool = False, **keys: Any):
        named = ModelArguments(model_name_or_path=str(checkpoint), **keys)
        model = Run.of(FinetuneConfig(named, DataArguments(), {})).load_model(ARGS)
        model.set_recompute(vision=vision, language=language)
        model.train() if training else model.eval()
        calls: Counter = Counter()
        for layer in model.sublayers():
            layer.register_forward_pre_hook(lambda layer, inputs: calls.update([type(layer).__name__]))
        paddle.seed(7)  # of the adapters' dropout
        loss = model(**batch).loss
        loss.backward()
        named = model.named_parameters()
        return float(loss), {name: p.grad.numpy() for name, p in named if p.grad is not None}, calls

    return run


def times(calls: Counter, blocks: tuple[str, ...]) -> int:
    return sum(calls[name] for name in blocks)


def assert_equal(
    found: tuple[float, Gradients, Counter], expected: tuple[float, Gradients, Counter], *, noise: float
) -> None:
    """Equal to `noise`, of the loss and of each gradient's largest number."""
    assert found[1].keys() == expected[1].keys()
    assert abs(found[0] - expected[0]) <= noise * abs(expected[0])
    for name, gradient in expected[1].items():
        largest = np.abs(gradient).max()
        assert largest > 0 and np.abs(found[1][name] - gradient).max() <= noise * largest, name


@pytest.mark.parametrize(
    ("parts", "tower", "decoder"),
    [({"vision": True}, 2, 2), ({"language": True}, 1, 4), (BOTH, 2, 4)],
    ids=["tower", "decoder", "both"],
)
def test_loss_and_gradients_are_those_of_blocks_computed_once(
    measure: Measure, parts: dict[str, bool], tower: int, decoder: int
) -> None:
    plain, twice = measure(), measure(**parts)
    assert len(plain[1]) > 30
    assert_equal(twice, plain, noise=0.0 if tower == 1 else TOWER_NOISE)
    assert (times(plain[2], TOWER), times(plain[2], DECODER)) == (1, 2)
    assert (times(twice[2], TOWER), times(twice[2], DECODER)) == (tower, decoder)


def test_adapters_on_a_frozen_model_get_their_gradients_and_the_same_dropout(measure: Measure) -> None:
    # Neither the patches nor the embeddings ask for a gradient, and the first blocks have adapters.
    keys = {"lora": True, "lora_dropout": 0.5, "lora_target_modules": [".*(q_proj|qkv|c_attn|in_proj)"]}
    plain, twice = measure(**keys), measure(**BOTH, **keys)
    # The adapters' second factors start as zero, so the first ones' gradients are zero too.
    moved = {name: gradient for name, gradient in plain[1].items() if np.abs(gradient).max() > 0}
    assert len(moved) == 3 and all(name.endswith("lora_B") for name in moved)
    assert any("visual" in name for name in moved) and any(".0." in name and "visual" not in name for name in moved)
    assert_equal(
        (twice[0], {name: twice[1][name] for name in moved}, twice[2]), (plain[0], moved, plain[2]), noise=TOWER_NOISE
    )
    assert times(twice[2], TOWER) == 2 and times(twice[2], DECODER) == 4


def test_what_has_no_gradients_is_computed_once(measure: Measure) -> None:
    _, gradients, calls = measure(**BOTH, freeze_vit=True)
    assert times(calls, TOWER) == 1 and times(calls, DECODER) == 4
    assert not any("visual" in name and "merger" not in name and "attn_pool" not in name for name in gradients)
    assert times(measure(**BOTH, training=False)[2], DECODER) == 2
