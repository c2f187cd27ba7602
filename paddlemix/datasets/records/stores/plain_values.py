"""Values of tables as JSON would have them: texts, numbers, lists and objects, with images as data: URLs."""

from __future__ import annotations

import math
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from paddlemix.media.data_url import as_data_url

_MEDIA_KEYS = {"bytes", "path"}


def plain(value: Any, name: str) -> Any:
    """Put a value of a table into the words of JSON.

    Args:
        value: what Arrow, or numpy, gives.
        name: of its column, for errors.

    Returns:
        Texts, numbers, lists, dictionaries with texts as keys, and None. An image or video, alone or as `datasets`
        keeps it with its path, is a data: URL, or the path where it has no bytes. Keys that are null are left out,
        since tables have every key in every row. Times are texts as ISO 8601 has them, durations are seconds.

    Raises:
        ValueError: a number is not finite.
    """
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"`{name}` is {value}, for which JSON has no word; write a number or null")
        return value
    if isinstance(value, dict):
        return _media(value) if "bytes" in value and value.keys() <= _MEDIA_KEYS else _object(value, name)
    if isinstance(value, (list, tuple)):
        return [plain(inner, f"{name}[{place}]") for place, inner in enumerate(value)]
    if isinstance(value, bytes):
        return _text_or_url(value)
    return _scalar(value, name)


def _object(value: dict[Any, Any], name: str) -> dict[str, Any]:
    return {str(key): plain(inner, f"{name}.{key}") for key, inner in value.items() if inner is not None}


def _media(value: dict[str, Any]) -> str | None:
    content, path = value["bytes"], value.get("path")
    return path if content is None else as_data_url(content, path or "")


def _text_or_url(content: bytes) -> str:
    """Read bytes, which are texts where a writer did not say so."""
    url = as_data_url(content)
    try:
        return content.decode() if url.startswith("data:application/") else url
    except UnicodeDecodeError:
        return url


def _scalar(value: Any, name: str) -> Any:
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, (date, datetime, time)):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if hasattr(value, "tolist"):  # of numpy
        return plain(value.tolist(), name)
    return str(value)
