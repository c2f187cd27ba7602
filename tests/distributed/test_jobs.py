"""Jobs of several ranks as users start, stop and lose them: by the launcher's command line."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .conftest import ROOT, environment
from .jobs import SOON, Job, faulty, free_port, is_running, launcher, start

TOOL = ROOT / "paddlemix" / "tools" / "supervised_finetune.py"
STEPS = 6
# Of the addresses of two network namespaces.
NETWORK = "10.231.77"
COMMAND = re.compile(r"^python -u -m paddle\.distributed\.launch --gpus \S+ \S+ config\.json", re.MULTILINE)
# Seconds for a run to its end, on a machine that does much else.
WHOLE = 600
CARDS = {"CUDA_VISIBLE_DEVICES": "0,1"}
Start = Callable[..., Job]


@pytest.fixture(scope="module")
def config(tiny_checkpoint: Path, shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a run on two ranks that saves every step."""
    folder = tmp_path_factory.mktemp("config")
    values = {
        "model_name_or_path": str(tiny_checkpoint),
        "dataset": {"train": [{"name": "vqa_dataset", "data_files": str(shapes / "train_vqa.json"), "max_samples": 8}]},
        "output_dir": "out",
        "do_train": True,
        "max_steps": STEPS,
        "per_device_train_batch_size": 2,
        "learning_rate": 5e-3,
        "save_steps": 1,
        "logging_steps": 1,
        "report_to": "none",
        "resume_from_checkpoint": True,
        "skip_memory_metrics": True,
    }
    path = folder / "config.json"
    path.write_text(json.dumps(values))
    return path


@pytest.fixture(scope="module")
def whole(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """The README's line for several cards with this machine's cards and the config above, left alone."""
    line = COMMAND.search((ROOT / "README.md").read_text("utf-8"))
    assert line is not None
    _, *words = shlex.split(line[0])
    words[words.index("--gpus") + 1] = "0,1"
    words[words.index("config.json")] = str(config)
    folder = tmp_path_factory.mktemp("whole")
    (folder / "paddlemix").symlink_to(ROOT / "paddlemix")
    job = start(folder, [sys.executable, *words], environment(**CARDS))
    assert job.wait(WHOLE) == 0, job.said[-5000:]
    return job


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Start]:
    """Start jobs in folders of their own."""
    jobs = []

    def begin(name: str, *words: str, **more: str) -> Job:
        jobs.append(start(tmp_path / name, list(words), environment(PADDLE_DISTRI_BACKEND="gloo", **more)))
        return jobs[-1]

    yield begin
    for job in jobs:
        job.end()


def assert_same(checkpoint: Path, other: Path) -> None:
    """Weights and what the optimizer keeps, bit by bit."""
    files = sorted(path.name for path in checkpoint.glob("*.safetensors"))
    assert len(files) == 2 and files == sorted(path.name for path in other.glob("*.safetensors"))
    for name in files:
        assert (checkpoint / name).read_bytes() == (other / name).read_bytes(), name


def checkpoints(out: Path) -> list[str]:
    return sorted(path.name for path in out.glob("*checkpoint*"))


def test_the_readmes_command_line_shows_plan_and_progress_once(whole: Job) -> None:
    assert whole.said.count("Plan\n") == 1 and "2 a card x 1 accumulated x 2 cards" in whole.said
    assert "  ranks: 2; 2 models side by side\n" in whole.said
    assert [whole.said.count(f"\nstep {step}/{STEPS} ") for step in range(1, STEPS + 1)] == [1] * STEPS
    assert "Plan\n" in whole.log(0) and "Plan\n" not in whole.log(1) and "\nstep " not in whole.log(1)
    states = whole.folder / "out" / f"checkpoint-{STEPS}"
    assert len(list(states.glob("random_state-*.json"))) == 2
    written = {path.name for path in (whole.folder / "out").iterdir()}
    assert {"model.safetensors", "loss.png", "all_results.json"} <= written


def test_a_killed_rank_ends_the_job_which_names_it_and_its_log(begin: Start, config: Path) -> None:
    job = begin("job", *launcher("--gpus", "0,1"), *faulty(1, "dies in step", 3, config), **CARDS)
    job.wait_until(lambda: "step 2/" in job.said)
    code = job.wait()
    last = job.said.splitlines()[-40:]
    (named,) = [line for line in last if line.startswith("Container rank")]
    assert code != 0 and named.startswith("Container rank 1 ") and named.endswith(" code -9 log log/workerlog.1")
    assert checkpoints(job.folder / "out") == ["checkpoint-1", "checkpoint-2"]


def test_ranks_save_together_when_their_launcher_is_stopped_and_when_it_is_killed(
    begin: Start, config: Path, whole: Job, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    flags = ["--output_dir", out, "--save_steps", 100, "--dataloader_num_workers", 1]
    for code, number, step in ((signal.SIGTERM, signal.SIGTERM, 3), (-signal.SIGKILL, signal.SIGKILL, 5)):
        words = [*launcher("--gpus", "0,1"), *faulty(1, "pauses in step", step, config, *flags)]
        job = begin(f"job-{number}", *words, **CARDS)
        job.wait_until((out / "paused").exists)
        ranks = job.ranks()
        assert len(ranks) == 2
        os.kill(job.process.pid, number)
        time.sleep(1)  # until all have their signal; rank 0 waits in a collective
        (out / "paused").unlink()
        assert job.wait() == code
        deadline = time.monotonic() + SOON
        while any(map(is_running, ranks)):
            assert time.monotonic() < deadline, job.said[-5000:]
            time.sleep(0.1)
        for rank in range(2):
            assert f"SIGTERM: step {step} is saved, then the process ends with 75." in job.log(rank)
        assert_same(out / f"checkpoint-{step}", whole.folder / "out" / f"checkpoint-{step}")
    assert checkpoints(out) == ["checkpoint-3", "checkpoint-5"]


def begin_nodes(begin: Start, name: str, words: list[str]) -> list[Job]:
    """Two launchers with one process each, as two machines would run them."""
    port = free_port()
    options = ("--nnodes", 2, "--master", f"127.0.0.1:{port}", "--nproc_per_node", 1)
    return [begin(f"{name}-{node}", *launcher(*options, "--rank", node), *words) for node in range(2)]


def test_a_node_that_dies_ends_the_other_one_and_two_nodes_go_on_like_one(
    begin: Start, config: Path, whole: Job, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    words = faulty(1, "pauses in step", 3, config, "--output_dir", out)
    first, second = begin_nodes(begin, "dying", words)
    second.wait_until((out / "paused").exists)
    (rank,) = second.ranks()
    for pid in (second.process.pid, rank):
        os.kill(pid, signal.SIGKILL)
    assert first.wait() == 1
    (sentence,) = [line for line in first.log(0).splitlines() if "is gone, and no rank can go on without it" in line]
    assert "rank 1 of 2 (host " in sentence and f"log {second.folder}/log/workerlog.0)" in sentence
    assert checkpoints(out) == ["checkpoint-1", "checkpoint-2"]

    (out / "paused").unlink()
    tool = [str(TOOL), str(config), "--output_dir", str(out)]
    nodes = begin_nodes(begin, "resumed", tool)
    assert [node.wait(WHOLE) for node in nodes] == [0, 0], nodes[0].said[-5000:]
    assert "Going on from" in nodes[0].said and "Plan\n" not in nodes[1].said
    assert_same(out / f"checkpoint-{STEPS}", whole.folder / "out" / f"checkpoint-{STEPS}")


@pytest.fixture
def hosts() -> Iterator[list[str]]:
    """Two network namespaces with a cable between them; the name of each is the beginning of a command line."""
    names = [f"paddlemix{os.getpid()}{end}" for end in "ab"]
    try:
        for name in names:
            ip("netns", "add", name)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no network namespaces here: {error}")
    try:
        ip("link", "add", "cable", "netns", names[0], "type", "veth", "peer", "name", "cable", "netns", names[1])
        for number, name in enumerate(names, start=1):
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "addr", "add", f"{NETWORK}.{number}/24", "dev", "cable")
            ip("-n", name, "link", "set", "cable", "up")
        yield names
    finally:
        for name in names:
            ip("netns", "delete", name)


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def test_two_hosts_train_like_one(begin: Start, hosts: list[str], config: Path, whole: Job, tmp_path: Path) -> None:
    out = tmp_path / "out"
    nodes = []
    for number, name in enumerate(hosts, start=1):
        options = ["--nnodes", 2, "--master", f"{NETWORK}.1:23500", "--rank", number - 1, "--nproc_per_node", 1]
        words = [*launcher(*options, "--host", f"{NETWORK}.{number}"), str(TOOL), str(config), "--output_dir", str(out)]
        # By itself gloo takes the address that the host's name stands for, which here is the loopback's.
        nodes.append(begin(f"node-{number}", "ip", "netns", "exec", name, *words, GLOO_SOCKET_IFNAME="cable"))
    assert [node.wait(WHOLE) for node in nodes] == [0, 0], nodes[0].said[-5000:]
    assert_same(out / f"checkpoint-{STEPS}", whole.folder / "out" / f"checkpoint-{STEPS}")
