"""Ranks that die or fail where no launcher ends the others: all end by themselves, soon and with a sentence."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from .conftest import environment

FORK_RANKS = Path(__file__).with_name("fork_ranks.py")
STEPS = 6
GONE = "is gone, and no rank can go on without it"


@dataclass(frozen=True)
class Ended:
    """A job that has ended.

    Attributes:
        codes: the ranks' exit codes.
        seconds: that it took.
        logs: what each rank printed.
    """

    codes: list[int]
    seconds: float
    logs: list[str]

    def errors(self, rank: int) -> list[str]:
        """The lines in which a rank says why it ends."""
        return [line for line in self.logs[rank].splitlines() if line.startswith("error: ") or GONE in line]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lost_ranks")


@pytest.fixture(scope="module")
def ended(folder: Path, tiny_checkpoint: Path, shapes: Path) -> dict[str, Ended]:
    """All jobs of this file, by name; each that follows one with the same `output_dir` goes on with it."""
    config = folder / "config.json"
    values = {
        "model_name_or_path": str(tiny_checkpoint),
        "dataset": records(shapes / "train_vqa.json"),
        "output_dir": str(folder / "whole"),
        "do_train": True,
        "max_steps": STEPS,
        "per_device_train_batch_size": 2,
        "learning_rate": 5e-3,
        "save_steps": 2,
        "report_to": "none",
        "resume_from_checkpoint": True,
        "skip_memory_metrics": True,
    }
    config.write_text(json.dumps(values))
    missing = json.dumps(records(folder / "missing.json"))
    jobs = [
        job(config, "whole"),
        job(config, "dies in a step", 1, "dies in step", 3, to="killed"),
        job(config, "dies in a save", 1, "dies in save", 4, to="killed"),
        job(config, "first dies in a save", 0, "dies in save", 4, to="killed"),
        job(config, "resumed", to="killed"),
        job(config, "asked to stop", 1, "is asked to stop in step", 3),
        job(config, "is stopped", 1, "is stopped in step", 3),
        job(config, "disk full", 0, "has no room in save", 4),
        job(config, "read only", to="/proc/nowhere"),
        job(config, "no records", of_second=["--dataset", missing]),
        job(config, "another word", of_second=["--max_step", "6"]),
        job(config, "another config", to="killed", of_both=["--seed", "1"]),
        {**job(config, "one card", to="killed"), "arguments": [[str(config), "--output_dir", str(folder / "killed")]]},
    ]
    return run(folder, jobs)


def records(file: Path) -> dict[str, Any]:
    return {"train": [{"name": "vqa_dataset", "data_files": str(file), "max_samples": 8}]}


def job(
    config: Path,
    name: str,
    *fault: object,
    to: str | None = None,
    of_both: list[str] | None = None,
    of_second: list[str] | None = None,
) -> dict[str, Any]:
    words = [str(config), "--output_dir", str(config.parent / (to or name)), *(of_both or [])]
    log = str(config.parent / "log" / name)
    return {"log": log, "fault": list(fault), "arguments": [words, [*words, *(of_second or [])]]}


def run(folder: Path, jobs: list[dict[str, Any]]) -> dict[str, Ended]:
    file = folder / "jobs.json"
    file.write_text(json.dumps(jobs))
    process = subprocess.run(
        [sys.executable, str(FORK_RANKS), str(file)],
        capture_output=True,
        text=True,
        env=dict(environment()),
        check=False,
        timeout=900,
    )
    lines = process.stdout.splitlines()
    assert process.returncode == 0 and len(lines) == len(jobs), process.stderr[-5000:]
    return {Path(one["log"]).name: read(Path(one["log"]), line) for one, line in zip(jobs, lines, strict=True)}


def read(log: Path, line: str) -> Ended:
    codes, seconds = json.loads(line)
    return Ended(codes, seconds, [path.read_text("utf-8", "replace") for path in sorted(log.glob("workerlog.*"))])


@pytest.mark.parametrize(("name", "dead"), [("dies in a step", 1), ("dies in a save", 1), ("first dies in a save", 0)])
def test_the_other_rank_names_the_dead_one_and_ends_soon(ended: dict[str, Ended], name: str, dead: int) -> None:
    job, other = ended[name], 1 - dead
    assert job.codes[dead] == -9 and job.codes[other] == 1 and job.seconds < 60
    (sentence,) = job.errors(other)
    assert f"rank {dead} of 2 (host " in sentence and f"workerlog.{dead}) {GONE}" in sentence
    assert job.errors(dead) == []


def test_a_run_that_lost_ranks_in_steps_and_saves_ends_with_the_weights_of_one_left_alone(
    ended: dict[str, Ended], folder: Path
) -> None:
    assert ended["whole"].codes == ended["resumed"].codes == [0, 0], ended["resumed"].logs
    # What the killed saves of step 4 had written was never a checkpoint.
    assert "checkpoint-2" in ended["resumed"].logs[0].split("Going on from ")[1].splitlines()[0]
    for name in ("model.safetensors", "checkpoint-6/optimizer-00000-00000.safetensors"):
        whole, killed = ((folder / out / name).read_bytes() for out in ("whole", "killed"))
        assert len(whole) > 10_000 and whole == killed, name


def test_a_signal_to_one_rank_saves_one_checkpoint_and_ends_all_with_the_code_for_that(
    ended: dict[str, Ended], folder: Path
) -> None:
    assert ended["asked to stop"].codes == [75, 75]
    assert sorted(path.name for path in (folder / "asked to stop").glob("*checkpoint*")) == [
        "checkpoint-2",
        "checkpoint-3",
    ]


def test_a_rank_that_is_stopped_is_named_and_ends_the_others(ended: dict[str, Ended]) -> None:
    job = ended["is stopped"]
    (named,) = [line for line in job.logs[0].splitlines() if "has not answered for 20 s" in line]
    assert "rank 1 of 2 (host " in named and job.codes == [1, -9]
    assert "workerlog.1) does not answer, and a collective has given up waiting for it." in job.logs[0]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("disk full", "the checkpoint of step 4 cannot be written"),
        ("read only", "`output_dir` /proc/nowhere cannot be written to"),
        ("another config", "is of another run: `seed` was 42 and is 1"),
    ],
)
def test_all_ranks_end_with_the_one_sentence_that_says_what_is_wrong(
    ended: dict[str, Ended], name: str, words: str
) -> None:
    job = ended[name]
    assert job.codes == [1, 1] and job.seconds < 60
    for rank in range(2):
        (sentence,) = job.errors(rank)
        assert words in job.logs[rank] and GONE not in sentence, job.logs[rank]


def test_a_full_disk_leaves_the_checkpoint_before(ended: dict[str, Ended], folder: Path) -> None:
    assert "goes on from" in ended["disk full"].logs[1]
    assert [path.name for path in (folder / "disk full").glob("*checkpoint*")] == ["checkpoint-2"]


@pytest.mark.parametrize(("name", "words"), [("no records", "missing.json"), ("another word", "--max_step")])
def test_what_is_wrong_in_one_rank_ends_the_others(ended: dict[str, Ended], name: str, words: str) -> None:
    job = ended[name]
    assert job.codes == [1, 1] and job.seconds < 60
    (first,) = job.errors(0)
    assert "rank 1 of 2 (host " in first and GONE in first
    assert len(job.errors(1)) == 1 and words in job.logs[1] and GONE not in job.logs[1]


def test_another_number_of_cards_with_another_global_batch_is_refused(ended: dict[str, Ended], folder: Path) -> None:
    job = ended["one card"]
    (sentence,) = job.errors(0)
    assert job.codes == [1] and "is of another run: `cards` was 2 and is 1" in sentence
    assert (folder / "killed" / f"checkpoint-{STEPS}").is_dir()
