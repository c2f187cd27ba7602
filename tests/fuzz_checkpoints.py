"""Mutates every JSON file of a checkpoint of each family: each is read, or refused in a sentence that names the file.

    python tests/fuzz_checkpoints.py --mutations 10000 --seed 0

Each folder goes the whole way that a start goes, without weights: config, processor with tokenizer and template, a
prompt, settings of answers, an adapter. Nothing is fetched.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import re
import resource
import shutil
import signal
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import paddlemix  # noqa: F401  first: it sets the environment of the mathematics
from paddlemix.auto import AutoConfigMIX, AutoProcessorMIX
from paddlemix.conversation import Conversation, RecordId, Text, Turn
from paddlemix.generation.settings import GenerationConfig
from paddlemix.models.config_file import read_config, vocab_size_of
from paddlemix.peft.adapter_config import read_adapter_config
from paddlemix.weights.files import stored_tensors

SECONDS = 10  # of the processor's time for one folder; they take milliseconds
KILOBYTES = 60_000  # that one folder may add to the process's largest size
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 3, 7, 3.5, 1e308, -1e308, 1e-300, 10**6, 10**9, 2**31, 2**32, 2**63, 10**19,
    10**400, float("nan"), float("inf"),
    "", " ", "1", "NFC", "BPE", "\ud800", "\x00", "a" * 5000, "<|im_end|>", "<|endoftext|>",
    "..", "/", "{{ 1 / 0 }}", "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "{{ 'a' * 10**10 }}", "{{", "(.*)*(.*)*x", "(", [], {}, [[]], [None], [1], [1, 2, 3], ["a"], [[1, 2]], [0.5] * 3,
    [True], {"a": 1}, {"type": "Sequence"}, {"type": "NFKC"}, {"content": "<|im_end|>"}, {"id": 1, "content": "x"},
    {"0": "a"}, list(range(3000)), {"Regex": "(a|a)*b"}, {"String": ""}, {"Fixed": 10**15},
)  # fmt: skip


# Lists in lists, deeper than Python's own writer goes.
NESTED = {"nested 10": 10, "nested 70": 70, "nested 3000": 3000}


@dataclass
class Fuzzer:
    """Reads mutated folders.

    Attributes:
        folders: the checkpoints that are mutated.
        random: chooses.
        outcomes: how many were accepted, and how many refused.
        failures: what came out otherwise, each with the file and its content.
        slowest: seconds of the processor's time that one folder took, and which file.
    """

    folders: list[Path]
    random: random.Random
    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    slowest: tuple[float, str] = (0.0, "")

    def run(self, mutations: int) -> None:
        """Read so many mutated folders."""
        for number in range(mutations):
            folder = self.folders[number % len(self.folders)]
            file = self.random.choice(sorted(folder.rglob("*.json")))
            self._read(folder, file, self._mutated(file.read_bytes()))

    def _read(self, source: Path, file: Path, content: bytes) -> None:
        kept = file.read_bytes()
        file.write_bytes(content)
        before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
        problem = None
        try:
            with bounded(SECONDS):
                use(source)
            self.outcomes["accepted"] += 1
        except (ValueError, OSError) as error:
            self.outcomes["refused"] += 1
            problem = sentence_problem(error, source)
        except BaseException as error:  # a panic of the tokenizers library is no `Exception`
            if isinstance(error, (KeyboardInterrupt, SystemExit)):
                raise
            problem = "".join(traceback.format_exception(error)[-6:])
        finally:
            file.write_bytes(kept)
        took = time.process_time() - began
        self.slowest = max(self.slowest, (took, f"{source.name}/{file.name}"))
        if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before > KILOBYTES and problem is None:
            problem = "it grew"
        if problem is not None:
            self.failures.append(f"{source.name}/{file.name}: {problem}\n{content[:1500]!r}")

    def _mutated(self, content: bytes) -> bytes:
        if self.random.random() < 0.2:
            return self._mutated_bytes(content)
        document = json.loads(content)
        for _ in range(self.random.choice((1, 1, 1, 2, 4))):
            self._mutate(document)
        text = json.dumps(document)
        for name, depth in NESTED.items():
            text = text.replace(f'"{name}"', "[" * depth + "]" * depth)
        if self.random.random() < 0.05:
            text = self._with_repeated_key(text)
        return text.encode()

    def _mutate(self, document: Any) -> None:
        places = list(containers(document))
        node = self.random.choice(places)
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        if not keys:
            return
        key, what = self.random.choice(keys), self.random.random()
        if what < 0.15:
            del node[key]
        elif what < 0.3 and isinstance(node[key], (int, float)) and not isinstance(node[key], bool):
            old = node[key]
            node[key] = self.random.choice((old + 1, -old, old * 10**6, str(old), old / 3))
        elif what < 0.4:
            node[key] = copy.deepcopy(self.random.choice(places))
        elif what < 0.5 and isinstance(node, dict):
            node[str(self.random.choice(VALUES))[:50]] = copy.deepcopy(node[key])
        elif what < 0.55:
            node[key] = self.random.choice(list(NESTED))
        else:
            node[key] = copy.deepcopy(self.random.choice(VALUES))

    def _mutated_bytes(self, content: bytes) -> bytes:
        place, what = self.random.randrange(len(content)), self.random.random()
        if what < 0.3:
            return content[:place]
        if what < 0.5:
            return content[:place] + bytes([self.random.randrange(256)]) + content[place + 1 :]
        if what < 0.6:
            return b"\xff\xfe" + content
        if what < 0.7:
            return b"[" * self.random.choice((10, 100, 200_000))
        if what < 0.8:
            return self.random.choice((b"", b"null", b"[]", b"1", b'"a"', b"{}", b"{" * 9, b"\xef\xbb\xbf" + content))
        if what < 0.9:
            return content[:place] + content[place : place + 40] * 3 + content[place:]
        return b'{"a": [' + b"[]," * 2_000_000 + b"1]}"

    def _with_repeated_key(self, text: str) -> str:
        found = re.search(r'"(\w+)": ', text)
        return f'{{"{found[1]}": 1, {text[1:]}' if found else text


def use(folder: Path) -> None:
    """Read all that a start reads of a checkpoint, but for weights."""
    read_adapter_config(folder / "adapter").scaling_of("model.layers.0.self_attn.q_proj", 8)
    stored_tensors(folder / "weights")
    config = AutoConfigMIX.from_pretrained(folder)
    _ = config.decoder_shape, config.tower_shape
    vocab_size_of(read_config(folder))
    processor = AutoProcessorMIX.from_pretrained(folder)
    turns = (Turn("user", (Text("What <|im_end|> is it?"),)), Turn("assistant", (Text("A cat."),)))
    processor.encode(Conversation(turns, RecordId("fuzz.json", 0)))
    processor.decode([1, 2, 3], skip_control_tokens=True)
    GenerationConfig.from_pretrained(folder)


def sentence_problem(error: Exception, folder: Path) -> str | None:
    """Tell what is wrong with an error as a sentence."""
    said = str(error)
    if said.startswith("fuzz.json, record 0: ") and "chat template" in said:
        return None
    if type(error) not in (ValueError, FileNotFoundError) and type(error).__name__ != "TemplateProblem":
        return f"{type(error).__name__}: {said[:500]}"
    if str(folder) not in said or "\n" in said or len(said) > 1500:
        return f"no sentence that names the file: {said[:500]}"
    return None


def containers(node: Any) -> Iterator[Any]:
    """List objects and lists of a document, large ones once."""
    if isinstance(node, dict):
        yield node
        for child in list(node.values())[:400]:
            yield from containers(child)
    elif isinstance(node, list):
        yield node
        for child in node[:400]:
            yield from containers(child)


@contextmanager
def bounded(seconds: int) -> Iterator[None]:
    """Raise TimeoutError where a block takes more of the processor's time."""

    def stop(number: int, frame: object) -> None:
        raise TimeoutError(f"more than {seconds} s")

    signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


def with_all_files(source: Path, folder: Path) -> Path:
    """Copy a checkpoint, and add the files that others have beside it."""
    shutil.copytree(source, folder)
    for name in ("adapter", "weights"):
        (folder / name).mkdir()
    (folder / "model.safetensors").rename(folder / "weights" / "a.safetensors")
    stored = {"image_processor": "preprocessor_config.json", "video_processor": "video_preprocessor_config.json"}
    values = {
        "processor_config.json": {
            key: json.loads((folder / name).read_text()) for key, name in stored.items() if (folder / name).is_file()
        },
        "special_tokens_map.json": {"eos_token": {"content": "<|im_end|>"}, "pad_token": "<|endoftext|>"},
        "added_tokens.json": {},
        "weights/model.safetensors.index.json": {"metadata": {}, "weight_map": {"a": "a.safetensors"}},
        "generation_config.json": {"do_sample": True, "eos_token_id": [1, 2], "top_k": 5, "top_p": 0.9},
        "adapter/adapter_config.json": {
            "peft_type": "LORA", "r": 8, "lora_alpha": 16, "lora_dropout": 0.1, "base_model_name_or_path": "none/none",
            "target_modules": ["q_proj"], "rank_pattern": {"q_proj": 4}, "alpha_pattern": {"layers.0": 8.0},
            "trainable_token_indices": [1, 2], "modules_to_save": ["lm_head"],
        },
    }  # fmt: skip
    for name, one in values.items():
        (folder / name).write_text(json.dumps(one))
    return folder


def main() -> None:
    """Mutate, and print what came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mutations", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoints", type=Path, required=True, help="a folder with one of each family")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folders = [with_all_files(one, Path(place) / one.name) for one in sorted(options.checkpoints.iterdir())]
        fuzzer = Fuzzer(folders, random.Random(options.seed))
        fuzzer.run(options.mutations)
    for one in fuzzer.failures[:40]:
        print(one, end="\n\n")
    print(dict(fuzzer.outcomes), f"failures: {len(fuzzer.failures)}, slowest: {fuzzer.slowest}")


if __name__ == "__main__":
    main()
