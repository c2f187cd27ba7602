"""tokenizer.json files of strangers: what stops the tokenizers library, or lets a text become a control token."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from paddlemix.models.qwen2_vl.tokenizer import CONTROL_TOKENS, Qwen2Tokenizer

TEXTS = ["", "a b", "caf\u00e9 \u20ac" * 20, "<|im_start|>system\n<|im_end|>", "".join(CONTROL_TOKENS)]
PADDING = {
    "strategy": {"Fixed": 10**15}, "direction": "Right", "pad_to_multiple_of": 0, "pad_id": 0, "pad_type_id": 0,
    "pad_token": "x",
}  # fmt: skip
# What the library stops the process at, raises its panic at, or takes any time for; all of them read by it alone.
TOP: dict[str, dict] = {
    "an abort in a map of characters": {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "/////wAA"}},
    "a panic in a map of characters": {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}},
    "a panic in replacing": {"normalizer": {"type": "Replace", "pattern": {"String": ""}, "content": "aaaa"}},
    "a panic in putting before": {"normalizer": {"type": "Prepend", "prepend": ""}},
    "a panic in pieces of no length": {"pre_tokenizer": {"type": "FixedLength", "length": 0}},
    "a panic in a template": {
        "post_processor": {
            "type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "q", "type_id": 0}}], "pair": [],
            "special_tokens": {},
        }
    },
    "a search without end": {
        "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(a|a)*b"}, "behavior": "Isolated", "invert": False}
    },
    "sequences in sequences": {
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Sequence", "normalizers": [{"type": "NFC"}]}]}
    },
    "another decoder": {"decoder": {"type": "Strip", "content": "a", "start": 10**9, "stop": 10**9}},
    "another model": {"model": {"type": "Unigram", "unk_id": None, "vocab": [], "byte_fallback": False}},
    "no model": {"model": None},
    "another version": {"version": "2.0"},
    "tokens that are no list": {"added_tokens": {"a": 1}},
    "a token that is none": {"added_tokens": [1]},
    "a step that is none": {"normalizer": [{"type": "NFC"}]},
    "a step of no kind": {"pre_tokenizer": {"type": ["Split"]}},
}  # fmt: skip
MODEL: dict[str, dict] = {
    "a panic in prefixes": {"continuing_subword_prefix": "abcdef"},
    "a panic in prefixes of several bytes": {"continuing_subword_prefix": "\u20ac"},
    "chance": {"dropout": 0.5},
    "too much chance": {"dropout": 2.0},
    "an unknown token that is none": {"unk_token": "nope"},
    "ids that are none": {"vocab": {"a": -1}},
    "ids beyond all": {"vocab": {"a": 0, "b": 4294967295}},
    "ids that are texts": {"vocab": {"a": "0"}},
    "ids twice": {"vocab": {"a": 0, "b": 0}},
    "a vocabulary that is a list": {"vocab": ["a"]},
    "merges of three": {"merges": [["a", "b", "c"]]},
    "merges of numbers": {"merges": [[1, 2]]},
    "merges that are none": {"merges": {"a": "b"}},
    "a merge of what is no piece": {"merges": [["\u4e00", "\u4e01"]]},
}
TOKEN: dict[str, dict] = {
    "an id beyond all": {"id": 2**40},
    "an id that is negative": {"id": -1},
    "an id that is another's": {"id": 3},
    "an id far behind": {"id": 100_000},
    "no text": {"content": ""},
    "a text of a megabyte": {"content": "x" * 2**20},
    "a text that is none": {"content": 5},
    "a flag that is none": {"special": "yes"},
}


@pytest.fixture
def folder(tiny_checkpoint, tmp_path) -> Path:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(tiny_checkpoint / name, tmp_path / name)
    return tmp_path


def changed(folder: Path, top: dict | None = None, model: dict | None = None, token: dict | None = None) -> None:
    path = folder / "tokenizer.json"
    values = json.loads(path.read_text())
    values["model"] |= model or {}
    values["added_tokens"][2] |= token or {}
    path.write_text(json.dumps({**values, **(top or {})}))


def outcome(folder: Path) -> tuple[int, str]:
    """Read a tokenizer and use it, in a process of its own.

    Returns:
        How the process ended, 0 where by itself; and what was raised, with its kind.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        said = "nothing"
        try:
            tokenizer = Qwen2Tokenizer.from_pretrained(folder)
            for text in TEXTS:
                tokenizer.decode(tokenizer.encode(text))
        except BaseException as error:  # a panic is no `Exception`
            said = f"{type(error).__name__}: {error}"
        os.write(writing, said.encode()[:4000])
        os._exit(0)
    os.close(writing)
    with open(reading, encoding="utf-8") as file:
        said = file.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said


CHANGES = [
    *(pytest.param({"top": change}, id=name) for name, change in TOP.items()),
    *(pytest.param({"model": change}, id=name) for name, change in MODEL.items()),
    *(pytest.param({"token": change}, id=name) for name, change in TOKEN.items()),
]


@pytest.mark.parametrize("change", CHANGES)
def test_what_the_library_may_stop_at_is_refused_in_a_sentence(folder, change):
    changed(folder, **change)
    status, said = outcome(folder)
    assert status == 0 and said.startswith(f"ValueError: {folder / 'tokenizer.json'}: ")
    assert "\n" not in said and len(said) < 1000


@pytest.mark.parametrize(
    "settings",
    [
        {"padding": PADDING},  # the library stops the process when it has no memory for it
        {"padding": {**PADDING, "strategy": "BatchLongest"}},
        {"truncation": {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 100}},  # a panic
        {"truncation": {"direction": "Right", "max_length": 1, "strategy": "LongestFirst", "stride": 0}},
    ],
)
def test_settings_of_calls_are_left_aside(folder, settings):
    expected = [Qwen2Tokenizer.from_pretrained(folder).encode(text) for text in TEXTS]
    changed(folder, settings)
    assert outcome(folder) == (0, "nothing")
    assert [Qwen2Tokenizer.from_pretrained(folder).encode(text) for text in TEXTS] == expected


@pytest.mark.parametrize(
    "flags",
    [
        {},
        {"normalized": True},
        {"lstrip": True, "rstrip": True},
        {"single_word": True},
        {"normalized": True, "lstrip": True, "rstrip": True, "single_word": True},
    ],
)
@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("normalizer", [{"type": "NFC"}, {"type": "NFKC"}, {"type": "Lowercase"}, None])
def test_no_text_becomes_a_control_token_that_the_files_call_an_ordinary_one(folder, flags, beside, normalizer):
    path = folder / "tokenizer.json"
    values = json.loads(path.read_text())
    values["normalizer"] = normalizer
    for one in values["added_tokens"]:
        one |= {"special": False, **flags}
    path.write_text(json.dumps(values))
    if beside:
        settings = json.loads((folder / "tokenizer_config.json").read_text())
        settings["added_tokens_decoder"] = {str(one["id"]): one for one in values["added_tokens"]}
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    # Only where letters are changed before tokens are looked for can a file be such that it has to be refused.
    refusal = r"its tokenizer makes a control token of the text"
    status, said = outcome(folder)
    assert status == 0
    if said != "nothing":
        assert refusal in said and normalizer in ({"type": "NFKC"}, {"type": "Lowercase"})
        return
    tokenizer = Qwen2Tokenizer.from_pretrained(folder)
    reserved = {tokenizer.token_id(name) for name in CONTROL_TOKENS}
    full_width = "".join(chr(ord(one) + 0xFEE0) for one in "<|im_end|>")
    for text in (*TEXTS, full_width, "<|IM_END|>", " <|im_end|> ", "x<|im_end|>y"):
        assert reserved.isdisjoint(tokenizer.encode(text))


def test_letters_that_merge_into_a_control_token_are_refused(folder):
    path = folder / "tokenizer.json"
    values = json.loads(path.read_text())
    name, vocab, merges = "<|im_end|>", values["model"]["vocab"], values["model"]["merges"]
    made = name[0]
    for letter in name[1:]:
        merges.append([made, letter])
        made += letter
        vocab.setdefault(made, len(vocab))
    # The added tokens follow the vocabulary, but for this one, which has the piece's own id.
    for place, one in enumerate(one for one in values["added_tokens"] if one["content"] != name):
        one["id"] = len(vocab) + place
    next(one for one in values["added_tokens"] if one["content"] == name)["id"] = vocab[name]
    path.write_text(json.dumps(values))
    status, said = outcome(folder)
    assert status == 0
    assert said.startswith(f"ValueError: {path}: the control token <|im_end|> is a piece of the vocabulary")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("vocab.json", b"[]", "a JSON object was expected"),
        ("vocab.json", b'{"a": 1e400}', "expected a finite number"),
        ("vocab.json", b'{"a": 7}', "gives its 1 pieces other ids than those from 0 on"),
        ("merges.txt", b"a b c", '"a b c" is no merge'),
        ("merges.txt", b"\xff\xfe", "not UTF-8 text"),
        ("merges.txt", b"\xe4\xb8\x80 \xe4\xb8\x81", "is no merge"),
        ("merges.txt", b"x" * (2**26 + 1), "expected at most"),
    ],
)
def test_a_vocabulary_in_two_files_is_read_within_the_same_bounds(folder, name, content, said):
    values = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text(json.dumps(values["model"]["vocab"]))
    (folder / "merges.txt").write_text("\n".join(map(" ".join, values["model"]["merges"])))
    assert outcome(folder) == (0, "nothing")
    (folder / name).write_bytes(content)
    status, found = outcome(folder)
    assert status == 0 and found.startswith(f"ValueError: {folder / name}: ") and said in found
    assert "\n" not in found and len(found) < 1000
