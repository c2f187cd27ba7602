"""Mutates the documented records of every format: each is accepted, or refused by an error that names it.

    python tests/datasets/fuzz_records.py --records 20000 --seed 0

Records go the whole way: from a file's bytes to tokens, with the headers of their images. Nothing is fetched.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import random
import re
import signal
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import paddlemix  # noqa: F401  first: it sets the environment of the mathematics
from paddlemix.conversation import Conversation, RecordError, RecordId, UnknownKeysError
from paddlemix.datasets.formats import AUTO, FORMATS
from paddlemix.datasets.reading.context import Reading, ReadOptions
from paddlemix.datasets.reading.ignored_keys import without_keys
from paddlemix.datasets.records.data_files import locate_records, read_files
from paddlemix.datasets.records.recognise import recognise
from paddlemix.datasets.spec import DatasetSpec
from paddlemix.media.fetch import FetchError
from paddlemix.models.qwen2_vl.chat_template import Qwen2VLChatTemplate
from paddlemix.models.qwen2_vl.images import Qwen2VLImageProcessor
from paddlemix.models.qwen2_vl.processing import Qwen2VLProcessor
from paddlemix.models.qwen2_vl.tokenizer import Qwen2Tokenizer, add_control_tokens
from paddlemix.processors.qwen_byte_pairs import untrained_tokenizer

DOCUMENT = Path(__file__).parents[2] / "docs" / "datasets.md"
BATCH = 100
CPU_SECONDS = 5  # for one record; they take milliseconds
WORDS = (
    "<image>", "<video>", "<bbox>", "<ref-object>", "<img>", "</img>", "<img>a.jpg</img>", "<video>a.mp4</video>",
    "<ref>", "</ref>", "<box>", "</box>", "<box>(1,2),(3,4)</box>", "<box>(9,9),(1,1)</box>", "<box>(1,2)</box>",
    "(1,2),(3,4)", "<quad>(1,2),(30,4),(50,60),(7,80)</quad>", "\\<image>", "\\<box>", "<Image>", "<image1>",
    "<|image_2|>",
    "<tool_call>", "<|box_start|>(1,2),(3,4)<|box_end|>", "<|box_start|>", "<|box_end|>", "<|object_ref_start|>",
    "<|im_end|>", "<|image_pad|>", "<quad>",
    "[[", "{\"", "\\", "\n", "\r\n", "\x00", "图", "🚌", "\u2028", "\u202e", "a.jpg", "../a.jpg", "file://a.jpg",
    "https://h/a.jpg", "data:image/png;base64,AAAA", "data:,", "norm_1000", "real", "user", "assistant", "system",
    "{phrase}", "{{ 1 }}", "%s", " ",
)  # fmt: skip
VALUES = (
    None, True, False, 0, 1, -1, 3.5, 1e308, 10**19, 10**400, "", " ", "a.jpg", "real", [], {}, [[]], [None],
    [[1, 2, 3, 4]], [1, 2, 3, 4], [9, 9, 1, 1], [1, 2], [[1, 2]], [0.1, 0.1, 0.9, 0.9], {"path": "a.jpg"},
    {"url": "a.jpg"}, {"type": "image"}, {"bytes": "AAAA"}, {"<image_0>": "a.jpg"}, {"name": "f",
    "arguments": "{}"}, float("nan"),
    [1, 2, 3, 4, 5, 6, 7, 8], {"from": "human", "value": "q"}, {"role": "user", "content": "q"}, ["q", "a"], [["q",
    "a"]],
)  # fmt: skip


def sections() -> list[tuple[str, str]]:
    """Name and text of each format's section in the document."""
    return re.findall(r"^## `(\w+)`\n(.*?)(?=^## )", DOCUMENT.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)


def examples(section: str) -> list[dict]:
    """Read the objects of a section's JSON blocks, which follow one another without commas."""
    found, decoder = [], json.JSONDecoder()
    for block in re.findall(r"```json\n(.*?)```", section, flags=re.DOTALL):
        while block := block.strip():
            value, end = decoder.raw_decode(block)
            found.append(value)
            block = block[end:]
    return found


def is_table(value: dict) -> bool:
    """Tell whether an example is a whole file."""
    return "annotations" in value or "761183272" in value or "data_subtype" in value


class Mutator:
    """Changes records, as chance has it."""

    def __init__(self, chance: random.Random, seeds: list[dict]) -> None:
        self.chance = chance
        self.seeds = seeds
        self.keys = sorted({key for seed in seeds for key in self._keys(seed)})

    def mutate(self, record: dict) -> dict:
        record = copy.deepcopy(record)
        for _ in range(self.chance.choice((1, 1, 1, 2, 3, 6))):
            self.chance.choice((self._change, self._change, self._change, self._drop, self._rename, self._join))(record)
        return record

    def line(self, record: dict) -> bytes:
        """Write the record as a line of a file, now and then with broken bytes or too deep."""
        line = bytearray(json.dumps(record, ensure_ascii=self.chance.random() < 0.5).encode("utf-8", "replace"))
        if self.chance.random() < 0.1:
            place = self.chance.randrange(len(line))
            line[place : place + self.chance.randrange(4)] = self.chance.randbytes(self.chance.randrange(4))
        if self.chance.random() < 0.02:
            line = bytearray(b'{"conversations": ' + b"[" * self.chance.choice((200, 900, 5000)) + b"]}")
        return bytes(line).replace(b"\n", b" ").strip() or b"-"  # a blank line is no record

    def _keys(self, value: object) -> Iterator[str]:
        if isinstance(value, dict):
            yield from value
        for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            yield from self._keys(inner)

    def _place(self, record: dict) -> tuple[dict | list, str | int] | None:
        """Choose some place in the record."""
        at: dict | list = record
        while at:
            key = self.chance.choice(list(at)) if isinstance(at, dict) else self.chance.randrange(len(at))
            inner = at[key]  # type: ignore[index]
            if not isinstance(inner, (dict, list)) or not inner or self.chance.random() < 0.3:
                return at, key
            at = inner
        return None

    def _change(self, record: dict) -> None:
        if place := self._place(record):
            at, key = place
            value = at[key]  # type: ignore[index]
            changed = self._text(value) if isinstance(value, str) and self.chance.random() < 0.7 else self._value()
            at[key] = changed  # type: ignore[index]

    def _value(self) -> object:
        if self.chance.random() < 0.05:
            return self._nested(self.chance.choice((50, 300)))
        return copy.deepcopy(self.chance.choice(VALUES))

    def _nested(self, depth: int) -> object:
        value: object = 1
        for _ in range(depth):
            value = [value]
        return value

    def _text(self, text: str) -> str:
        place, end = sorted(self.chance.randrange(len(text) + 1) for _ in range(2))
        word = self.chance.choice(WORDS) * self.chance.choice((1, 1, 1, 1, 2, 50, 3000))
        return self.chance.choice((text[:place] + word + text[place:], text[:place] + text[end:], word, text + word))

    def _drop(self, record: dict) -> None:
        if place := self._place(record):
            del place[0][place[1]]  # type: ignore[arg-type]

    def _rename(self, record: dict) -> None:
        if (place := self._place(record)) and isinstance(place[0], dict):
            place[0][self.chance.choice(self.keys)] = place[0].pop(place[1])  # type: ignore[arg-type]

    def _join(self, record: dict) -> None:
        other = copy.deepcopy(self.chance.choice(self.seeds))
        record.update({key: value for key, value in other.items() if self.chance.random() < 0.4})


class Fuzzer:
    """Feeds mutated records to the formats and a processor, and counts what becomes of them.

    Attributes:
        outcomes: how many were accepted and refused.
        failures: what should not have happened, with the record.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.chance = random.Random(seed)
        self.records = [(name, each) for name, text in sections() for each in examples(text) if not is_table(each)]
        self.tables = [(name, each) for name, text in sections() if (each := list(filter(is_table, examples(text))))]
        # What the documented ones hide: the other corners of a box, and the splits of a file.
        self.records += [("grounding_xyxy", {"image": "a.jpg", "phrase": "p", "bbox": [1, 2, 30, 20]})]
        self.mutator = Mutator(self.chance, [record for _, record in self.records])
        self.processor = make_processor()
        self.outcomes: Counter[str] = Counter()
        self.failures: list[str] = []
        make_images(folder, [record for _, record in self.records])

    def run(self, count: int, after_batch: Callable[[], None] = lambda: None) -> None:
        """Try `count` records."""
        for start in range(0, count, BATCH):
            if self.chance.random() < 0.2:
                name, tables = self.chance.choice(self.tables)
                for number in range(min(BATCH, count - start)):
                    self._try_tables(name, tables, number)
            else:
                name = self.chance.choice([name for name, _ in self.records])
                self._try_lines(name, min(BATCH, count - start))
            after_batch()

    def _try_lines(self, name: str, count: int) -> None:
        seeds = [record for each, record in self.records if each == name]
        file = self.folder / "fuzzed.jsonl"
        file.write_bytes(b"\n".join(self.mutator.line(self._mutated(seeds)) for _ in range(count)))
        contents = list(read_files([str(file)]))
        self._try_recognising(contents)
        located = list(locate_records(contents, name, FORMATS[name]))
        assert len(located) == count
        for entry, source in located:
            self._try(name, entry, source)

    def _mutated(self, seeds: list[dict]) -> dict:
        record = self.chance.choice(seeds)
        return record if self.chance.random() < 0.1 else self.mutator.mutate(record)

    def _try_tables(self, name: str, tables: list[dict], number: int) -> None:
        documents = {f"table{place}_{number}.json": self.mutator.mutate(table) for place, table in enumerate(tables)}
        try:
            with bounded():
                located = list(itertools.chain(FORMATS[name].expand(documents)))
        except ValueError as error:  # of a whole file
            self._judge(any(str(error).startswith(f"{file}: ") for file in documents), "refused", error, documents)
            return
        except BaseException as error:
            self._judge(False, "", error, documents)
            return
        for entry, source in located:
            self._try(name, entry, source)
        self.outcomes["files read"] += 1

    def _try_recognising(self, contents: list) -> None:
        try:
            with bounded(10 * CPU_SECONDS):
                recognise(DatasetSpec(AUTO, contents[0][0]), contents)
        except ValueError as error:
            if not str(error).startswith(contents[0][0]):
                self.failures.append(f"auto: {error}")

    def _try(self, name: str, entry: dict | RecordError, source: RecordId) -> None:
        try:
            with bounded():
                if isinstance(entry, RecordError):
                    raise entry
                conversation = self._read(name, entry, source)
                self.processor.measure(conversation)
                if self.chance.random() < 0.05:
                    self.processor.encode(conversation)
            self.outcomes["accepted"] += 1
        except RecordError as error:
            named = str(error).startswith(f"{source}: ") and error.source == source and len(error.problem) > 10
            self._judge(named and len(str(error)) < 50_000, "refused", error, entry)
        except BaseException as error:
            self._judge(False, "", error, entry)

    def _read(self, name: str, record: dict, source: RecordId) -> Conversation:
        """Read a record; of half of those with unknown keys, what is left without them."""
        try:
            return FORMATS[name].parse(record, Reading(source, self.folder, self._options()))
        except UnknownKeysError as error:
            rest = without_keys(record, error.keys)
            if rest == record or self.chance.random() < 0.5:
                raise
            return self._read(name, rest, source)

    def _options(self) -> ReadOptions:
        """Choose how a set's entry asks for its records to be read."""
        return ReadOptions(
            markup=self.chance.choice((None, True, False)),
            placeholders=self.chance.choice(("exact", "any")),
            join_turns=self.chance.random() < 0.5,
        )

    def _judge(self, is_right: bool, outcome: str, error: BaseException, record: object) -> None:
        if isinstance(error, KeyboardInterrupt):
            raise error
        if is_right:
            self.outcomes[outcome] += 1
        else:
            self.failures.append(f"{record!r:.2000}\n{''.join(traceback.format_exception(error))[-3000:]}")


@contextmanager
def bounded(seconds: int = CPU_SECONDS) -> Iterator[None]:
    """Raise TimeoutError in what computes, or waits, for too long."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"more than {seconds} s of computing, or {20 * seconds} s in all")

    timers = ((signal.SIGPROF, signal.ITIMER_PROF, seconds), (signal.SIGALRM, signal.ITIMER_REAL, 20 * seconds))
    before = [signal.signal(number, stop) for number, _, _ in timers]
    for _, timer, limit in timers:
        signal.setitimer(timer, limit)
    try:
        yield
    finally:
        for (number, timer, _), handler in zip(timers, before, strict=True):
            signal.setitimer(timer, 0)
            signal.signal(number, handler)


def make_processor() -> Qwen2VLProcessor:
    """Make a processor with one token a byte."""
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel

    backend = untrained_tokenizer(BPE({byte: place for place, byte in enumerate(sorted(ByteLevel.alphabet()))}, []))
    add_control_tokens(backend)
    images = Qwen2VLImageProcessor(min_pixels=56 * 56, max_pixels=56 * 56)
    return Qwen2VLProcessor(Qwen2Tokenizer(backend), images, Qwen2VLChatTemplate(), max_length=4096)


def make_images(folder: Path, records: list[dict]) -> None:
    """Put an image wherever the records have one, so that good ones are accepted."""
    from PIL import Image

    names = set(re.findall(r"[\w/]+\.(?:jpg|png)", json.dumps(records))) | {"0054c91397f2fe05.jpg"}
    for name in names:
        path = folder / name.removeprefix("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 48)).save(path)


def refuse_to_fetch(address: str, **_: object) -> bytes:
    """In place of `fetch_kept`."""
    raise FetchError(f"{address[:100]} is not fetched.")


@contextmanager
def fuzzer(seed: int) -> Iterator[Fuzzer]:
    """Make a fuzzer that stays off the network, in a folder of its own."""
    with (
        tempfile.TemporaryDirectory() as folder,
        patch("paddlemix.media.images.fetch_kept", refuse_to_fetch),
        patch("paddlemix.media.video.fetch_kept", refuse_to_fetch),
    ):
        yield Fuzzer(Path(folder), seed)


def resident_megabytes() -> float:
    """Read the memory of this process now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20


def main() -> None:
    """Run, and print what happened to the records."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    memory: list[float] = []
    with fuzzer(args.seed) as one:
        one.run(args.records, lambda: memory.append(resident_megabytes()))
    quarters = [f"{memory[(len(memory) - 1) * part // 4]:.0f}" for part in range(5)]
    print(f"{dict(one.outcomes)}, {len(one.failures)} failures; MB after each quarter: {', '.join(quarters)}")
    for failure in one.failures[:10]:
        print(f"\n{failure}")
    raise SystemExit(bool(one.failures))


if __name__ == "__main__":
    main()
