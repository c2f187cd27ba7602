"""Mutates files of weights of every format: each is read in bounds, or refused by a sentence that names it.

    python tests/weights/fuzz_weight_files.py --files 10000 --seed 0

A file is read in a process of its own, which may take 5 s and 1 GB: its tensors are listed, and then all of their
numbers read.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import pickle
import random
import resource
import signal
import struct
import tempfile
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from paddlemix.weights.dtypes import STORED_DTYPES
from paddlemix.weights.files import stored_tensors
from paddlemix.weights.pickled import _INSTRUCTIONS

FILES = Path(__file__).parents[1] / "fixtures" / "torch_files"
SECONDS, BYTES = 5, 1 << 30  # for one file; they take milliseconds
LONGEST_SENTENCE = 1000
NUMBERS = (0, 1, 2, 127, 128, 255, 256, 65535, 1 << 31, (1 << 32) - 1, 1 << 47, (1 << 63) - 1, 1 << 63, 2**64 - 1)
WORDS = (
    b"{", b"}", b"[", b"]", b'"', b",", b":", b"\\", b"\\u0000", b"\\ud800", b"null", b"NaN", b"-1", b"1e9", b"1.0",
    b"true", b"..", b"../a", b"/dev/zero", b"\x00", b"\n", b"\xff\xfe", b"\xf0\x9f\x98\x80", b"PK\x01\x02",
    b"PK\x03\x04", b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07", b'"__metadata__":{},',
    b'"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},', b"cos\nsystem\n", b"cbuiltins\ntuple\n",
    b"cnumpy\ndtype\n", b"ctorch\nFloatStorage\n", b"X\x01\x00\x00\x00a", b"X\xff\xff\xff\xff", b"\x8a\xff",
    b"\x95" + b"\xff" * 8, b"\x8e" + b"\xff" * 8, b"h\x00", b"q\x00", b"\x94",
)  # fmt: skip


def seeds() -> dict[str, list[bytes]]:
    """Good files, and such as are refused whole, by the names under which they are read."""
    arrays = {"a.weight": np.ones([3, 2], np.float32), "b": np.arange(5, dtype=np.float16), "c": np.array(1.0)}
    turned = {"a": np.ones([4, 3], np.float32).T}
    index = {"metadata": {"total_size": 1}, "weight_map": {f"t{number}": "one.safetensors" for number in range(5)}}
    words: list[dict[str, str]] = [{"format": "pt"}, {"format": "np", "x": '{"y": "\\"}'}]
    named = {name: (f"n_{name}", array) for name, array in arrays.items()}
    return {
        "model.safetensors": [*(save(arrays, word) for word in words), save({})],
        "pytorch_model.bin": [(FILES / f"{name}.bin").read_bytes() for name in ("tensors", "transposed", "legacy")],
        "model_state.pdparams": [*(pickle.dumps(named, level) for level in (2, 4, 5)), pickle.dumps(turned, 4)],
        "model.safetensors.index.json": [json.dumps(index, indent=2).encode(), json.dumps(index).encode()],
    }


class Mutator:
    """Changes files, as chance has it."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self._instructions = sorted(_INSTRUCTIONS)

    def mutate(self, name: str, content: bytes) -> bytes:
        """Change a file, often below what wraps it, whose sizes and checksums are then made to fit."""
        if name == "pytorch_model.bin" and content.startswith(b"PK") and self.chance.random() < 0.5:
            return self._rezipped(content)
        if name == "model.safetensors" and self.chance.random() < 0.5:
            length = int.from_bytes(content[:8], "little")
            header = self._changed(content[8 : 8 + length])
            return struct.pack("<Q", len(header)) + header + content[8 + length :]
        return self._changed(content)

    def _changed(self, content: bytes) -> bytes:
        changed = bytearray(content)
        ways = (self._flip, self._flip, self._number, self._word, self._drop, self._repeat, self._program)
        for _ in range(self.chance.choice((1, 1, 1, 2, 3, 8))):
            self.chance.choice(ways)(changed)
        return bytes(changed)

    def _rezipped(self, content: bytes) -> bytes:
        target = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(target, "w") as new:
            for entry in old.namelist():
                inside = old.read(entry)
                is_changed = entry.endswith("data.pkl") or self.chance.random() < 0.05
                new.writestr(entry, self._changed(inside) if is_changed else inside)
        return target.getvalue()

    def _place(self, content: bytearray) -> int:
        return self.chance.randrange(len(content) + 1)

    def _flip(self, content: bytearray) -> None:
        if content:
            content[self.chance.randrange(len(content))] ^= 1 << self.chance.randrange(8)

    def _number(self, content: bytearray) -> None:
        """Put a number in place of what may be one, binary or in decimal digits."""
        at, number = self._place(content), self.chance.choice(NUMBERS)
        if self.chance.random() < 0.3:
            content[at : at + len(str(number))] = str(number).encode()
        else:
            width = self.chance.choice((1, 2, 4, 8))
            content[at : at + width] = (number % (1 << 8 * width)).to_bytes(width, "little")

    def _word(self, content: bytearray) -> None:
        at, word = self._place(content), self.chance.choice(WORDS) * self.chance.choice((1, 1, 1, 2, 100, 20_000))
        content[at : at + self.chance.choice((0, 0, 1, 4))] = word

    def _drop(self, content: bytearray) -> None:
        at = self._place(content)
        del content[at : self.chance.choice((at + 1, at + 4, at + 40, len(content)))]

    def _repeat(self, content: bytearray) -> None:
        at = self._place(content)
        content[at:at] = content[at : at + self.chance.choice((1, 4, 50, 500))] * self.chance.choice((1, 2, 300))

    def _program(self, content: bytearray) -> None:
        """Put in instructions of pickles."""
        at = self._place(content)
        content[at:at] = b"".join(self.chance.choices(self._instructions, k=self.chance.choice((1, 3, 30, 3000))))


class Fuzzer:
    """Feeds mutated files to the readers, and counts what becomes of them.

    Attributes:
        outcomes: how many of each name were accepted and refused.
        failures: what should not have happened, with the file's path.
        slowest: seconds of computing, and the name of the file that took them.
    """

    def __init__(self, folder: Path, seed: int, read: Callable[[Path], object]) -> None:
        self.folder = folder
        self.chance = random.Random(seed)
        self.seeds = seeds()
        self.read = read
        self.mutator = Mutator(self.chance)
        self.outcomes: Counter[str] = Counter()
        self.failures: list[str] = []
        self.slowest = (0.0, "")

    def run(self, count: int, after_hundred: Callable[[], None] = lambda: None) -> None:
        """Try `count` files."""
        for number in range(count):
            name = self.chance.choice(list(self.seeds))
            content = self.chance.choice(self.seeds[name])
            if self.chance.random() > 0.03:
                content = self.mutator.mutate(name, content)
            self._try(name, content)
            if number % 100 == 99:
                after_hundred()

    def _try(self, name: str, content: bytes) -> None:
        model = self.folder / "model"
        model.mkdir()
        (model / name).write_bytes(content)
        (model / "one.safetensors").write_bytes(self.seeds["model.safetensors"][0])
        outcome, said, seconds = in_fork(lambda: self.read(model))
        self.slowest = max(self.slowest, (seconds, name))
        problem = said if outcome == "failed" else judge(said, model) if outcome == "refused" else None
        if problem is None:
            self.outcomes[f"{name} {outcome}"] += 1
        else:
            kept = model.rename(self.folder / f"failure{len(self.failures)}")
            self.failures.append(f"{kept / name}: {problem}")
            return
        for file in model.iterdir():
            file.unlink()
        model.rmdir()


def judge(said: str, model: Path) -> str | None:
    """Say what is wrong with a refusal's text; None where nothing is."""
    if not said.startswith(str(model)):
        return f"does not name the file: {said}"
    if len(said.removeprefix(str(model))) > LONGEST_SENTENCE or not said.isprintable() or not said.endswith((".", ")")):
        return f"no sentence: {said!r:.3000}"
    return None


def read_all(model: Path) -> None:
    """List the tensors of a folder, and read the numbers of all that have a known dtype."""
    left = 1 << 24  # overlapping tensors may be more than the file
    for stored in stored_tensors(model):
        left -= math.prod(stored.shape)
        if stored.dtype in STORED_DTYPES and left > 0:
            stored.read_into(np.empty(stored.matrix_shape, STORED_DTYPES[stored.dtype]))


def in_fork(read: Callable[[], object], seconds: int = SECONDS) -> tuple[str, str, float]:
    """Run something in a process of its own, with bounds on time and memory.

    Args:
        read: what is run.
        seconds: of computing that it may take.

    Returns:
        "accepted", "refused" or "failed", what the error said, and the seconds of computing.
    """
    receiver, sender = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(receiver)
        outcome, said = bounded(read, seconds)
        os.write(sender, json.dumps([outcome, said[:50_000]]).encode()[:60_000])
        os._exit(0)
    os.close(sender)
    with open(receiver, "rb") as pipe:
        answer = pipe.read()
    _, status, usage = os.wait4(child, 0)
    outcome, said = json.loads(answer) if answer else ("failed", f"the process ended with status {status}")
    return outcome, said, usage.ru_utime + usage.ru_stime


def bounded(read: Callable[[], object], seconds: int) -> tuple[str, str]:
    """Run something in bounds, and tell what it did."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + BYTES, used + BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))  # ends the process
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(20 * seconds)  # of waiting
    try:
        read()
    except BaseException as error:
        if type(error) in (ValueError, FileNotFoundError):
            return "refused", str(error)
        return "failed", "".join(traceback.format_exception(error))[-3000:]
    return "accepted", ""


@contextmanager
def fuzzer(seed: int, read: Callable[[Path], object] = read_all) -> Iterator[Fuzzer]:
    """Make a fuzzer in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        yield Fuzzer(Path(folder), seed, read)


def resident_megabytes() -> float:
    """Read the memory of this process now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


def main() -> None:
    """Run, and print what happened to the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="an empty folder for the files that failed (default: not kept)")
    args = parser.parse_args()
    memory: list[float] = []
    with fuzzer(args.seed) as one:
        one.folder = args.keep or one.folder
        one.run(args.files, lambda: memory.append(resident_megabytes()))
    quarters = [f"{memory[(len(memory) - 1) * part // 4]:.0f}" for part in range(5)] if memory else []
    print(f"{dict(sorted(one.outcomes.items()))}, {len(one.failures)} failures")
    print(f"slowest: {one.slowest[0]:.2f} s, {one.slowest[1]}; MB after each quarter: {', '.join(quarters)}")
    for failure in one.failures[:10]:
        print(f"\n{failure}")
    raise SystemExit(bool(one.failures))


if __name__ == "__main__":
    main()
