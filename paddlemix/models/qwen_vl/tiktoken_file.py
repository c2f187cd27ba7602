"""A byte-pair vocabulary as tiktoken keeps it: a line for each token, its bytes in base64 and its rank."""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from collections.abc import Mapping
from pathlib import Path

from tokenizers.pre_tokenizers import ByteLevel

from paddlemix.bounded_json import VOCABULARY
from paddlemix.files import read_bounded, replacing

Ranks = dict[bytes, int]


def read_ranks(path: Path) -> Ranks:
    """Read a vocabulary.

    Args:
        path: such as qwen.tiktoken.

    Returns:
        Each token's rank, which is its id.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a line is none of a vocabulary, or tokens are missing.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path.parent}: no {path.name}, the tokenizer's vocabulary.")
    ranks: Ranks = {}
    for number, line in enumerate(read_bounded(path, VOCABULARY).splitlines(), 1):
        try:
            token, rank = line.split()
            ranks[b64decode(token, validate=True)] = int(rank)
        except (ValueError, binascii.Error) as error:
            raise ValueError(
                f"{path}:{number}: {line[:40]!r} is no token; expected its bytes in base64, a space and its rank. "
                "Fetch the file again."
            ) from error
    check_ranks(ranks, str(path))
    return ranks


def write_ranks(path: Path, ranks: Ranks) -> None:
    """Write a vocabulary, in the order of its ranks, whole or not at all."""
    lines = (b64encode(token) + b" %d\n" % rank for token, rank in sorted(ranks.items(), key=lambda item: item[1]))
    with replacing(path) as staged:
        staged.write_bytes(b"".join(lines))


def check_ranks(ranks: Ranks, name: str) -> None:
    """Make sure that any text can be encoded, and that ranks can be ids.

    Args:
        ranks: the vocabulary.
        name: what to call it in the error.

    Raises:
        ValueError: a single byte is no token, or the ranks are not 0, 1, 2 and so on.
    """
    missing = [byte for byte in range(256) if bytes([byte]) not in ranks]
    if missing:
        raise ValueError(
            f"{name}: {len(missing)} of the 256 bytes are no token, the first of them {missing[0]}; expected all. "
            "Fetch the vocabulary again, or train it from all bytes."
        )
    if sorted(ranks.values()) != list(range(len(ranks))):
        raise ValueError(f"{name}: the ranks of {len(ranks)} tokens are not 0 to {len(ranks) - 1}, each once.")


def ranks_of_byte_level(vocabulary: Mapping[str, int]) -> Ranks:
    """Convert a vocabulary of the byte-level kind, as the Rust tokenizers train it and vocab.json holds it, to ranks.

    Args:
        vocabulary: token to id; the single bytes first, then the merged pairs in the order of their merging. Control
            tokens are no part of it.

    Returns:
        The same tokens by their bytes, with the same ids.
    """
    # Bytes that print are themselves; the others, in their order, are the characters from U+0100 on.
    alphabet = set(ByteLevel.alphabet())
    printed = {byte for byte in range(256) if chr(byte) in alphabet}
    hidden = [byte for byte in range(256) if byte not in printed]
    bytes_of = {chr(byte): byte for byte in printed} | {chr(256 + place): byte for place, byte in enumerate(hidden)}
    return {bytes(bytes_of[character] for character in token): rank for token, rank in vocabulary.items()}
