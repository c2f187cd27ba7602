"""However a global batch is cut, its loss and gradients are those of one sample at a time."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from copy import copy
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from paddlemix.auto import AutoModelMIX, AutoProcessorMIX
from paddlemix.datasets.batching import Batching
from paddlemix.datasets.collate import PadCollator
from paddlemix.datasets.mix_dataset import DatasetSpec, MixDataset
from paddlemix.datasets.mixing.loss_weights import count_targets
from paddlemix.datasets.mixing.sampler import BatchShape

SCRIPT = Path(__file__).with_name("record_steps.py")
IMAGES, TEXTS = 8, 4
RECORDS = IMAGES + TEXTS
PACK = 512
Recorded = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def records(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Records with images, and some of text alone with answers of very different lengths."""
    shown_image = json.loads((shapes / "train_grounding.json").read_text("utf-8"))[:IMAGES]
    assert len(shown_image) == IMAGES
    for record in shown_image:
        for turn in record["conversations"]:
            turn["value"] = turn["value"].replace("<img>", f"<img>{shapes}/")
    texts = [
        {"conversations": [["Count up.", " ".join(str(number) for number in range(3 * 2**index))]]}
        for index in range(TEXTS)
    ]
    file = tmp_path_factory.mktemp("records") / "records.json"
    file.write_text(json.dumps([*shown_image, *texts]), "utf-8")
    return file


@pytest.fixture(scope="module", params=["tiny_checkpoint", "tiny_qwen_vl"])
def checkpoint(request: pytest.FixtureRequest) -> Path:
    """A tiny model of either family."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def dataset(records: Path, checkpoint: Path) -> MixDataset:
    dataset = MixDataset.load(
        [DatasetSpec("chatml_dataset", str(records))], AutoProcessorMIX.from_pretrained(checkpoint)
    )
    lengths = [size.tokens for size in dataset.sizes]
    assert len(dataset) == RECORDS and max(lengths) <= PACK and max(lengths) > 2 * min(lengths)
    return dataset


@pytest.fixture(scope="module", params=["token", "sample"])
def alone(request: pytest.FixtureRequest, dataset: MixDataset, checkpoint: Path) -> Recorded:
    """Loss and gradients of all records as one global batch, one forward and backward pass a record."""
    model = AutoModelMIX.from_pretrained(checkpoint)
    model.train()
    samples = [dataset[index] for index in range(RECORDS)]
    counts = np.array([count_targets(sample.labels) for sample in samples])
    shares = counts / counts.sum() if request.param == "token" else np.full(RECORDS, 1 / RECORDS)
    loss = 0.0
    for sample, share in zip(samples, shares.tolist(), strict=True):
        batch = {name: as_tensor(array) for name, array in PadCollator(0)([sample]).items()}
        part = model(**batch).loss * share
        part.backward()
        loss += float(part)
    gradients = {f"0/{name}": p.grad.numpy() for name, p in model.named_parameters() if p.grad is not None}
    return {"loss": np.array([loss]), "loss_per": np.array(request.param), **gradients}


def as_tensor(array: np.ndarray) -> Any:
    import paddle

    return paddle.to_tensor(array)


def write_config(folder: Path, checkpoint: Path, records: Path, **keys: object) -> Path:
    config = {
        "model_name_or_path": str(checkpoint),
        "dataset": {"train": [{"name": "chatml_dataset", "data_files": str(records)}]},
        "output_dir": str(folder / "out"),
        "do_train": True,
        "num_train_epochs": 1,
        "learning_rate": 1e-12,  # so small that all steps see the same weights
        "max_length": PACK,
        "save_strategy": "no",
        "report_to": "none",
        "skip_memory_metrics": True,
        **keys,
    }
    path = folder / "config.json"
    path.write_text(json.dumps(config))
    return path


def assert_same(recorded: Recorded, alone: Recorded) -> None:
    """Equal to 1e-5, of the loss and of each gradient's norm."""
    np.testing.assert_allclose(recorded["loss"], alone["loss"], rtol=1e-5)
    gradients = [name for name in alone if name.startswith("0/")]
    assert len(gradients) > 30 and {name for name in recorded if "/" in name} == set(gradients)
    for name in gradients:
        norm = np.linalg.norm(alone[name])
        assert norm > 0 and np.linalg.norm(recorded[name] - alone[name]) < 1e-5 * norm, name


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("record_steps", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SHAPES: dict[str, dict[str, Any]] = {
    "one at a time": {"per_device_train_batch_size": 1, "gradient_accumulation_steps": RECORDS},
    "padded": {"per_device_train_batch_size": RECORDS, "gradient_accumulation_steps": 1},
    "padded and accumulated unevenly": {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 5},
    "packed": {"per_device_train_batch_size": 20, "gradient_accumulation_steps": 1, "mixtoken": True},
    "padded, language model recomputed": {"per_device_train_batch_size": RECORDS, "recompute_llm": True},
    "packed, all recomputed": {"per_device_train_batch_size": 20, "mixtoken": True, "recompute": True},
    "packed and accumulated, one batch a filler": {
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": 9,
        "mixtoken": True,
    },
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_step_is_the_same_however_its_batch_is_cut(
    script: ModuleType, alone: Recorded, shape: str, records: Path, checkpoint: Path, tmp_path: Path
) -> None:
    config = write_config(tmp_path, checkpoint, records, loss_per=str(alone["loss_per"]), **SHAPES[shape])
    recorded, trainer = script.record_steps(str(config), [])
    if "filler" in shape:
        assert 1 < len(trainer.train_sampler.first_rows) < 9
    assert_same(recorded, alone)


def seed_with_text_last(dataset: MixDataset, shape: BatchShape) -> int:
    """A seed for which some rank's last batch shows no image, while its earlier ones and the other rank's last do."""

    def shows_images(seed: int, rank: int) -> list[bool]:
        share = BatchShape(shape.rows, shape.accumulation, shape.ranks, rank)
        reordered = copy(dataset)
        reordered.mixture = replace(dataset.mixture, seed=seed)
        batches = list(Batching().training(reordered, share, seed=seed))
        return [any(index < IMAGES for draw in batch for index in draw.indices) for batch in batches]

    for seed in range(200):
        first, second = shows_images(seed, 0), shows_images(seed, 1)
        if not first[-1] and any(first) and second[-1]:
            return seed
    raise AssertionError("no seed has such batches")


@pytest.mark.parametrize("packs", [False, True])
def test_two_ranks_take_the_step_of_one(
    alone: Recorded, dataset: MixDataset, packs: bool, records: Path, checkpoint: Path, tmp_path: Path
) -> None:
    shape = BatchShape(1, accumulation=6, ranks=2)
    config = write_config(
        tmp_path,
        checkpoint,
        records,
        loss_per=str(alone["loss_per"]),
        per_device_train_batch_size=shape.rows,
        gradient_accumulation_steps=shape.accumulation,
        mixtoken=packs,
        recompute=packs,
        seed=seed_with_text_last(dataset, shape),
        dataset={part: [{"name": "chatml_dataset", "data_files": str(records)}] for part in ("train", "eval")},
        do_eval=True,
    )
    ranks = on_two_ranks(config, tmp_path)
    assert ranks[0]["has_images"].size == 6
    if not packs:
        assert not ranks[0]["has_images"][-1] and ranks[0]["has_images"].any() and ranks[1]["has_images"][-1]
    for recorded in ranks:
        if alone["loss_per"] == "token":
            np.testing.assert_allclose(recorded.pop("eval_loss"), alone["loss"][0], rtol=1e-5)
        assert_same(recorded, alone)


def on_two_ranks(config: Path, folder: Path) -> list[Recorded]:
    environment = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    environment |= {"OMP_NUM_THREADS": "1", "PADDLE_DISTRI_BACKEND": "gloo"}
    launcher = [sys.executable, "-m", "paddle.distributed.launch", "--nproc_per_node", "2"]
    launcher += ["--log_dir", str(folder / "log"), str(SCRIPT), str(folder), str(config)]
    ended = subprocess.run(launcher, env=environment, capture_output=True, text=True, timeout=900, check=False)
    logs = "\n".join(path.read_text("utf-8", "replace") for path in sorted((folder / "log").glob("workerlog.*")))
    assert ended.returncode == 0, logs[-5000:]
    found = []
    for rank in range(2):
        with np.load(folder / f"rank{rank}.npz") as stored:
            found.append(dict(stored))
    return found


def test_the_evaluation_loss_is_the_mean_over_all_target_tokens(
    script: ModuleType, alone: Recorded, records: Path, checkpoint: Path, tmp_path: Path
) -> None:
    if alone["loss_per"] != "token":
        pytest.skip("evaluation always takes the mean over tokens")
    sets = {part: [{"name": "chatml_dataset", "data_files": str(records)}] for part in ("train", "eval")}
    config = write_config(
        tmp_path, checkpoint, records, dataset=sets, do_eval=True, per_device_eval_batch_size=5, max_steps=1
    )
    recorded, _ = script.record_steps(str(config), [])
    np.testing.assert_allclose(recorded["eval_loss"], alone["loss"][0], rtol=1e-5)
