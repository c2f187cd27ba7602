"""A tokenizer of the tokenizers library, looked at before that library sees it.

Files come from strangers, and the library is made for its own: on some it stops the whole process, on others it takes
any time or memory, and a vocabulary can be made so that a text becomes a token that nobody may spell. So what is read
is what Qwen2's tokenizers consist of, byte pairs and the steps round them, each value of its kind; anything else is
refused by its key.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from tokenizers.models import BPE

from paddlemix.bounded_json import VOCABULARY, finite_number, parse_json_object, shown, whole_number
from paddlemix.files import read_bounded, read_json_object
from paddlemix.processors.qwen_byte_pairs import WORD_PATTERN

# Patterns that cut a text into words in a time that grows with its length: Qwen2's, and those of GPT-2 and GPT-4.
# Others may take any time, and the library cannot be stopped while it searches.
_PATTERNS = (
    WORD_PATTERN,
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    WORD_PATTERN.replace(r"|\p{N}|", r"|\p{N}{1,3}|"),
)
_BEHAVIORS = ("Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous")
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
MAX_TOKEN_ID = 2**31 - 1
MAX_ADDED_TOKENS = 65_536
_LONGEST_TOKEN = 1000
_FETCH = "Fetch the tokenizer's files again."

Pairs = Sequence[Sequence[str]]


class _Steps:
    """The kinds of a step of tokenizing that are read, and the list of a sequence of them.

    Args:
        sequence: the key of a sequence's list.
        kinds: by type, what checks its values and says what was expected of them.
    """

    def __init__(self, sequence: str, kinds: Mapping[str, Callable[[Mapping[str, Any]], str | None]]) -> None:
        self.sequence, self.kinds = sequence, kinds

    def check(self, value: Any, key: str, path: Path) -> None:
        """Refuse a step that is not read."""
        if value is None:
            return
        kind = value.get("type") if isinstance(value, Mapping) else None
        if kind == "Sequence" and isinstance(value.get(self.sequence), list):
            for place, one in enumerate(value[self.sequence]):
                if isinstance(one, Mapping) and one.get("type") == "Sequence":
                    raise _problem(path, f"{key}.{self.sequence}[{place}]", "Sequence", "no sequence in another")
                self.check(one, f"{key}.{self.sequence}[{place}]", path)
            return
        if not isinstance(kind, str) or kind not in self.kinds:
            raise _problem(path, key, value if kind is None else kind, f"one of {', '.join(self.kinds)}")
        problem = self.kinds[kind](value)
        if problem is not None:
            raise ValueError(f"{path}: `{key}`: {problem}")


def _plain(value: Mapping[str, Any]) -> None:
    del value


def _byte_level(value: Mapping[str, Any]) -> str | None:
    flags = ("add_prefix_space", "trim_offsets", "use_regex")
    wrong = [name for name in flags if not isinstance(value.get(name, True), bool)]
    return f"`{wrong[0]}` is {shown(value[wrong[0]])}; expected true or false." if wrong else None


def _split(value: Mapping[str, Any]) -> str | None:
    pattern = value.get("pattern")
    if pattern not in [{"Regex": one} for one in _PATTERNS]:
        return (
            f"`pattern` is {shown(pattern)}; expected that of Qwen2, GPT-2 or GPT-4: how long another takes cannot be "
            "told."
        )
    if value.get("behavior") not in _BEHAVIORS or not isinstance(value.get("invert"), bool):
        return f"`behavior` is {shown(value.get('behavior'))}; expected one of {', '.join(_BEHAVIORS)}, and `invert`."
    return None


_STEPS = {
    "normalizer": _Steps("normalizers", dict.fromkeys(("NFC", "NFD", "NFKC", "NFKD", "Lowercase"), _plain)),
    "pre_tokenizer": _Steps("pretokenizers", {"ByteLevel": _byte_level, "Split": _split}),
    "post_processor": _Steps("processors", {"ByteLevel": _byte_level}),
    "decoder": _Steps("decoders", {"ByteLevel": _byte_level}),
}


def read_tokenizer_file(path: Path, control_tokens: Collection[str]) -> tuple[Tokenizer, list[Mapping[str, Any]]]:
    """Read a tokenizer.json.

    Args:
        path: of the file.
        control_tokens: of the family, which no text may become.

    Returns:
        The tokenizer, and the fields of its added tokens as the file has them.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is damaged, or holds what is not read; the message names file and key.
    """
    content = read_bounded(path, VOCABULARY)
    values = parse_json_object(content, path, VOCABULARY)
    for key, steps in _STEPS.items():
        steps.check(values.get(key), key, path)
    added = _checked_added_tokens(values.get("added_tokens"), path)
    _check_model(values.get("model"), path, control_tokens)
    if values.get("truncation") is not None or values.get("padding") is not None:
        # Settings of calls, as transformers takes them too; they would cut texts, or fill memory.
        content = json.dumps({**values, "truncation": None, "padding": None}).encode()
    with panics_told(path):
        return Tokenizer.from_str(content.decode("utf-8-sig")), added


def read_byte_pairs(vocabulary: Path, merges: Path, control_tokens: Collection[str]) -> BPE:
    """Read the byte pairs of a checkpoint from before tokenizer.json.

    Args:
        vocabulary: vocab.json.
        merges: merges.txt.
        control_tokens: of the family, which no text may become.

    Returns:
        The model.

    Raises:
        OSError: a file cannot be read.
        ValueError: a file is damaged; the message names it, with the line or the key.
    """
    vocab = read_json_object(vocabulary, limits=VOCABULARY)
    _check_ids(vocab, vocabulary, "")
    try:
        lines = read_bounded(merges, VOCABULARY).decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{merges}: not UTF-8 text: byte {error.start}. {_FETCH}") from error
    pairs = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")]
    wrong = next((pair for pair in pairs if len(pair) != 2 or not {*pair, "".join(pair)} <= vocab.keys()), None)
    if wrong is not None:
        raise ValueError(
            f"{merges}: {shown(' '.join(wrong))} is no merge; expected two pieces of {vocabulary.name} that make a "
            f"third. {_FETCH}"
        )
    _check_control_tokens(vocab, pairs, control_tokens, vocabulary)
    with panics_told(merges):
        return BPE(vocab, pairs)


@contextmanager
def panics_told(path: Path) -> Iterator[None]:
    """Say in a sentence what the library stops at, a panic of its own included.

    Args:
        path: of the file that it reads.

    Yields:
        Nothing.

    Raises:
        ValueError: it stopped.
    """
    try:
        yield
    except BaseException as error:
        # A panic is no `Exception`, so that it passes by all who handle those, and has no name that can be imported.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise ValueError(f"{path}: no tokenizer of the tokenizers library: {shown(str(error))}. {_FETCH}") from error


def _problem(path: Path, key: str, value: Any, expected: str) -> ValueError:
    return ValueError(f"{path}: `{key}` is {shown(value)}; expected {expected}. {_FETCH}")


def _checked_added_tokens(added: Any, path: Path) -> list[Mapping[str, Any]]:
    if added is None:
        return []
    if not isinstance(added, list) or len(added) > MAX_ADDED_TOKENS:
        raise _problem(path, "added_tokens", added, f"a list of at most {MAX_ADDED_TOKENS}")
    for place, fields in enumerate(added):
        problem = added_token_problem(fields)
        if problem is None and not whole_number(fields.get("id"), 0, MAX_TOKEN_ID):
            problem = f"`id` is {shown(fields.get('id'))}; expected a whole number"
        if problem is not None:
            raise ValueError(f"{path}: `added_tokens[{place}]`: {problem}. {_FETCH}")
    return added


def added_token_problem(fields: Any) -> str | None:
    """Say what is wrong with the fields of an added token.

    Args:
        fields: as a file has them.

    Returns:
        What is wrong, without a period; None where they are right.
    """
    if not isinstance(fields, Mapping):
        return f"{shown(fields)} is no added token; expected an object"
    content = fields.get("content")
    if not isinstance(content, str) or not 0 < len(content) <= _LONGEST_TOKEN:
        return f"`content` is {shown(content)}; expected a text of at most {_LONGEST_TOKEN} characters"
    wrong = [name for name in _FLAGS if not isinstance(fields.get(name, True), bool)]
    return f"`{wrong[0]}` is {shown(fields[wrong[0]])}; expected true or false" if wrong else None


def _check_model(model: Any, path: Path, control_tokens: Collection[str]) -> None:
    if not isinstance(model, Mapping) or model.get("type", "BPE") != "BPE":
        kind = model.get("type") if isinstance(model, Mapping) else model
        raise _problem(path, "model.type", kind, '"BPE", byte pairs')
    dropout = model.get("dropout")
    if dropout is not None and not (finite_number(dropout) and dropout == 0):
        raise _problem(path, "model.dropout", dropout, "null: a text has the same tokens each time")
    for name in ("continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(name) not in (None, ""):
            raise _problem(path, f"model.{name}", model[name], "an empty text")
    for name in ("fuse_unk", "byte_fallback", "ignore_merges"):
        if not isinstance(model.get(name, False), bool):
            raise _problem(path, f"model.{name}", model[name], "true or false")
    vocab, merges = model.get("vocab"), model.get("merges")
    if not isinstance(vocab, dict):
        raise _problem(path, "model.vocab", vocab, "an object of ids by pieces")
    _check_ids(vocab, path, "model.vocab")
    unknown = model.get("unk_token")
    if unknown is not None and (not isinstance(unknown, str) or unknown not in vocab):
        raise _problem(path, "model.unk_token", unknown, "null, or a piece of the vocabulary")
    pairs = _pairs(merges, path)
    if unknown in control_tokens or model.get("ignore_merges"):
        pairs = [("", token) for token in control_tokens]  # each can be reached
    _check_control_tokens(vocab, pairs, control_tokens, path)


def _check_ids(vocab: Mapping[str, Any], path: Path, key: str) -> None:
    """Check that pieces have the ids from 0 on, so that none is an added token's too."""
    ids = vocab.values()
    if not {*map(type, ids)} <= {int} or sorted(ids) != list(range(len(vocab))):
        place = f"`{key}`" if key else "it"
        raise ValueError(f"{path}: {place} gives its {len(vocab)} pieces other ids than those from 0 on. {_FETCH}")


def _pairs(merges: Any, path: Path) -> Pairs:
    """Return the merges, which releases of the library write as "a b" or as ["a", "b"]."""
    kinds = {*map(type, merges)} if isinstance(merges, list) else {type(None)}
    if kinds <= {str}:
        pairs = [one.split(" ") for one in merges]
    elif kinds <= {list}:
        pairs = merges
    else:
        raise _problem(path, "model.merges", merges, "a list of pairs of pieces")
    if {*map(len, pairs)} - {2} or {kind for pair in pairs for kind in map(type, pair)} - {str}:
        wrong = next(one for one in pairs if len(one) != 2 or {*map(type, one)} != {str})
        raise _problem(path, "model.merges", wrong, "pairs of pieces")
    return pairs


def _check_control_tokens(vocab: Mapping[str, Any], pairs: Pairs, names: Collection[str], path: Path) -> None:
    """Check that no control token is a piece that merging the letters of a text can reach."""
    inside = {name for name in names if name in vocab}
    if not inside:
        return
    reached = sorted(inside & {"".join(pair) for pair in pairs})
    if reached:
        raise ValueError(
            f"{path}: the control token {reached[0]} is a piece of the vocabulary that its merges make of letters, so "
            f"that any text could write it; expected an added token that none makes. {_FETCH}"
        )
