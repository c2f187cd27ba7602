"""What kinds of values a config.json's keys take and within which bounds, checked before layers are built.

Bounds are far beyond every published model, and near enough that no value makes a program that takes hours to refuse
what it was given. Needs no Paddle.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from paddlemix.bounded_json import finite_number
from paddlemix.value_kinds import FLAG, OBJECT, TEXT, Kind, either, kind_problem, list_of, number, whole

LAYERS = whole(1, 1024)
HEADS = whole(1, 4096)
WIDTH = whole(1, 2**20)
TOKEN = whole(0, 2**31 - 1)
TOKENS = either(TOKEN, list_of(TOKEN, longest=1000))
LENGTH = whole(1, 2**31 - 1)
EPSILON = number(0, 1)
SHARE = number(0, 1000)
# A side in pixels, patches or frames; published ones are at most 448.
SIDE = whole(1, 8192)
NAMES = list_of(TEXT, longest=1000)

# What every config.json can have.
SHARED: Mapping[str, Kind] = {
    "architectures": NAMES,
    "model_type": TEXT,
    "vocab_size": whole(1, 2**24),
    "hidden_size": WIDTH,
    "intermediate_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "max_position_embeddings": LENGTH,
    "initializer_range": Kind(lambda value: finite_number(value) and 0 <= value <= 100, "a number from 0 to 100"),
    "tie_word_embeddings": FLAG,
    "bos_token_id": TOKENS,
    "eos_token_id": TOKENS,
    "pad_token_id": TOKEN,
}
# What PaddleNLP's config is told of a file; everything else that it knows are settings of its own programs, and any
# key would become an attribute in place of a method.
OF_THE_FILE = ("architectures", "bos_token_id", "eos_token_id", "pad_token_id", "tie_word_embeddings")


def check_kinds(values: Mapping[str, Any], kinds: Mapping[str, Kind], *, section: str = "") -> None:
    """Check the kinds of values.

    Args:
        values: of a config.json, or of one of its sections; nulls say nothing.
        kinds: by key; other keys are not looked at.
        section: the section's name and a point, for the message.

    Raises:
        ValueError: a value is of another kind, or beyond its bounds; the message names the key.
    """
    problem = kind_problem(values, kinds, section=section)
    if problem is not None:
        raise ValueError(f"config.json: {problem}")


def check_padding(token: int | None, rows: int) -> None:
    """Check that the token of padding has a row of the embedding.

    Args:
        token: `pad_token_id`.
        rows: `vocab_size`.

    Raises:
        ValueError: it has none.
    """
    if token is not None and token >= rows:
        raise ValueError(f"config.json: `pad_token_id` is {token}; expected one below `vocab_size`, {rows}.")


def section(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return a section of a config.json.

    Args:
        values: of the file.
        name: of the section.

    Returns:
        Its values; none where it is missing or null.

    Raises:
        ValueError: it is no object.
    """
    check_kinds(values, {name: OBJECT})
    return values.get(name) or {}
