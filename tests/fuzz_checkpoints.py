"""Mutates every JSON file of a checkpoint of each family: each is read, or refused in a sentence that names the file.

    python tests/fuzz_checkpoints.py --checkpoints FOLDER --mutations 10000 --seed 0

Each folder goes the whole way that a start goes, without weights: config, processor with tokenizer and template, a
prompt, settings of answers, an adapter. Nothing is fetched. It goes so in a forked process, which may take 5 s of the
processor's time and 1 GB for one folder, and must not grow from folder to folder.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import paddlemix  # noqa: F401  first: it sets the environment of the mathematics
from paddlemix.auto import AutoConfigMIX, AutoProcessorMIX
from paddlemix.conversation import Conversation, RecordId, Text, Turn
from paddlemix.generation.settings import GenerationConfig
from paddlemix.models.config_file import read_config, vocab_size_of
from paddlemix.peft.adapter_config import read_adapter_config
from paddlemix.weights.files import stored_tensors

SECONDS, BYTES = 5, 2**30  # of the processor's time and of memory, for one folder; they take milliseconds
KILOBYTES = 60_000  # that one folder may add to the process's largest size
SUFFIXES = (".json", ".txt", ".jinja", ".tiktoken")
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 3, 7, 3.5, 1e308, -1e308, 1e-300, 10**6, 10**9, 2**31, 2**32, 2**63, 10**19,
    10**400, float("nan"), float("inf"),
    "", " ", "1", "NFC", "BPE", "\ud800", "\x00", "a" * 5000, "<|im_end|>", "<|endoftext|>",
    "..", "/", "{{ 1 / 0 }}", "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "{{ 'a' * 10**10 }}", "{{", "(.*)*(.*)*x", "(", [], {}, [[]], [None], [1], [1, 2, 3], ["a"], [[1, 2]], [0.5] * 3,
    [True], {"a": 1}, {"type": "Sequence"}, {"type": "NFKC"}, {"content": "<|im_end|>"}, {"id": 1, "content": "x"},
    {"0": "a"}, list(range(3000)), {"Regex": "(a|a)*b"}, {"String": ""}, {"Fixed": 10**15},
)  # fmt: skip


# Put into texts, of which some are templates.
PROGRAMS = (
    "{{ 1 / 0 }}", "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}", "{{", "{% endif %}",
    "{{ 'a' * 10**10 }}", "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "{{ messages | tojson(indent=10**9) }}",
    "{{ raise_exception('no\nno') }}", "{% set a = messages * 10**9 %}", "{{ ''.__class__ }}",
    "{{ messages[0][1][2] }}",
    "{{ 10 ** (10**10) }}", "<|im_start|>", "\x1b[2J", "\u2028", "{% include '/etc/passwd' %}", "{{ self }}",
)  # fmt: skip
# Lists in lists, deeper than Python's own writer goes.
NESTED = {"nested 10": 10, "nested 70": 70, "nested 3000": 3000}


@dataclass
class Fuzzer:
    """Reads mutated folders, each process a number of them.

    Attributes:
        folders: the checkpoints that are mutated.
        seed: of what is changed; the same mutation comes out of a seed and a number.
        batch: how many a process reads.
        outcomes: how many were accepted and how many refused, by the file that was changed.
        failures: what came out otherwise, each with the file and its content.
        slowest: seconds of the processor's time that one folder took, and which file.
        growth: kilobytes that a process had taken at its end beyond those after half of its folders, at most.
    """

    folders: list[Path]
    seed: int = 0
    batch: int = 250
    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    slowest: tuple[float, str] = (0.0, "")
    growth: int = 0

    def run(self, mutations: int) -> None:
        """Read so many mutated folders."""
        number = 0
        while number < mutations:
            number = self._read_in_fork(number, min(number + self.batch, mutations))

    def _read_in_fork(self, first: int, end: int) -> int:
        """Read folders in a new process; where that dies, the one at which it did has failed.

        Args:
            first: the number of the first mutation.
            end: one above that of the last.

        Returns:
            The number of the next.
        """
        reading, writing = os.pipe()
        sys.stdout.flush()
        child = os.fork()
        if not child:
            try:
                os.close(reading)
                with open(writing, "w", encoding="utf-8") as reports:
                    self._report(first, end, reports)
                os._exit(0)
            finally:  # what follows belongs to the process that forked this one
                traceback.print_exc()
                os._exit(1)
        os.close(writing)
        with open(reading, encoding="utf-8") as reports:
            for line in reports:
                report = json.loads(line)
                if "growth" in report:
                    self.growth = max(self.growth, report["growth"])
                    continue
                first = report["number"] + 1
                self.outcomes[f"{Path(report['file']).name} {report['outcome']}"] += 1
                self.slowest = max(self.slowest, (report["seconds"], report["file"]))
                if report["problem"]:
                    self.failures.append(f"{report['number']}: {report['file']}: {report['problem']}")
        _, status = os.waitpid(child, 0)
        if status:
            self.outcomes["died"] += 1
            self.failures.append(f"{first}: the process ended with {os.waitstatus_to_exitcode(status)}")
            first += 1
        return first

    def _report(self, first: int, end: int, reports: TextIO) -> None:
        """Read folders, and write a line about each."""
        for stop in (signal.SIGVTALRM, signal.SIGALRM):
            signal.signal(stop, signal.SIG_DFL)  # which ends the process, wherever it is
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        gc.freeze()  # what is there already is shared with the process that forked this one
        with tempfile.TemporaryDirectory() as place:
            folders = [Path(shutil.copytree(one, Path(place) / one.name)) for one in self.folders]
            for folder in folders:
                use(folder)
            size = memory()
            resource.setrlimit(resource.RLIMIT_AS, (size + BYTES, size + BYTES))
            for number in range(first, end):
                if number == (first + end) // 2:
                    held = memory()
                report = self._read(folders[number % len(folders)], number)
                print(json.dumps({"number": number, **report}), file=reports, flush=True)
            print(json.dumps({"growth": (memory() - held) // 1024}), file=reports)

    def _read(self, source: Path, number: int) -> dict[str, Any]:
        """Read a folder of which one file is changed."""
        chance = random.Random(f"{self.seed} {number}")
        file = chance.choice(sorted(one for one in source.rglob("*") if one.suffix in SUFFIXES))
        kept = file.read_bytes()
        content = Mutator(chance).mutated(kept, is_json=file.suffix == ".json")
        file.write_bytes(content)
        before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
        problem, outcome = None, "refused"
        signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
        signal.alarm(20 * SECONDS)
        try:
            use(source)
            outcome = "accepted"
        except (ValueError, OSError) as error:
            problem = sentence_problem(error, source)
        except BaseException as error:  # a panic of the tokenizers library is no `Exception`
            problem = "".join(traceback.format_exception(error)[-6:])
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.alarm(0)
        file.write_bytes(kept)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        if grown > KILOBYTES and problem is None:
            problem = f"it took {grown} kilobytes"
        return {
            "file": f"{source.name}/{file.name}",
            "outcome": "failed" if problem else outcome,
            "seconds": time.process_time() - began,
            "problem": problem and f"{problem}\n{content[:1500]!r}",
        }


@dataclass
class Mutator:
    """Changes files, as chance has it.

    Attributes:
        random: chooses.
    """

    random: random.Random

    def mutated(self, content: bytes, *, is_json: bool) -> bytes:
        """Change a file: values and keys of JSON, or bytes."""
        if not is_json or self.random.random() < 0.2:
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
            node[key] = self.random.choice((old + 1, -old, old * 10**6, str(old), 0.5))
        elif what < 0.4:
            node[key] = copy.deepcopy(self.random.choice(places))
        elif what < 0.5 and isinstance(node, dict):
            node[str(self.random.choice(VALUES))[:50]] = copy.deepcopy(node[key])
        elif what < 0.55:
            node[key] = self.random.choice(list(NESTED))
        elif what < 0.7 and isinstance(node[key], str):
            place = self.random.randrange(len(node[key]) + 1)
            node[key] = node[key][:place] + self.random.choice(PROGRAMS) + node[key][place:]
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


def memory() -> int:
    """Tell the bytes that this process has addresses for, which is what it has taken and not given back."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def use(folder: Path) -> None:
    """Read all that a start reads of a checkpoint, but for weights."""
    read_adapter_config(folder / "adapter").product_of("model.layers.0.self_attn.q_proj")
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


def of_another_time(source: Path, folder: Path) -> Path:
    """Copy a checkpoint with its vocabulary in two files, and with its template in a file of its own."""
    shutil.copytree(source, folder)
    values = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text(json.dumps(values["model"]["vocab"]))
    (folder / "merges.txt").write_text("\n".join(" ".join(pair) for pair in values["model"]["merges"]))
    (folder / "added_tokens.json").write_text(json.dumps({one["content"]: one["id"] for one in values["added_tokens"]}))
    (folder / "chat_template.jinja").write_text(
        json.loads((folder / "chat_template.json").read_text())["chat_template"]
    )
    return folder


def checkpoints(sources: Path, folder: Path) -> list[Path]:
    """Copy checkpoints with all files that any has, those with a tokenizer.json in an older form too."""
    found = [with_all_files(one, folder / one.name) for one in sorted(sources.iterdir())]
    old = [one for one in found if (one / "tokenizer.json").is_file()]
    return [*found, *(of_another_time(one, folder / f"{one.name}_old") for one in old)]


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
        fuzzer = Fuzzer(checkpoints(options.checkpoints, Path(place)), options.seed)
        fuzzer.run(options.mutations)
    for one in fuzzer.failures[:40]:
        print(one, end="\n\n")
    print(dict(sorted(fuzzer.outcomes.items())))
    print(f"failures: {len(fuzzer.failures)}, slowest: {fuzzer.slowest}, growth: {fuzzer.growth} kilobytes")
    sys.exit(bool(fuzzer.failures) or fuzzer.growth > KILOBYTES)


if __name__ == "__main__":
    main()
