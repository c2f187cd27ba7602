"""What the files of a checkpoint say of its added tokens, brought into its tokenizer.

tokenizer.json holds all of them as a rule. Others stand in tokenizer_config.json (`added_tokens_decoder`, or the names
of special tokens alone), or before that in added_tokens.json with special_tokens_map.json. They are read in the order
in which transformers reads them, so that each gets the same id.

Source: transformers 4.57, `PreTrainedTokenizerBase._from_pretrained` and `PreTrainedTokenizerFast.__init__`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from paddlemix.bounded_json import shown, whole_number
from paddlemix.files import read_json_object
from paddlemix.processors.tokens.vocabulary import (
    MAX_ADDED_TOKENS,
    MAX_TOKEN_ID,
    added_token_problem,
    panics_told,
    read_tokenizer_file,
)

TOKENIZER_FILE = "tokenizer.json"
TOKENIZER_CONFIG_FILE = "tokenizer_config.json"
ADDED_TOKENS_FILE = "added_tokens.json"
SPECIAL_TOKENS_FILE = "special_tokens_map.json"

# The keys that name a special token each, and those that name several: transformers 5 has `extra_special_tokens`.
_NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_LISTED = ("additional_special_tokens", "extra_special_tokens")
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")

Said = dict[int, AddedToken]
"""Added tokens by the ids that a file gives them."""


def read_tokenizer(path: Path, control_tokens: Collection[str]) -> Tokenizer:
    """Read a tokenizer.json, each of whose added tokens has the id that the file gives it.

    Args:
        path: of the file.
        control_tokens: of the family, which no text may become.

    Returns:
        The tokenizer.

    Raises:
        ValueError: the file is damaged, or gives ids that cannot be.
    """
    tokenizer, added = read_tokenizer_file(path, control_tokens)
    said = _by_id(path, ((one["id"], one) for one in added))
    check_ids(tokenizer, said, path)
    return tokenizer


def said_beside(folder: Path, settings: Mapping[str, Any]) -> tuple[Path, Said]:
    """Read what stands of added tokens beside tokenizer.json.

    Args:
        folder: of the checkpoint.
        settings: its tokenizer_config.json; where that has `added_tokens_decoder`, added_tokens.json does not count.

    Returns:
        The file, and the tokens in it.

    Raises:
        ValueError: two tokens have one id, or there is no object of tokens.
    """
    decoder = settings.get("added_tokens_decoder")
    if decoder:
        path = folder / TOKENIZER_CONFIG_FILE
        if not isinstance(decoder, Mapping):
            raise ValueError(
                f"{path}: `added_tokens_decoder` is {shown(decoder)}; expected an object of tokens by their "
                "ids. Fetch the tokenizer's files again."
            )
        return path, _by_id(path, decoder.items())
    path = folder / ADDED_TOKENS_FILE
    special = {token.content for token in named_specials(folder, settings)}
    added = (
        (token_id, {"content": text, "special": text in special, "normalized": text not in special})
        for text, token_id in read_json_object(path, missing_ok=True).items()
    )
    return path, _by_id(path, added)


def named_specials(folder: Path, settings: Mapping[str, Any]) -> list[AddedToken]:
    """List the tokens that the files call special, each once, in transformers' order.

    Args:
        folder: of the checkpoint.
        settings: its tokenizer_config.json, which goes before special_tokens_map.json.

    Returns:
        The tokens.

    Raises:
        ValueError: one is neither a text nor an object with one.
    """
    path = folder / TOKENIZER_CONFIG_FILE
    given = {key: one for key, one in settings.items() if one}
    earlier = {} if "added_tokens_decoder" in given else read_json_object(folder / SPECIAL_TOKENS_FILE, missing_ok=True)
    values = {**earlier, **given}
    named = [(key, values[key]) for key in _NAMED if values.get(key)]
    for key in _LISTED:
        several = values.get(key) or ()
        if isinstance(several, str):
            several = [several]
        if not isinstance(several, (Mapping, list, tuple)):
            raise ValueError(f"{path}: `{key}` is {shown(several)}; expected a list of tokens.")
        listed = several.values() if isinstance(several, Mapping) else several
        named += [(key, one) for one in listed if one not in (None, "")]
    tokens: dict[str, AddedToken] = {}
    for key, one in named:
        problem = added_token_problem({"content": one} if isinstance(one, str) else one)
        if problem is not None:
            raise ValueError(f"{path}: `{key}`: {problem}.")
        token = _special_token(one)
        tokens.setdefault(token.content, token)
    return list(tokens.values())


def check_named(settings: Mapping[str, Any], names: Collection[str], folder: Path) -> None:
    """Check that keys of a tokenizer_config.json that name a token do so.

    Args:
        settings: its values.
        names: of the keys.
        folder: of the checkpoint.

    Raises:
        ValueError: one holds something else.
    """
    for name in names:
        value = settings.get(name)
        problem = None if not value else added_token_problem({"content": value} if isinstance(value, str) else value)
        if problem is not None:
            raise ValueError(f"{folder / TOKENIZER_CONFIG_FILE}: `{name}`: {problem}.")


def add_said(tokenizer: Tokenizer, said: Said, path: Path) -> None:
    """Add tokens in the order of their ids; what a later file says of a token's flags counts.

    Args:
        tokenizer: gets them.
        said: the tokens.
        path: of the file that says so.

    Raises:
        ValueError: one would get another id than the file says.
    """
    with panics_told(path):
        tokenizer.add_tokens([token for _, token in sorted(said.items(), key=lambda one: one[0])])
    check_ids(tokenizer, said, path)


def add_named(tokenizer: Tokenizer, tokens: Collection[AddedToken]) -> None:
    """Add special tokens that are no added tokens yet, behind all others.

    Args:
        tokenizer: gets them.
        tokens: in their order.
    """
    added = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    tokenizer.add_tokens([token for token in tokens if token.content not in added])


def add_control_tokens(tokenizer: Tokenizer, names: Sequence[str]) -> None:
    """Make a family's control tokens special; those that are missing get the ids behind the vocabulary.

    Args:
        tokenizer: gets them.
        names: the control tokens, in the order of their ids.
    """
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names])


def with_named_specials(settings: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Name more special tokens in the values of a tokenizer_config.json, where those that it has are listed.

    Args:
        settings: the values; transformers 5 calls the list `extra_special_tokens`.
        names: of the tokens.

    Returns:
        The values with them.
    """
    listed = [key for key in _LISTED if isinstance(settings.get(key), list)]
    key = listed[-1] if listed else _LISTED[0]
    return {**settings, key: [*(settings.get(key) or ()), *names]}


def check_ids(tokenizer: Tokenizer, said: Said, path: Path) -> None:
    """Check that each token has the id that a file gives it.

    Args:
        tokenizer: has the tokens.
        said: the tokens by the file's ids.
        path: of the file.

    Raises:
        ValueError: one has another id.
    """
    for token_id, token in said.items():
        found = tokenizer.token_to_id(token.content)
        if found == token_id:
            continue
        holder = tokenizer.id_to_token(token_id)
        reason = (
            f"which is {holder!r} already; expected an id for each token"
            if holder is not None
            else "and those before it belong to no token; expected ids without gaps behind the vocabulary"
        )
        raise ValueError(
            f"{path}: the added token {token.content!r} has the id {token_id}, {reason}: it would get {found}. Fetch "
            "the tokenizer's files again, all from one checkpoint."
        )


def check_control_tokens(tokenizer: Tokenizer, names: Collection[str], folder: Path) -> None:
    """Check that a family's control tokens are added tokens, not pieces of text.

    Args:
        tokenizer: of a checkpoint.
        names: the control tokens.
        folder: of the checkpoint.

    Raises:
        ValueError: one is missing, or a piece of the vocabulary alone.
    """
    added = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    if missing := [name for name in names if name not in added]:
        raise ValueError(
            f"{folder}: the control tokens {', '.join(missing)} are no added tokens of its tokenizer; expected all "
            f"{len(names)} of the family's. `model_name_or_path` holds another model's tokenizer, or part of one."
        )


def _by_id(path: Path, entries: Iterable[tuple[int | str, Mapping[str, Any]]]) -> Said:
    """Read the fields of tokens by their ids."""
    said: Said = {}
    for given, fields in entries:
        token_id: Any = int(given) if isinstance(given, str) and re.fullmatch("[0-9]{1,10}", given) else given
        problem = added_token_problem(fields)
        if problem is not None or not whole_number(token_id, 0, MAX_TOKEN_ID):
            raise ValueError(
                f"{path}: {shown(fields)} with the id {shown(given)} is no added token; expected `content` and a whole "
                f"number{f': {problem}' if problem else ''}. Fetch the tokenizer's files again."
            )
        token = _token(fields)
        if len(said) > MAX_ADDED_TOKENS:
            raise ValueError(f"{path}: adds more than {MAX_ADDED_TOKENS} tokens. Fetch the tokenizer's files again.")
        other = said.setdefault(token_id, token)
        if other.content != token.content:
            raise ValueError(
                f"{path}: the added tokens {other.content!r} and {token.content!r} have one id, {token_id}; expected "
                "one each. Fetch the tokenizer's files again."
            )
    return said


def _token(fields: Mapping[str, Any]) -> AddedToken:
    return AddedToken(fields["content"], **{flag: bool(fields[flag]) for flag in _FLAGS if flag in fields})


def _special_token(token: str | Mapping[str, Any]) -> AddedToken:
    if isinstance(token, str):
        return AddedToken(token, special=True, normalized=False)
    return _token({"normalized": False, **token, "special": True})
