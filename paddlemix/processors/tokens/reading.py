"""Which added tokens are read in texts: a tokenizer for what people wrote."""

from __future__ import annotations

import json
from collections.abc import Callable

from tokenizers import AddedToken, Tokenizer


def reader(tokenizer: Tokenizer, stays_text: Callable[[AddedToken], bool]) -> Tokenizer:
    """Make the tokenizer that encodes texts: some added tokens are letters to it, all others are read.

    Args:
        tokenizer: has all tokens.
        stays_text: tells which of the added tokens are letters.

    Returns:
        The tokenizer itself where that will do, which is then told to leave special tokens alone; else one that
        differs in which tokens count as special.
    """
    added = tokenizer.get_added_tokens_decoder()
    letters = {token_id for token_id, token in added.items() if stays_text(token)}
    if letters != {token_id for token_id, token in added.items() if token.special}:
        # The library forgets no special token once it has one, so that another has to be made.
        values = json.loads(tokenizer.to_str())
        for one in values["added_tokens"]:
            one["special"] = one["id"] in letters
        tokenizer = Tokenizer.from_str(json.dumps(values))
    tokenizer.encode_special_tokens = True
    return tokenizer


def spellings(token: str) -> list[str]:
    """Write texts that spell a control token, alone and within others, and with characters that are like its own.

    Args:
        token: such as "<|im_end|>".

    Returns:
        The texts.
    """
    full_width = "".join(chr(ord(one) + 0xFEE0) if "!" <= one <= "~" else one for one in token)
    return [
        token, f" {token} ", f"a{token}b", f"{token}{token}", f"\n{token}\n", token.upper(), full_width,
        f"{token[0]}\u200b{token[1:]}", f"\ufeff{token}", f"{token[:-1]}\u00ad{token[-1]}", f"\u2581{token}",
        token.replace("_", "\u005f\u0301"),
    ]  # fmt: skip
