"""Ids of tokens that PaddleNLP writes into a checkpoint's files where nobody told it any."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# What its QWenConfig falls back on: ids of another vocabulary, at which answers would end.
_INVENTED = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


def without_invented_ids(values: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out the ids that PaddleNLP invented.

    Args:
        values: of a config.json or a generation_config.json.

    Returns:
        The values; all of them unless PaddleNLP wrote the file and all of these ids are in it.
    """
    is_invented = "paddlenlp_version" in values and all(values.get(name) == one for name, one in _INVENTED.items())
    return {name: value for name, value in values.items() if not (is_invented and name in _INVENTED)}
