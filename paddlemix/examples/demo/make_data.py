"""Renders the demo's multimodal set: images, grounding, caption and VQA records, and a text corpus.

Example:
    python paddlemix/examples/demo/make_data.py --output_dir output/demo/data --set new --train 3000 --eval 240 --seed 0
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from tqdm import tqdm

from paddlemix.examples.demo import records
from paddlemix.examples.demo.records import Question, Record
from paddlemix.examples.demo.render import render_scene
from paddlemix.examples.demo.scene import SIDE, VOCABULARIES, Scene, Vocabulary, draw_scene

Draft = tuple[Scene, Record, tuple[str, ...]]
Ask = Callable[[Scene, Vocabulary, random.Random], list[Question]]
Choose = Callable[[list[Question], random.Random], list[Question]]

# Raise it with every change that gives other images or records for the same settings: old output is then not reused.
VERSION = 6
JPEG_QUALITY = 92
# A small model learns places and names soonest where nothing else is asked.
LESSON_TASK_WEIGHTS = {
    "place": {"grounding": 1.0},
    "dense": {"grounding": 1.0},
    "named": {"grounding": 1.0},
    "where": {"chat": 1.0},
    "any_name": {"grounding": 1.0},
    "mixed": {"grounding": 0.45, "chat": 0.30, "caption": 0.10, "vqa": 0.15},
    # The base model knows boxes better than words.
    "new": {"grounding": 0.32, "chat": 0.30, "caption": 0.07, "vqa": 0.31},
}
# Lessons that ask all questions of some kinds; the others choose among all kinds.
LESSON_QUESTIONS = {
    "dense": ("dense",),
    "named": ("single", "several", "none"),
    "where": ("place",),
    "any_name": ("single", "partial", "several", "none"),
}
# What has been answered about an image tells of the rest: of these, few are asked.
LESSON_TURNS = {"any_name": 2}
TASKS = tuple(LESSON_TASK_WEIGHTS["mixed"])
RECORD_FILES = (*(f"train_{task}.json" for task in TASKS), "eval_grounding.json", "eval_caption.json", "eval_vqa.json")
META_FILE = "meta.json"


@dataclass(frozen=True)
class Settings:
    """What decides every byte of the output.

    Attributes:
        set: name of the vocabulary, a key of `VOCABULARIES`.
        train: images to train on.
        eval: held-out grounding records; as many VQA records and a quarter as many captions come on top.
        seed: of everything drawn by lot.
        version: of this renderer.
    """

    set: str
    train: int
    eval: int
    seed: int
    version: int = VERSION


@dataclass(frozen=True)
class Job:
    """One image to make, with its record.

    Attributes:
        split: "train" or "eval".
        index: number within the split.
        task: one of `TASKS`; None leaves the choice to the image's own generator.
    """

    split: str
    index: int
    task: str | None = None


@dataclass(frozen=True)
class Made:
    """A finished image's record, and what it counts as.

    Attributes:
        file: the record file that it goes into.
        record: the record.
        kinds: the kinds of its questions.
    """

    file: str
    record: Record
    kinds: tuple[str, ...]


def plan_jobs(settings: Settings) -> list[Job]:
    """List the images to make, in the order of their records."""
    train = [Job("train", index) for index in range(settings.train)]
    tasks = ["grounding"] * settings.eval + ["vqa"] * settings.eval + ["caption"] * (settings.eval // 4)
    return train + [Job("eval", index, task) for index, task in enumerate(tasks)]


def make_one(job: Job, *, folder: Path, settings: Settings) -> Made:
    """Render one image and write its record.

    Args:
        job: which.
        folder: where `pictures/` is.
        settings: set and seed; nothing else has an influence on the result.

    Returns:
        The record. The image is on disk.
    """
    rng = random.Random(f"{settings.set}/{settings.seed}/{job.split}/{job.index}")
    image = f"pictures/{job.split}/{job.index:06d}.jpg"
    vocabulary = VOCABULARIES[settings.set]
    weights = LESSON_TASK_WEIGHTS[vocabulary.lesson]
    task = job.task or rng.choices(tuple(weights), tuple(weights.values()))[0]
    scene, record, kinds = _MAKERS[task](job, image, vocabulary, rng)
    render_scene(scene).save(folder / image, quality=JPEG_QUALITY)
    return Made(f"{job.split}_{task}.json", record, kinds)


def _make_grounding(job: Job, image: str, vocabulary: Vocabulary, rng: random.Random) -> Draft:
    if job.split == "eval" or vocabulary.lesson == "place":
        scene, question = records.draw_single_turn(vocabulary, rng)
        questions = [question]
    else:
        scene, questions = _ask(records.grounding_questions, records.choose_dialogue, vocabulary, rng)
    record = records.chatml_record(f"{job.split}_{job.index:06d}", image, questions)
    return scene, record, tuple(question.kind for question in questions)


def _make_caption(job: Job, image: str, vocabulary: Vocabulary, rng: random.Random) -> Draft:
    scene = draw_scene(vocabulary, rng)
    return scene, records.caption_record(image, scene), ("caption",)


def _make_vqa(job: Job, image: str, vocabulary: Vocabulary, rng: random.Random) -> Draft:
    scene = draw_scene(vocabulary, rng)
    question = records.choose_evenly(records.vqa_questions(scene, vocabulary, rng), rng)
    return scene, records.vqa_record(image, question), (question.kind,)


def _make_chat(job: Job, image: str, vocabulary: Vocabulary, rng: random.Random) -> Draft:
    scene, questions = _ask(records.chat_questions, records.choose_chat, vocabulary, rng)
    record = records.chatml_record(f"{job.split}_{job.index:06d}", image, questions)
    return scene, record, tuple(question.kind for question in questions)


def _ask(ask: Ask, choose: Choose, vocabulary: Vocabulary, rng: random.Random) -> tuple[Scene, list[Question]]:
    """Draw a scene with the lesson's questions about it in random order, or with a choice of all."""
    kinds, turns = LESSON_QUESTIONS.get(vocabulary.lesson), LESSON_TURNS.get(vocabulary.lesson)
    while True:
        scene = draw_scene(vocabulary, rng)
        asked = ask(scene, vocabulary, rng)
        if kinds is None:
            return scene, choose(asked, rng)
        if questions := [question for question in asked if question.kind in kinds]:
            rng.shuffle(questions)
            return scene, questions[:turns]


_MAKERS = {"grounding": _make_grounding, "chat": _make_chat, "caption": _make_caption, "vqa": _make_vqa}


def make_all(jobs: list[Job], folder: Path, settings: Settings, workers: int) -> Generator[Made, None, None]:
    """Run the jobs in worker processes; the results come in the jobs' order."""
    make = partial(make_one, folder=folder, settings=settings)
    # Ctrl-C reaches the whole process group; this process alone answers it, and then ends its workers.
    with ProcessPoolExecutor(workers, initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN)) as pool:
        yield from pool.map(make, jobs, chunksize=32)


def write_set(folder: Path, settings: Settings, workers: int) -> None:
    """Write images, record files, corpus and `meta.json` into an existing, empty folder."""
    jobs = plan_jobs(settings)
    for split in ("train", "eval"):
        (folder / "pictures" / split).mkdir(parents=True)
    with closing(make_all(jobs, folder, settings, workers)) as results:
        made = list(tqdm(results, total=len(jobs), desc="rendering", unit="image"))
    files: dict[str, list[Record]] = {name: [] for name in RECORD_FILES}
    for one in made:
        files[one.file].append(one.record)
    for name, content in files.items():
        write_records(folder / name, content)
    write_corpus(folder / "corpus.txt", (one.record for one in made))
    write_meta(folder / META_FILE, settings, made)


def write_records(path: Path, content: Iterable[Record]) -> None:
    """Write a JSON list, one record a line."""
    lines = ",\n".join(json.dumps(record, ensure_ascii=False) for record in content)
    path.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def write_corpus(path: Path, content: Iterable[Record]) -> None:
    """Write all text that the records hold, tags and image paths left out, one passage a line."""
    with path.open("w", encoding="utf-8") as corpus:
        corpus.writelines(f"{passage}\n" for record in content for passage in passages(record))


def passages(record: Record) -> Iterator[str]:
    """Give the plain text of a record; a tag ends a passage because tokenizers treat it as a token of its own."""
    turns = record.get("conversations", [])
    texts = [turn["value"] for turn in turns] or [value for key, value in record.items() if key != "image"]
    for text in texts:
        bare = re.sub(r"<img>.*?</img>\n?", "", text)
        yield from (part for part in re.split(r"</?(?:ref|box)>", bare) if part)


def write_meta(path: Path, settings: Settings, made: list[Made]) -> None:
    """Write the settings, and how many records and questions of which kind there are."""
    kinds: dict[str, Counter[str]] = {}
    for one in made:
        kinds.setdefault(one.file, Counter()).update(one.kinds)
    meta = {
        "settings": asdict(settings),
        "side": SIDE,
        "records": dict(sorted(Counter(one.file for one in made).items())),
        "questions": {file: dict(sorted(count.items())) for file, count in sorted(kinds.items())},
    }
    path.write_text(json.dumps(meta, indent=2) + "\n", encoding="utf-8")


def find_settings(output: Path) -> dict[str, object] | None:
    """Read the settings of a finished set.

    Args:
        output: folder that may hold one.

    Returns:
        The settings, or None where there is no folder or an empty one.

    Raises:
        ValueError: the folder holds something else.
    """
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return None
    try:
        return dict(json.loads((output / META_FILE).read_text(encoding="utf-8"))["settings"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{output} exists but holds no set (a readable {META_FILE} was expected in it); "
            "move it away or choose another --output_dir"
        ) from error


def name_differences(found: dict[str, object], wanted: dict[str, object]) -> str:
    """Say in words which of the wanted settings differ from the found ones."""
    return ", ".join(
        f"{key} is {found.get(key)!r}, asked for {value!r}" for key, value in wanted.items() if found.get(key) != value
    )


@contextmanager
def staging_folder(output: Path) -> Iterator[Path]:
    """Make a temporary folder beside `output` that takes its name at the end; nothing is left if the work fails."""
    output.parent.mkdir(parents=True, exist_ok=True)
    outer = Path(tempfile.mkdtemp(prefix=f".{output.name}-", dir=output.parent))
    try:
        staged = outer / "new"
        staged.mkdir()
        yield staged
        if output.exists():
            output.rename(outer / "old")
        staged.rename(output)
    finally:
        shutil.rmtree(outer)


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, required=True, help="folder to make; must not hold anything else")
    parser.add_argument("--set", choices=sorted(VOCABULARIES), default="new", help="vocabulary (default: new)")
    parser.add_argument("--train", type=_count, default=3000, help="images to train on (default: 3000)")
    parser.add_argument(
        "--eval",
        type=_count,
        default=240,
        help="held-out grounding records; as many VQA records and a quarter as many captions on top (default: 240)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of everything drawn by lot (default: 0)")
    parser.add_argument("--workers", type=_count, default=os.cpu_count(), help="processes (default: one a core)")
    parser.add_argument("--overwrite", action="store_true", help="replace a set that has other settings")
    return parser.parse_args(arguments)


def _count(text: str) -> int:
    value = int(text) if text.isascii() and text.isdigit() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 on")
    return value


def make_data(output: Path, settings: Settings, *, workers: int, overwrite: bool = False) -> str:
    """Make a set, or keep the same one if it is there.

    Args:
        output: folder to make.
        settings: what to make.
        workers: processes; no influence on the result.
        overwrite: replace a set that has other settings.

    Returns:
        A sentence that says what was done.

    Raises:
        ValueError: `output` holds something that must not be replaced.
    """
    found, wanted = find_settings(output), asdict(settings)
    if found == wanted:
        return f"{output} holds this set already: reused."
    if found is not None and not overwrite:
        raise ValueError(
            f"{output} holds a set with other settings ({name_differences(found, wanted)}); "
            "choose another --output_dir or pass --overwrite"
        )
    with staging_folder(output) as staged:
        write_set(staged, settings, workers)
    held_out = len(plan_jobs(settings)) - settings.train
    return f"{output} holds the set now: {settings.train} training and {held_out} held-out images."


def main() -> None:
    """Run the tool; a failure ends it with a sentence and status 1."""
    # Without this, a polite kill would leave the workers and the half-made folder behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("make_data: ended from outside"))
    arguments = parse_arguments()
    settings = Settings(arguments.set, arguments.train, arguments.eval, arguments.seed)
    try:
        said = make_data(arguments.output_dir, settings, workers=arguments.workers, overwrite=arguments.overwrite)
    except (OSError, ValueError) as error:
        sys.exit(f"make_data: {error}")
    except KeyboardInterrupt:
        sys.exit("make_data: interrupted, nothing was kept")
    tqdm.write(said)


if __name__ == "__main__":
    main()
