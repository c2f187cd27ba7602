# ruff: noqa: E402 - the program begins anew with the library before it imports what that is to watch
"""Kills training runs at chosen calls to the system, and goes on with each until it ends.

At every kind of call that changes files, in the run's folder and in the cache: opening, writing (half of it is
written), bringing to the disk, renaming, deleting, making a folder; and at any moment. What a run leaves must then be,
bit by bit, what a run left that nobody killed, and nothing beside it. One process, on the CPU:

    OMP_NUM_THREADS=1 python tests/faults/kill_and_resume.py --kills 200

Every attempt is a process of its own, forked from this one, which has imported all but computed nothing; so it need not
import for seconds each time. `kill_at_call.c`, preloaded, kills it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

SHIM_VARIABLE = "KILL_AT_CALL"


def preload() -> None:
    """Build the library that kills, and become this program once more with it."""
    folder = Path(tempfile.mkdtemp(prefix="kill_at_call-"))
    source, library = Path(__file__).with_name("kill_at_call.c"), folder / "kill_at_call.so"
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", str(source), "-o", str(library), "-ldl"], check=True)
    environment = {**os.environ, "LD_PRELOAD": str(library), SHIM_VARIABLE: str(library)}
    os.execve(sys.executable, [sys.executable, *sys.argv], environment)


if __name__ == "__main__" and SHIM_VARIABLE not in os.environ:
    preload()

import argparse
import ctypes
import json
import mmap
import multiprocessing
import random
import shutil
import signal
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

import paddlemix  # isort: skip - before Paddle, which it prepares for
from safetensors.numpy import load_file

from paddlemix.examples.demo.make_data import Settings, make_data
from paddlemix.tools import supervised_finetune
from paddlemix.tools.report_errors import report_errors
from paddlemix.training import plan, sft  # what the tool itself imports late

del paddlemix, plan, sft

BASE_MODEL = Path(__file__).parents[2] / "paddlemix" / "examples" / "demo" / "base_model"
CALLS = ("open", "write", "fsync", "rename", "unlink", "mkdir")
# Not at a call, but at a moment that nothing marks.
MOMENT = "moment"
KINDS = (*CALLS, MOMENT)
# Files that tell times, speeds, memory in use or the run's own folder, in which no two runs are alike.
OWN = ("all_results.json", "trainer_log.json", "resume_state.json", "trainer_state.json", "manifest.json", "loss.png")
OWN += ("training_args.bin",)


class Report(ctypes.Structure):
    """What `kill_at_call.c` tells, as it lays it out.

    Attributes:
        counts: of calls by kind, so far.
        path: of the call that the process was killed in.
    """

    _fields_ = (("counts", ctypes.c_long * len(CALLS)), ("path", ctypes.c_char * 4096))
    counts: Any
    path: bytes


def main() -> int:
    """Do what the command line says; 0 where all runs ended alike."""
    options = parse_options()
    folder = Path(options.folder or tempfile.mkdtemp(prefix="kill_and_resume-"))
    folder.mkdir(parents=True, exist_ok=True)
    print(f"in {folder}", flush=True)
    data, chance = data_of(options, folder), random.Random(options.seed)
    alone = Run(folder / "alone", options, data)
    began = time.monotonic()
    alone.attempt()
    seconds = time.monotonic() - began
    print(f"left alone: {options.steps} steps, {seconds:.1f} s, {dict(alone.calls)}", flush=True)
    landed: Counter[str] = Counter()
    runs = 0
    while sum(landed.values()) < options.kills:
        run = Run(folder / f"killed-{runs}", options, data)
        runs += 1
        run.kill_until_done(chance, alone.calls, seconds, landed, options)
        if problems := differences(alone, run, options.steps):
            print(f"NOT equal in {run.folder}: {'; '.join(problems[:9])}")
            return 1
        shutil.rmtree(run.folder)
    print(f"killed {sum(landed.values())} times in {runs} runs: {', '.join(f'{n} {k}' for k, n in landed.items())}")
    print(f"bit-equal: all {runs} runs, weights, states, caches and logged losses; nothing is left beside them")
    return 0


def parse_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="how often runs are killed (200)")
    parser.add_argument("--kills_of_a_run", type=int, default=7, help="how often one of them is, at most (7)")
    parser.add_argument("--steps", type=int, default=8, help="optimizer steps of a run (8)")
    parser.add_argument("--save_steps", type=int, default=2, help="steps from one checkpoint to the next (2)")
    parser.add_argument("--seed", type=int, default=0, help="of the places (0)")
    parser.add_argument("--model_name_or_path", default=str(BASE_MODEL), help="what is trained (the demo's base model)")
    parser.add_argument("--data", help="a folder that make_data.py wrote (one is made)")
    parser.add_argument("--folder", help="where the runs are kept (a temporary one)")
    return parser.parse_args()


def data_of(options: argparse.Namespace, folder: Path) -> Path:
    """The records to train on."""
    if options.data:
        return Path(options.data).resolve()
    if not (folder / "data").exists():
        make_data(folder / "data", Settings("base", train=24, eval=4, seed=0), workers=1)
    return folder / "data"


class Run:
    """A run, and the processes that try to bring it to its end, with a cache of its own.

    Args:
        folder: of its config and log, and of what is watched: its `output_dir` and its cache.
        options: the command line.
        data: the records to train on.

    Attributes:
        calls: how many of each kind all attempts have made.
    """

    calls: Counter[str]

    def __init__(self, folder: Path, options: argparse.Namespace, data: Path) -> None:
        self.folder, self.watched, self.log = folder.resolve(), folder.resolve() / "watched", folder / "log"
        self.out, self.cache = self.watched / "out", self.watched / "cache"
        self.calls = Counter()
        self.watched.mkdir(parents=True)
        self.config = self.folder / "config.json"
        self.config.write_text(json.dumps(config_of(self.out, options, data), indent=2))

    def kill_until_done(
        self, chance: random.Random, usual: Counter[str], seconds: float, landed: Counter[str], options: Any
    ) -> None:
        """Kill it, each time at another kind of call that is still to come; then let it end."""
        for _ in range(options.kills_of_a_run):
            done = sum(landed.values())
            if done == options.kills:
                break
            kind = KINDS[done % len(KINDS)]
            to_come = max(usual[kind] - self.calls[kind], 1)
            place = chance.random() * seconds if kind == MOMENT else chance.randint(1, to_come)
            where = self.attempt(Place(kind, place, dies_after=chance.random() < 0.5))
            if where is None:
                return
            landed[f"{kind} {where}".strip()] += 1
            print(f"  kill {done + 1}: {kind} {where}", flush=True)
        self.attempt()

    def attempt(self, place: Place | None = None) -> str | None:
        """Train, to the end or to a place; says where it was killed, None where it has ended."""
        memory = mmap.mmap(-1, ctypes.sizeof(Report))
        report = Report.from_buffer(memory)
        process = multiprocessing.get_context("fork").Process(target=self._train, args=(report, place))
        process.start()
        if place is not None and place.kind == MOMENT:
            process.join(timeout=place.number)
            if process.is_alive():
                os.kill(process.pid, signal.SIGKILL)
        process.join()
        self.calls.update(dict(zip(CALLS, report.counts, strict=True)))
        if process.exitcode == 0:
            return None
        if place is None or process.exitcode != -signal.SIGKILL:
            raise SystemExit(f"{self.log} ended with {process.exitcode}:\n{self.log.read_text('utf-8')[-3000:]}")
        return where_of(report.path.decode())

    def _train(self, report: Report, place: Place | None) -> None:
        descriptor = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        os.environ["PADDLEMIX_CACHE"] = str(self.cache)
        shim = ctypes.CDLL(os.environ[SHIM_VARIABLE])
        kind, number, dies_after = (-1, 0, False) if place is None or place.kind == MOMENT else place.call
        shim.kill_arm(ctypes.byref(report), str(self.watched).encode(), kind, ctypes.c_long(number), int(dies_after))
        with report_errors():
            supervised_finetune.main([str(self.config)])


@dataclass(frozen=True)
class Place:
    """Where an attempt is killed.

    Attributes:
        kind: one of `KINDS`.
        number: of the call of that kind, from 1 on; seconds where it is a moment.
        dies_after: whether the call is made before.
    """

    kind: str
    number: float
    dies_after: bool

    @property
    def call(self) -> tuple[int, int, bool]:
        return CALLS.index(self.kind), int(self.number), self.dies_after


def where_of(path: str) -> str:
    """What a path below the watched folder belongs to, in words."""
    if not path:
        return ""
    if path.startswith("cache"):
        return "in the cache"
    return "in a checkpoint" if "checkpoint-" in path else "of the lock" if "run.lock" in path else "of the results"


def config_of(out: Path, options: argparse.Namespace, data: Path) -> dict[str, Any]:
    """The run's config; killed and left alone, it differs in the output folder only."""
    files = (("chatml_dataset", "grounding"), ("vqa_dataset", "vqa"), ("coco_caption", "caption"))
    return {
        "model_name_or_path": options.model_name_or_path,
        "dataset": {"train": [{"name": name, "data_files": str(data / f"train_{file}.json")} for name, file in files]},
        "output_dir": str(out),
        "do_train": True,
        "resume_from_checkpoint": True,
        "max_steps": options.steps,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "learning_rate": 1e-3,
        "save_steps": options.save_steps,
        "save_total_limit": 2,
        "logging_steps": 3,
        "report_to": "none",
        "seed": 0,
    }


def differences(alone: Run, killed: Run, steps: int) -> list[str]:
    """In what two runs differ: which files there are, their bits, the losses."""
    one, other = files_of(alone.watched), files_of(killed.watched)
    problems = [f"{name} is left" for name in sorted(other - one)]
    problems += [f"{name} is missing" for name in sorted(one - other)]
    for name in sorted(one & other):
        # What is measured of the machine differs from time to time.
        is_measured = name.startswith("cache/speed/")
        if Path(name).name not in OWN and not name.endswith(".start") and not is_measured:
            problems += [f"{name} differs"] if bits(alone.watched / name) != bits(killed.watched / name) else []
    losses = [losses_of(run.out) for run in (alone, killed)]
    if losses[0] != losses[1] or losses[0][-1][0] != steps:
        problems.append(f"losses: {losses[0][-3:]} and {losses[1][-3:]}")
    return problems if len(load_file(alone.out / "model.safetensors")) > 1 else ["there is no model"]


def files_of(folder: Path) -> set[str]:
    """All that is below a folder, by path from it."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def bits(path: Path) -> bytes:
    """A file's content; of anything else what it is."""
    return path.read_bytes() if path.is_file() else b"folder"


def losses_of(out: Path) -> list[Any]:
    """Step and loss of each log entry."""
    log = json.loads((out / "trainer_log.json").read_text())
    return [(entry["step"], entry["loss"]) for entry in log if "loss" in entry]


if __name__ == "__main__":
    sys.exit(main())
