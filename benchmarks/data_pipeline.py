"""How fast records become batches: indexing, measuring, planning packs, decoding and cutting images, training.

Prints, each with the median and the 10th and 90th percentile where it is repeated,

- images (640 x 480 JPEG files) decoded, resized, normalised and cut a second, by one thread; beside decoding alone,
  and transformers;
- samples a second that arrive from the loader without workers, with 1 and with 2;
- lengths that the pack planner plans a second, and how full the packs are;
- for a set of a million records: seconds to index it, to measure it, to start again with both kept, and the memory
  that this process has grown by;
- tokens of real samples (no padding) that the small shape trains a second on mixed lengths, padded and packed; beside
  transformers, padded.

    python benchmarks/data_pipeline.py --torch_python ../reference/bin/python --output rows.jsonl
    python benchmarks/data_pipeline.py --parts index plan --records 100000

transformers is measured in the Python that `--torch_python` names, or in this one where it is installed. Close other
programs first, and compare only rows of one run.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paddlemix

# isort: split
# Paddle stands behind: paddlemix settles how it computes and allocates.
import numpy as np
import orjson
import paddle
from qwen2_vl_cpu import KEPT, find_torch, summary
from sides.data_shape import (
    IMAGES,
    LONGEST,
    MAX_PIXELS,
    QUESTION,
    TEXTS,
    make_images,
    mixed_lengths,
    padded_batches,
    text_of,
)
from sides.measuring import seconds_of
from sides.workload import SHAPES

from paddlemix.contract import Sample
from paddlemix.datasets.batching import Batching
from paddlemix.datasets.collate import TrainingCollator
from paddlemix.datasets.loading.workers import BatchLoader
from paddlemix.datasets.mix_dataset import MixDataset
from paddlemix.datasets.mixing.loss_weights import WeightedSample
from paddlemix.datasets.mixing.packs import PackPlanner, mean_fill
from paddlemix.datasets.mixing.sampler import BatchShape
from paddlemix.datasets.row_dataset import RowDataset
from paddlemix.datasets.spec import DatasetSpec
from paddlemix.media.images import open_image
from paddlemix.models.qwen2_vl import Qwen2VLConfig, Qwen2VLForConditionalGeneration
from paddlemix.models.qwen2_vl.chat_template import Qwen2VLChatTemplate
from paddlemix.models.qwen2_vl.images import Qwen2VLImageProcessor
from paddlemix.models.qwen2_vl.processing import Qwen2VLProcessor
from paddlemix.models.qwen2_vl.tokenizer import Qwen2Tokenizer
from paddlemix.ops import num_threads

SIDES = Path(__file__).parent / "sides"
CAPACITY = LONGEST
PADDED_ROWS = (8, 16)  # of a padded batch
PEER_ROWS = 8  # 16 would take torch more than 24 GB
Rows = Iterator[tuple[str, str, list[float]]]


def main() -> None:
    """Measure, print and record."""
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        os.environ["PADDLEMIX_CACHE"] = str(Path(folder) / "cache")
        for part in arguments.parts:
            for name, unit, values in PARTS[part](Path(folder), arguments):
                record({"part": part, "metric": name, "unit": unit, **summary(values)}, arguments.output)


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what to measure (default: all)")
    parser.add_argument("--records", type=int, default=1_000_000, help="of the large set (default: 1,000,000)")
    parser.add_argument("--samples", type=int, default=1024, help="of an epoch of the loader (default: 1024)")
    parser.add_argument("--repeats", type=int, default=5, help="measurements of each number (default: 5)")
    parser.add_argument("--shape", choices=SHAPES, default="small", help="of the model that trains (default: small)")
    parser.add_argument("--tokenizer", type=Path, help="a checkpoint's folder (default: a tokenizer of bytes)")
    parser.add_argument("--folder", type=Path, help="where the temporary folder is made (default: the system's)")
    parser.add_argument("--torch_python", help="a Python that has torch and transformers")
    parser.add_argument("--output", type=Path, help="a JSONL file to which the rows are added")
    return parser.parse_args()


def images(folder: Path, arguments: argparse.Namespace) -> Rows:
    """Measure images from files to patches, by one thread."""
    paths = [str(path) for path in make_images(folder)]
    image_processor = Qwen2VLImageProcessor(max_pixels=MAX_PIXELS)

    def prepare() -> None:
        for path in paths:
            image_processor.patches(open_image(path))

    def decode() -> None:
        for path in paths:
            open_image(path)

    for name, call in (("images, paddlemix", prepare), ("images, decoding alone", decode)):
        yield name, "/s", [IMAGES / one for one in seconds_of(call, arguments.repeats)]
    torch_python = find_torch(arguments.torch_python)
    if torch_python:
        measured = peer(torch_python, "transformers_data.py", folder, arguments.repeats, OMP_NUM_THREADS="1")
        yield "images, transformers", "/s", measured["images_a_second"]


def peer(python: str, script: str, *words: object, **variables: str) -> dict[str, Any]:
    """Run transformers in a process of its own, which says by itself why it fails."""
    environment = {**os.environ, "PYTHONPATH": "", **variables}
    command = [python, str(SIDES / script), *map(str, words)]
    finished = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(finished.stdout.splitlines()[-1])


def loader(folder: Path, arguments: argparse.Namespace) -> Rows:
    """Measure batches of records with an image each, through the loader."""
    make_images(folder)
    file = write_records(folder / "images.jsonl", arguments.samples, with_images=True)
    dataset = MixDataset.load([DatasetSpec("chatml_dataset", str(file))], processor_of(arguments))
    sampler = Batching().training(dataset, BatchShape(rows=4), seed=0)
    collator = TrainingCollator(0)
    for workers in (0, 1, 2):
        batches = BatchLoader(RowDataset(dataset), sampler, collator, workers)
        seconds = seconds_of(lambda batches=batches: sum(1 for _ in batches), arguments.repeats)
        yield f"samples, {workers} workers", "/s", [len(dataset) / one for one in seconds]


def plan(folder: Path, arguments: argparse.Namespace) -> Rows:
    """Measure the pack planner."""
    del folder
    planner = PackPlanner(CAPACITY)
    for count in (100_000, 1_000_000):
        lengths = mixed_lengths(count)
        order = np.random.default_rng(1).permutation(count)

        def run(order: np.ndarray = order, lengths: np.ndarray = lengths) -> list[list[int]]:
            return planner.plan(order, lengths, np.random.default_rng(2))

        yield f"lengths planned, of {count:,}", "/s", [count / one for one in seconds_of(run, arguments.repeats)]
        yield f"fill of packs, of {count:,}", "%", [100 * mean_fill(run(), lengths, CAPACITY)]


def index(folder: Path, arguments: argparse.Namespace) -> Rows:
    """Measure the start with a large set of texts."""
    for ending in (".json", ".jsonl"):
        file = write_records(folder / f"large{ending}", arguments.records)
        processor, before = processor_of(arguments), resident_mebibytes()
        spec = DatasetSpec("chatml_dataset", str(file))
        opened = timed(open_only, spec)
        first, again = (timed(load, spec, processor) for _ in range(2))
        yield f"index {arguments.records:,} records of {ending}", "s", [opened]
        yield f"measure {arguments.records:,} records of {ending}", "s", [first]
        yield f"start again with {arguments.records:,} records of {ending}", "s", [again]
        yield f"memory grown by {arguments.records:,} records of {ending}", "MiB", [resident_mebibytes() - before]


def train(folder: Path, arguments: argparse.Namespace) -> Rows:
    """Measure forward, backward and AdamW on mixed lengths: padded rows of one sample, and packs; transformers' padded.

    A batch has as many packs as take the room of a padded one, so that both need the same memory.
    """
    del folder
    shape = SHAPES[arguments.shape]
    lengths = mixed_lengths(TEXTS)
    rng = np.random.default_rng(3)
    packs = PackPlanner(CAPACITY).plan(rng.permutation(len(lengths)), lengths, rng)
    torch_python = find_torch(arguments.torch_python)
    if torch_python:
        words = ("transformers_mixed.py", arguments.shape, arguments.repeats, PEER_ROWS)
        measured = peer(torch_python, *words, **KEPT, OMP_NUM_THREADS=str(num_threads()))
        yield f"real tokens trained, {PEER_ROWS} padded rows, transformers", "/s", measured["tokens_a_second"]
    for rows in PADDED_ROWS:
        padded = padded_batches(lengths, rows)
        room = int(np.mean([rows * lengths[row].max() for row in padded]))
        at_once = max(room // CAPACITY, 1)
        packed = [np.concatenate(packs[first : first + at_once]) for first in range(0, len(packs), at_once)]
        yield f"share of {rows} padded rows that is real", "%", [100 * lengths.sum() / (room * len(padded))]
        for name, batches in ((f"{rows} padded rows", padded), (f"{at_once} packs", packed)):
            rates = train_rates(shape, lengths, batches[: arguments.repeats + 1], packs=batches is packed)
            yield f"real tokens trained, {name}", "/s", rates


def train_rates(shape: Any, lengths: np.ndarray, batches: list[np.ndarray], *, packs: bool) -> list[float]:
    """Measure real tokens a second of each batch, after one that is not counted."""
    paddle.seed(0)
    model = Qwen2VLForConditionalGeneration(Qwen2VLConfig(**shape.config()))
    model.train()
    optimizer = paddle.optimizer.AdamW(1e-4, parameters=model.parameters())
    collator = TrainingCollator(0, packs=packs)
    rates = []
    for batch in batches:
        rows = [[WeightedSample(sample_of(int(lengths[one]), shape.vocabulary), 1e-4)] for one in batch]
        inputs = {name: paddle.to_tensor(array) for name, array in collator(rows).items()}
        start = time.perf_counter()
        model(**inputs).loss.backward()
        optimizer.step()
        optimizer.clear_grad(set_to_zero=False)
        rates.append(lengths[batch].sum() / (time.perf_counter() - start))
    return rates[1:]


def sample_of(length: int, vocabulary: int) -> Sample:
    """Make a text."""
    return Sample(*text_of(length, vocabulary), np.broadcast_to(np.arange(length), (3, length)))


def processor_of(arguments: argparse.Namespace) -> Qwen2VLProcessor:
    """Make a processor with the tokenizer asked for."""
    tokenizer = Qwen2Tokenizer.from_pretrained(arguments.tokenizer or default_tokenizer())
    return Qwen2VLProcessor(tokenizer, Qwen2VLImageProcessor(max_pixels=MAX_PIXELS), Qwen2VLChatTemplate())


def default_tokenizer() -> Path:
    """Make the small one that the tests use."""
    return Path(__file__).parents[1] / "tests" / "fixtures" / "qwen2_vl_processor"


def write_records(file: Path, count: int, *, with_images: bool = False) -> Path:
    """Write questions and answers, one to a line or in one list."""
    opening, between, closing = (b"[", b",\n", b"]") if file.suffix == ".json" else (b"", b"\n", b"")
    with open(file, "wb") as records:
        records.write(opening)
        for number in range(count):
            shown = f"<img>{number % IMAGES}.jpg</img>\n" if with_images else ""
            turns = [[f"{shown}{QUESTION} It is number {number}.", f"A red bus, at stop {number}, behind the trees."]]
            records.write((between if number else b"") + orjson.dumps({"id": number, "conversations": turns}))
        records.write(closing)
    return file


def open_only(spec: DatasetSpec) -> None:
    """Index the set's file."""
    from paddlemix.datasets.records.data_files import read_files

    list(read_files(spec.files))


def load(spec: DatasetSpec, processor: Qwen2VLProcessor) -> None:
    """Get to the first sample that is drawn."""
    dataset = MixDataset.load([spec], processor)
    sampler = Batching().training(dataset, BatchShape(rows=1), seed=0)
    draws = next(iter(sampler))
    assert len(RowDataset(dataset)[draws[0]]) == 1


def timed(call: Callable[..., Any], *args: Any) -> float:
    """Measure the seconds that a call takes."""
    start = time.perf_counter()
    call(*args)
    return time.perf_counter() - start


def resident_mebibytes() -> float:
    """Read how much memory this process holds that is not mapped from files."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon:"))
    return int(line.split()[1]) / 1024


def record(row: dict[str, Any], output: Path | None) -> None:
    """Print a number and keep it."""
    spread = f"  ({row['p10']:,.4g} - {row['p90']:,.4g})" if row["samples"] > 1 else ""
    print(f"{row['metric']:48} {row['median']:12,.1f} {row['unit']}{spread}", flush=True)
    if output:
        about = {"benchmark": Path(__file__).stem, "load": os.getloadavg()[0], "paddlemix": paddlemix.__version__}
        with output.open("a", encoding="utf-8") as file:
            file.write(json.dumps(about | row) + "\n")


PARTS: dict[str, Callable[[Path, argparse.Namespace], Rows]] = {
    "images": images,
    "loader": loader,
    "plan": plan,
    "index": index,
    "train": train,
}

if __name__ == "__main__":
    paddle.set_device("cpu")
    sys.exit(main())
