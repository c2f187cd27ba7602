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

from paddlemix.ops.tensors import built

from .conftest import Launch

SCRIPT = Path(__file__).with_name("train_cases.py")
FAMILIES = {"qwen2_vl": "tiny_checkpoint", "qwen_vl": "tiny_qwen_vl", "qwen2_5_vl": "tiny_qwen2_5_vl"}
STEPS, SAVED, PACK, IMAGES, CLIP = 10, 5, 448, 6, 0.1
# So many batches of one record (or pack) make a global batch, by the number of ranks.
ACCUMULATION = {1: 4, 2: 2, 4: 1}
LORA = {"lora": True, "lora_rank": 4, "lora_dropout": 0.0, "lora_alpha": 32}
# The best model is the one after five steps: a falling loss that counts the higher the better.
BEST_EARLY = {"load_best_model_at_end": True, "greater_is_better": True, "eval_steps": SAVED}
KINDS: dict[str, dict[str, Any]] = {
    "padded": {},
    "packs": {"mixtoken": True},
    "lora": LORA,
    "qlora": {**LORA, "quantize": "nf4", "quantize_vision": True},
    "frozen": {"freeze_vit": True, **BEST_EARLY},
    # Gradients added up beside the model's own, as half precision needs. A CPU takes no notice of `bf16` at O1: the
    # weights are float32 and so are the products, so that these runs are those of "padded".
    "added": {"bf16": True, "amp_master_grad": True},
}
ALONE = {"added": "padded-alone"}
SHARED: dict[str, dict[str, Any]] = {
    "dp": {},
    "stage1": {"sharding": "stage1"},
    "stage2": {"sharding": "stage2"},
    "stage3": {"sharding": "stage3"},
}
CASES = [
    *((family, "padded", how) for family in ("qwen2_vl", "qwen_vl") for how in SHARED),
    *((family, "lora", how) for family in ("qwen2_vl", "qwen_vl") for how in ("dp", "stage1")),
    *(("qwen2_vl", "qlora", how) for how in ("stage1", "stage3")),
    *(("qwen2_vl", "packs", how) for how in ("dp", "stage2", "stage3")),
    *(("qwen2_vl", "added", how) for how in SHARED),
    ("qwen_vl", "packs", "stage2"),
    # What its batches have beside Qwen2-VL's are the seconds of videos.
    *(("qwen2_5_vl", kind, "stage2") for kind in ("padded", "packs")),
]
# Four ranks: in two pairs, of which each shares what it keeps.
IN_PAIRS = ("stage1", "stage2", "stage3")
# Runs of two ranks that begin with a checkpoint: their name and kind, the run that wrote it, and how they share now.
RESUMED_BY_TWO = [
    *((f"padded-{how}-from-alone", "padded", "padded-alone", how) for how in ("stage1", "stage2", "stage3")),
    ("padded-stage1-from-stage3", "padded", "padded-stage3", "stage1"),
    ("lora-stage1-from-alone", "lora", "lora-alone", "stage1"),
    ("qlora-stage2-from-alone", "qlora", "qlora-alone", "stage2"),
]
WITH_VIDEOS = ("qwen2_vl", "qwen2_5_vl")
Weights = dict[str, np.ndarray]


class Runs:
    """All runs of a family: what they are told, and what they leave."""

    def __init__(self, folder: Path, family: str, checkpoint: Path, records: dict[str, Path]) -> None:
        self.folder, self.family = folder / family, family
        sets = [("chatml_dataset", "images"), ("chatml_dataset", "texts")]
        sets += [("ms_swift_3", "video")] if family in WITH_VIDEOS else []
        dataset = [{"name": name, "data_files": str(records[file])} for name, file in sets]
        self.config = {
            "model_name_or_path": str(checkpoint),
            "dataset": {"train": dataset, "eval": dataset},
            "do_train": True,
            "evaluation_strategy": "steps",
            "eval_steps": STEPS,
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
            "seed": 2,
            # Two patches in time, of half a second each.
            **({"fps": 4} if family in WITH_VIDEOS else {}),
        }

    def write(self, name: str, *, ranks: int = 1, **keys: Any) -> str:
        """Write a run's config; its path."""
        self.folder.mkdir(parents=True, exist_ok=True)
        file, own = self.folder / f"{name}.json", {"output_dir": str(self.folder / name)}
        own["gradient_accumulation_steps"] = ACCUMULATION[ranks]
        file.write_text(json.dumps({**self.config, **keys, **own}))
        return str(file)

    def checkpoint(self, name: str, step: int) -> str:
        return str(self.folder / name / f"checkpoint-{step}")

    def losses(self, name: str) -> list[float]:
        log = json.loads((self.folder / name / "trainer_log.json").read_text())
        return [entry["loss"] for entry in log if "loss" in entry]

    def norms(self, name: str) -> list[float]:
        log = json.loads((self.folder / name / "trainer_log.json").read_text())
        return [entry["grad_norm"] for entry in log if "grad_norm" in entry]

    def evaluations(self, name: str) -> list[float]:
        log = json.loads((self.folder / name / "trainer_log.json").read_text())
        return [entry["eval_loss"] for entry in log if "eval_loss" in entry]

    def weights(self, name: str) -> Weights:
        (file,) = (self.folder / name).glob("*model.safetensors")
        return load_file(file)

    def seen(self, name: str, rank: int = 0) -> dict[str, Any]:
        return json.loads((self.folder / name / f"seen-{rank}.json").read_text())


@pytest.fixture(scope="module")
def records(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Record files with images, with text alone and with a video."""
    folder = tmp_path_factory.mktemp("records")
    shown_image = json.loads((shapes / "train_grounding.json").read_text("utf-8"))[:IMAGES]
    for record in shown_image:
        for turn in record["conversations"]:
            turn["value"] = turn["value"].replace("<img>", f"<img>{shapes}/")
    counts = [" ".join(str(number) for number in range(many)) for many in (3, 9, 30, 95)]
    texts = [{"conversations": [["Count up.", text]]} for text in counts]
    save_video(folder / "a.mp4")
    turns = [
        {"role": "user", "content": "<image><video>What moves?"},
        {"role": "assistant", "content": "A grey cloud."},
    ]
    image = next((shapes / "pictures" / "train").iterdir())
    video = [{"messages": turns, "images": [str(image)], "videos": [str(folder / "a.mp4")]}]
    for name, content in (("images", shown_image), ("texts", texts), ("video", video)):
        (folder / f"{name}.json").write_text(json.dumps(content), "utf-8")
    return {name: folder / f"{name}.json" for name in ("images", "texts", "video")}


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
    """Every run of two ranks, in one launch, and those of one process that they are held against."""
    folder = tmp_path_factory.mktemp("runs")
    families = {
        name: Runs(folder, name, request.getfixturevalue(checkpoint), records) for name, checkpoint in FAMILIES.items()
    }
    qwen2_vl = families["qwen2_vl"]
    for one in families.values():
        for kind in ("padded", "packs", "lora"):
            script.train(one.write(f"{kind}-alone", **KINDS[kind]))
    for kind in ("frozen", "added", "qlora"):
        script.train(qwen2_vl.write(f"{kind}-alone", **KINDS[kind]))
    configs = [
        families[family].write(f"{kind}-{how}", ranks=2, **KINDS[kind], **SHARED[how]) for family, kind, how in CASES
    ]
    configs.append(qwen2_vl.write("frozen-stage3", ranks=2, **KINDS["frozen"], **SHARED["stage3"]))
    for name, kind, earlier, how in RESUMED_BY_TWO:
        resume = {"resume_from_checkpoint": qwen2_vl.checkpoint(earlier, SAVED)}
        configs.append(qwen2_vl.write(name, ranks=2, **KINDS[kind], **SHARED[how], **resume))
    launch_all(launch, folder, configs, ranks=2)
    return families


def launch_all(launch: Launch, folder: Path, configs: list[str], *, ranks: int) -> None:
    file = folder / f"configs-{ranks}.json"
    file.write_text(json.dumps(configs))
    launch(SCRIPT, file, ranks=ranks, timeout=1200)


def assert_same_run(one: Runs, name: str, alone: str) -> None:
    """Losses and weights of ten steps agree to 1e-5; measured: 1.3e-6 at most. Norms of gradients show more of it."""
    losses = one.losses(alone)
    assert len(losses) == STEPS and len(set(losses)) == STEPS
    np.testing.assert_allclose(one.losses(name), losses, rtol=1e-5)
    np.testing.assert_allclose(one.norms(name), one.seen(alone)["norms"], rtol=5e-5)
    np.testing.assert_allclose(one.evaluations(name)[-1], one.evaluations(alone)[-1], rtol=1e-5)
    assert_same_weights(one.weights(name), one.weights(alone))


def assert_same_weights(found: Weights, wanted: Weights) -> None:
    """To 1e-5 of each weight's norm."""
    assert found.keys() == wanted.keys() and len(wanted) > 10
    off = {name: np.linalg.norm(found[name] - wanted[name]) - 1e-5 * np.linalg.norm(wanted[name]) for name in wanted}
    assert {name: value for name, value in off.items() if not value <= 0} == {}


@pytest.mark.parametrize(("family", "kind", "how"), CASES)
def test_ten_steps_of_two_ranks_are_those_of_one_process(
    runs: dict[str, Runs], family: str, kind: str, how: str
) -> None:
    assert_same_run(runs[family], f"{kind}-{how}", ALONE.get(kind, f"{kind}-alone"))


def test_one_process_adds_gradients_up_beside_the_model_to_the_same_run(runs: dict[str, Runs]) -> None:
    assert_same_run(runs["qwen2_vl"], "added-alone", "padded-alone")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", ["padded", "packs"])
def test_in_these_runs_a_rank_with_text_alone_stands_beside_one_with_images_and_a_video(
    runs: dict[str, Runs], family: str, kind: str
) -> None:
    shown = [runs[family].seen(f"{kind}-stage2", rank)["shows"] for rank in (0, 1)]
    assert len(shown[0]) == len(shown[1]) == STEPS * ACCUMULATION[2]
    packs = {"pack"} if kind == "packs" else set()
    media = {"image", "video"} if family in WITH_VIDEOS else {"image"}
    pairs = [tuple(map(set, pair)) for pair in zip(*shown, strict=True)]
    assert any(pair in ((packs, packs | media), (packs | media, packs)) for pair in pairs), pairs


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", ["padded", "packs", "lora"])
def test_in_these_runs_every_step_is_clipped(runs: dict[str, Runs], family: str, kind: str) -> None:
    norms = runs[family].seen(f"{kind}-alone")["norms"]
    assert len(norms) == STEPS and min(norms) > 2 * CLIP and max(norms) > 1.2 * min(norms)


@pytest.mark.parametrize(("name", "kind", "earlier", "how"), RESUMED_BY_TWO)
def test_two_ranks_go_on_from_a_checkpoint_however_it_was_written(
    runs: dict[str, Runs], name: str, kind: str, earlier: str, how: str
) -> None:
    one = runs["qwen2_vl"]
    assert not Path(one.checkpoint(name, SAVED)).exists()
    assert_same_run(one, name, f"{kind}-alone")


@pytest.mark.parametrize(("kind", "how"), [("padded", "stage1"), ("padded", "stage3"), ("lora", "stage1")])
def test_one_process_goes_on_from_a_checkpoint_of_two_ranks(
    runs: dict[str, Runs], script: ModuleType, kind: str, how: str
) -> None:
    one, name = runs["qwen2_vl"], f"{kind}-alone-from-{how}"
    resume = {"resume_from_checkpoint": one.checkpoint(f"{kind}-{how}", SAVED)}
    script.train(one.write(name, **KINDS[kind], **resume))
    assert_same_run(one, name, f"{kind}-alone")


def test_stage_3_saves_what_is_frozen_too_and_ends_with_the_best_model(runs: dict[str, Runs]) -> None:
    one, name = runs["qwen2_vl"], "frozen-stage3"
    early, late = (load_file(Path(one.checkpoint(name, step)) / "model.safetensors") for step in (SAVED, STEPS))
    found = one.weights(name)
    assert [key for key in found if found[key].tobytes() != early[key].tobytes()] == []
    frozen = [key for key in found if found[key].tobytes() == late[key].tobytes()]
    assert frozen == [key for key in found if key.startswith(("visual.blocks.", "visual.patch_embed."))] and frozen
    assert_same_weights(found, one.weights("frozen-alone"))
    evaluations = one.evaluations(name)
    assert len(evaluations) == 3 and evaluations[0] > evaluations[1]
    assert evaluations[2] == pytest.approx(evaluations[0], rel=1e-6)


def test_pairs_of_ranks_that_share_states_train_with_one_another(runs: dict[str, Runs], launch: Launch) -> None:
    one = runs["qwen2_vl"]
    configs = [one.write(f"padded-pairs-{how}", ranks=4, **SHARED[how], sharding_parallel_degree=2) for how in IN_PAIRS]
    launch_all(launch, one.folder, configs, ranks=4)
    for how in IN_PAIRS:
        assert_same_run(one, f"padded-pairs-{how}", "padded-alone")


def test_optimizer_states_are_written_once_whoever_keeps_them(runs: dict[str, Runs]) -> None:
    one = runs["qwen2_vl"]
    whole = stored_states(Path(one.checkpoint("padded-alone", SAVED)))
    assert len(whole) > 100
    for how in SHARED:
        parts = stored_states(Path(one.checkpoint(f"padded-{how}", SAVED)))
        assert {key.partition("@")[0] for key in parts} == whole.keys(), how
        assert sum(parts.values()) == sum(whole.values()), how


def stored_states(checkpoint: Path) -> dict[str, int]:
    """How many numbers each key holds, over the files of all ranks."""
    found: dict[str, int] = {}
    for file in checkpoint.glob("optimizer-*.safetensors"):
        for key, array in load_file(file).items():
            assert key not in found, key
            found[key] = array.size
    return found


def test_two_ranks_move_in_one_pass_as_paddle_does(checked: list[str]) -> None:
    if built.library().handle is None:
        pytest.skip(f"no built ops: {built.library().reason}")
    assert ["one pass moves as Paddle does" in text for text in checked] == [True, True]
