"""Whether a model knows all tokens of its tokenizer."""

from __future__ import annotations

from pathlib import Path

from paddlemix.contract import Tokenizer


def check_rows(tokenizer: Tokenizer, rows: int, folder: str | Path) -> None:
    """Refuse a tokenizer that has tokens for which a model has no rows.

    Args:
        tokenizer: of the checkpoint.
        rows: of the embedding.
        folder: of the checkpoint, or its name.

    Raises:
        ValueError: there are such tokens.
    """
    if tokenizer.size > rows:
        last = tokenizer.decode([tokenizer.size - 1])
        raise ValueError(
            f"{folder}: the tokenizer has {tokenizer.size} tokens, the last of them {last}, but `vocab_size` of "
            f"config.json is {rows}: they were added without growing the model. List those from id {rows} on in "
            "`new_tokens`, which gives them rows to train; or take the tokenizer's files of the published checkpoint."
        )
