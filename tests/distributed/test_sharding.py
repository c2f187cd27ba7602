"""Two ranks train as one process does with the same global batch, however they share what they keep."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from .conftest import Launch

SCRIPT = Path(__file__).with_name("train_cases.py")
FAMILIES = {"qwen2_vl": "tiny_checkpoint", "qwen_vl": "tiny_qwen_vl"}
STEPS, SAVED, PACK, PICTURES = 10, 5, 448, 6
CLIP = 0.5
ALONE, TWO = {"gradient_accumulation_steps": 4}, {"gradient_accumulation_steps": 2}
LORA = {"lora": True, "lora_rank": 4, "lora_dropout": 0.0, "lora_alpha": 32}
KINDS: dict[str, dict[str, Any]] = {"padded": {}, "packs": {"mixtoken": True}, "lora": LORA}
SHARED = {
    "dp": {},
    "stage1": {"sharding": "stage1"},
    "stage2": {"sharding": "stage2"},
    "stage3": {"sharding": "stage3"},
}
CASES = [
    *((kind, how) for kind in ("padded", "packs") for how in SHARED),
    ("lora", "dp"),
    ("lora", "stage1"),
]
Weights = dict[str, np.ndarray]


class Runs:
    """All runs of a family: what they are told, and what they leave."""

    def __init__(self, folder: Path, family: str, checkpoint: Path, records: dict[str, Path]) -> None:
        self.folder, self.family = folder / family, family
        sets = [("chatml_dataset", "pictures"), ("chatml_dataset", "texts")]
        sets += [("ms_swift_3", "video")] if family == "qwen2_vl" else []
        dataset = [{"name": name, "data_files": str(records[file])} for name, file in sets]
        self.config = {
            "model_name_or_path": str(checkpoint),
            "dataset": {"train": dataset, "eval": dataset},
            "do_train": True,
            "do_eval": True,
            "max_steps": STEPS,
            "max_length": PACK,
            "learning_rate": 1e-2,
            "weight_decay": 0.3,
            # Adam divides by gradients' sizes: those that are zero but for rounding, as of a key's bias, would move a
            # weight by a whole learning rate.
            "adam_epsilon": 1e-2,
            "max_grad_norm": CLIP,
            "save_steps": SAVED,
            "report_to": "none",
            "skip_memory_metrics": True,
            "lr_scheduler_type": "linear",
            "seed": 3,
        }

    def write(self, name: str, **keys: Any) -> tuple[str, dict[str, str]]:
        """Write a run's config; its name and what `train_cases.py` is told of it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / f"{name}.json"
        file.write_text(json.dumps({**self.config, **keys, "output_dir": str(self.folder / name)}))
        return f"{self.family} {name}", {"config": str(file)}

    def losses(self, name: str) -> list[float]:
        log = json.loads((self.folder / name / "trainer_log.json").read_text())
        return [entry["loss"] for entry in log if "loss" in entry]

    def evaluation(self, name: str) -> float:
        return json.loads((self.folder / name / "all_results.json").read_text())["eval_loss"]

    def weights(self, name: str) -> Weights:
        (file,) = (self.folder / name).glob("*model.safetensors")
        return load_file(file)

    def seen(self, name: str, rank: int = 0) -> dict[str, Any]:
        return json.loads((self.folder / name / f"seen-{rank}.json").read_text())


@pytest.fixture(scope="module")
def records(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Record files with pictures, with text alone and with a video."""
    folder = tmp_path_factory.mktemp("records")
    pictured = json.loads((shapes / "train_grounding.json").read_text("utf-8"))[:PICTURES]
    for record in pictured:
        for turn in record["conversations"]:
            turn["value"] = turn["value"].replace("<img>", f"<img>{shapes}/")
    counts = [" ".join(str(number) for number in range(many)) for many in (3, 9, 30, 95)]
    texts = [{"conversations": [["Count up.", text]]} for text in counts]
    save_video(folder / "a.mp4")
    turns = [{"role": "user", "content": "<video>What moves?"}, {"role": "assistant", "content": "A grey cloud."}]
    video = [{"messages": turns, "videos": [str(folder / "a.mp4")]}]
    for name, content in (("pictures", pictured), ("texts", texts), ("video", video)):
        (folder / f"{name}.json").write_text(json.dumps(content), "utf-8")
    return {name: folder / f"{name}.json" for name in ("pictures", "texts", "video")}


def save_video(path: Path) -> None:
    av = pytest.importorskip("av", reason="PyAV writes the video")
    start = np.asarray(Image.linear_gradient("L").resize((56, 56)))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=4)
        stream.width, stream.height, stream.pix_fmt = 56, 56, "yuv420p"
        for place in range(4):
            frame = np.stack([np.roll(start, 9 * place, axis=1)] * 3, axis=-1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("train_cases", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def runs(
    request: pytest.FixtureRequest,
    records: dict[str, Path],
    script: ModuleType,
    launch: Launch,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Runs]:
    """Every run of this file, of both families: first those of one process, then those of two in one launch."""
    folder = tmp_path_factory.mktemp("runs")
    families = {
        name: Runs(folder, name, request.getfixturevalue(checkpoint), records) for name, checkpoint in FAMILIES.items()
    }
    for one in families.values():
        for kind, keys in KINDS.items():
            script.train(one.write(f"{kind}-alone", **keys, **ALONE)[1]["config"], [])
    cases = [
        one.write(f"{kind}-{how}", **KINDS[kind], **SHARED[how], **TWO)
        for one in families.values()
        for kind, how in CASES
    ]
    (folder / "cases.json").write_text(json.dumps(dict(cases)))
    launch(SCRIPT, folder / "cases.json")
    return families


def differences(one: Weights, other: Weights) -> dict[str, float]:
    """Of each weight, in parts of its norm."""
    assert one.keys() == other.keys() and len(one) > 10
    return {
        name: float(np.linalg.norm(one[name] - other[name]) / max(np.linalg.norm(other[name]), 1e-30)) for name in one
    }


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("kind", "how"), CASES)
def test_ten_steps_of_two_ranks_are_those_of_one_process(
    runs: dict[str, Runs], family: str, kind: str, how: str
) -> None:
    one, name = runs[family], f"{kind}-{how}"
    losses, alone = one.losses(name), one.losses(f"{kind}-alone")
    assert len(alone) == STEPS and len(set(alone)) == STEPS
    np.testing.assert_allclose(losses, alone, rtol=1e-5)
    np.testing.assert_allclose(one.evaluation(name), one.evaluation(f"{kind}-alone"), rtol=1e-5)
    found = differences(one.weights(name), one.weights(f"{kind}-alone"))
    assert max(found.values()) < 1e-5, sorted(found.items(), key=lambda item: -item[1])[:5]
