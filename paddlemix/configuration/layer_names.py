"""Names of layers as configs give them: a text or a list, as PEFT, ms-swift, LLaMA-Factory or PaddleNLP has them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

ALL_LINEAR = "all-linear"
_OPENING, _CLOSING = "([{", ")]}"


def layer_patterns(given: str | list[str]) -> list[str]:
    """Take a text or a list apart; no name of a layer holds a comma.

    Args:
        given: `"q_proj,v_proj"`, `["q_proj", "v_proj"]` or `".*_proj"`, for example.

    Returns:
        `ALL_LINEAR`, names, endings of names and regular expressions, each by itself.
    """
    texts = [given] if isinstance(given, str) else given
    return [part.strip() for text in texts for part in _parts(text) if part.strip()]


def ending_in(ending: str, names: Sequence[str]) -> list[str]:
    """Find the names that are `ending`, or end in it after a dot, as PEFT reads the items of its lists."""
    return [name for name in names if f".{name}".endswith(f".{ending}")]


def _parts(text: str) -> Iterator[str]:
    """Split at commas, but for those in the brackets of a regular expression, such as `{1,2}`."""
    depth, start = 0, 0
    for place, letter in enumerate(text):
        depth += (letter in _OPENING) - (letter in _CLOSING)
        if letter == "," and depth <= 0:
            yield text[start:place]
            start = place + 1
    yield text[start:]
