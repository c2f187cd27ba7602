"""Which characters are written without spaces between words."""

from __future__ import annotations

import re

UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
"""Chinese characters and Japanese kana, for use inside a regular expression's brackets."""

_UNSPACED_CHARACTER = re.compile(f"[{UNSPACED}]")


def holds_unspaced(text: str) -> bool:
    """Tell whether `text` holds Chinese or Japanese."""
    return _UNSPACED_CHARACTER.search(text) is not None
