"""Kills a training run at random moments, saves included, and goes on with it until it ends.

Its weights and losses must then be, bit by bit, those of a run that was left alone. One process, on the CPU:

    OMP_NUM_THREADS=1 python tests/faults/kill_and_resume.py --kills 20

Every attempt is a process of its own, forked from this one, which has imported all but computed nothing; so it need not
import for seconds each time.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paddlemix  # isort: skip - before Paddle, which it prepares for
import numpy as np
from safetensors.numpy import load_file

from paddlemix.examples.demo.make_data import Settings, make_data
from paddlemix.tools import supervised_finetune
from paddlemix.tools.report_errors import report_errors
from paddlemix.training import plan, sft  # what the tool itself imports late

del paddlemix, plan, sft

BASE_MODEL = Path(__file__).parents[2] / "paddlemix" / "examples" / "demo" / "base_model"
POLL = 0.002
MOMENTS = ("start", "step", "step", "save", "save", "save")


def main() -> int:
    """Do what the command line says; 0 where both runs ended alike."""
    options = parse_options()
    folder = Path(options.folder or tempfile.mkdtemp(prefix="kill_and_resume-"))
    folder.mkdir(parents=True, exist_ok=True)
    print(f"in {folder}", flush=True)
    steps = options.steps or 2 * options.save_steps * max(options.kills, 2)
    alone, killed = (
        write_config(folder / name, options, steps, data_of(options, folder)) for name in ("alone", "killed")
    )
    pace = run_alone(alone)
    print(f"left alone: {steps} steps, {pace}", flush=True)
    landed = kill_until_done(killed, options.kills, random.Random(options.seed), pace)
    print(f"killed {sum(landed.values())} times: {', '.join(f'{n} {where}' for where, n in landed.items())}")
    if sum(landed.values()) < options.kills:
        print(f"too few: the run ended before {options.kills} kills; give more --steps")
        return 1
    return compare(folder / "alone" / "out", folder / "killed" / "out", steps)


def parse_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="how often the run is killed (20)")
    parser.add_argument("--steps", type=int, help="optimizer steps of the run (enough for the kills)")
    parser.add_argument("--save_steps", type=int, default=2, help="steps from one checkpoint to the next (2)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (0)")
    parser.add_argument("--model_name_or_path", default=str(BASE_MODEL), help="what is trained (the demo's base model)")
    parser.add_argument("--data", help="a folder that make_data.py wrote (one is made)")
    parser.add_argument("--folder", help="where the two runs are kept (a temporary one)")
    return parser.parse_args()


def data_of(options: argparse.Namespace, folder: Path) -> Path:
    """The records to train on."""
    if options.data:
        return Path(options.data).resolve()
    if not (folder / "data").exists():
        make_data(folder / "data", Settings("base", train=24, eval=4, seed=0), workers=1)
    return folder / "data"


def write_config(folder: Path, options: argparse.Namespace, steps: int, data: Path) -> Path:
    """The run's config; killed and left alone, it differs in the output folder only."""
    files = (("chatml_dataset", "grounding"), ("vqa_dataset", "vqa"), ("coco_caption", "caption"))
    config = {
        "model_name_or_path": options.model_name_or_path,
        "dataset": {"train": [{"name": name, "data_files": str(data / f"train_{file}.json")} for name, file in files]},
        "output_dir": str(folder / "out"),
        "do_train": True,
        "resume_from_checkpoint": True,
        "max_steps": steps,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "learning_rate": 1e-3,
        "save_steps": options.save_steps,
        "save_total_limit": 2,
        "logging_steps": 3,
        "report_to": "none",
        "seed": 0,
    }
    folder.mkdir(exist_ok=True)
    path = folder / "config.json"
    path.write_text(json.dumps(config, indent=2))
    return path


@dataclass
class Attempt:
    """One process that trains, and what it leaves on the disk while it does."""

    config: Path
    number: int = 0

    def __post_init__(self) -> None:
        self.log = self.config.parent / f"attempt-{self.number}.log"
        self.out = self.config.parent / "out"
        # What the attempt before has left; this one clears it away when it starts.
        self.leftovers = self._staged()
        context = multiprocessing.get_context("fork")
        self.process = context.Process(target=train, args=(self.config, self.log))
        self.process.start()

    @property
    def steps_logged(self) -> int:
        return self.log.read_text("utf-8").count("\nstep ") if self.log.exists() else 0

    @property
    def is_saving(self) -> bool:
        staged = self._staged()
        self.leftovers &= staged
        return bool(staged - self.leftovers)

    def _staged(self) -> set[Path]:
        return set(self.out.glob(".checkpoint-*.staging"))

    def wait_until(self, condition: Callable[[], bool]) -> bool:
        """Whether it came true before the process ended."""
        while self.process.is_alive():
            if condition():
                return True
            time.sleep(POLL)
        return False

    def kill(self) -> str:
        """End it with SIGKILL; says where that met it."""
        was_saving_before = self.is_saving
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.join()
        if self.is_saving:
            return "in a save"
        return "at a save's end" if was_saving_before else "in a step" if self.steps_logged else "before a step"

    def end(self) -> None:
        """Wait for it; an attempt that was not killed must succeed."""
        self.process.join()
        if self.process.exitcode != 0:
            raise SystemExit(f"{self.log} ended with {self.process.exitcode}:\n{self.log.read_text('utf-8')[-3000:]}")


def train(config: Path, log: Path) -> None:
    """What an attempt does."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    with report_errors():
        supervised_finetune.main([str(config)])


@dataclass(frozen=True)
class Pace:
    """Seconds that parts of a run take, which moments are drawn from."""

    start: float
    step: float
    save: float

    def __str__(self) -> str:
        return f"{self.start:.1f} s until the first log, {self.step:.2f} s a step, {self.save * 1000:.0f} ms a save"


def run_alone(config: Path) -> Pace:
    """Let a run be, and measure it."""
    began = time.monotonic()
    attempt = Attempt(config)
    attempt.wait_until(lambda: attempt.steps_logged > 0)
    first = time.monotonic()
    saves = []
    while attempt.wait_until(lambda: attempt.is_saving):
        saving = time.monotonic()
        attempt.wait_until(lambda: not attempt.is_saving)
        saves.append(time.monotonic() - saving)
    attempt.end()
    steps = json.loads(config.read_text())["max_steps"]
    return Pace(first - began, (time.monotonic() - first) / steps, float(np.median(saves)) if saves else 0.1)


def kill_until_done(config: Path, kills: int, chance: random.Random, pace: Pace) -> Counter[str]:
    """Kill a run again and again, then let it end; says how often it was killed where."""
    landed: Counter[str] = Counter()
    for number in range(kills):
        attempt = Attempt(config, number)
        if not wait_for_moment(attempt, MOMENTS[number % len(MOMENTS)], chance, pace):
            attempt.end()
            return landed
        where = attempt.kill()
        landed[where] += 1
        whole = sorted(int(path.name.split("-")[1]) for path in attempt.out.glob("checkpoint-*"))
        print(f"  kill {number + 1}: {where}; checkpoints now {whole}", flush=True)
    Attempt(config, kills).end()
    return landed


def wait_for_moment(attempt: Attempt, moment: str, chance: random.Random, pace: Pace) -> bool:
    """Wait for a random moment of its kind; false where the attempt ended before."""
    if moment == "save":
        came, rest = attempt.wait_until(lambda: attempt.is_saving), pace.save
    elif moment == "step":
        came, rest = attempt.wait_until(lambda: attempt.steps_logged > 0), 2 * pace.step
    else:
        came, rest = True, pace.start
    deadline = time.monotonic() + chance.random() * rest
    return came and attempt.wait_until(lambda: time.monotonic() >= deadline)


def compare(alone: Path, killed: Path, steps: int) -> int:
    """Whether weights and logged losses are the same, bit by bit."""
    problems = []
    one, other = (load_file(out / "model.safetensors") for out in (alone, killed))
    problems += [name for name in one if one[name].tobytes() != other[name].tobytes()]
    losses = [losses_of(out) for out in (alone, killed)]
    if losses[0] != losses[1] or losses[0][-1][0] != steps:
        problems.append(f"losses: {losses[0][-3:]} and {losses[1][-3:]}")
    if problems:
        print(f"NOT equal: {len(problems)} of {len(one)} tensors and the losses differ: {', '.join(problems[:5])}")
        return 1
    print(f"bit-equal: all {len(one)} tensors and all {len(losses[0])} logged losses of {steps} steps")
    return 0


def losses_of(out: Path) -> list[Any]:
    """Step and loss of each log entry."""
    log = json.loads((out / "trainer_log.json").read_text())
    return [(entry["step"], entry["loss"]) for entry in log if "loss" in entry]


if __name__ == "__main__":
    sys.exit(main())
