"""Keys that are left out of records."""

from __future__ import annotations

import time
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from paddlemix.datasets.reading.ignored_keys import without_keys

NAMES = st.text("ab.[]", max_size=4)
VALUES = st.recursive(
    st.none(), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3), max_leaves=8
)


def left_of(value: Any, ignored: list[str], place: str = "") -> Any:
    """Leave keys out by what the words say: a key is meant where the way to it ends in a dot and a name."""
    if isinstance(value, dict):
        return {
            key: left_of(inner, ignored, f"{place}.{key}")
            for key, inner in value.items()
            if not any(f"{place}.{key}".endswith(f".{name}") for name in ignored)
        }
    return [left_of(one, ignored, f"{place}[]") for one in value] if isinstance(value, list) else value


@given(st.dictionaries(NAMES, VALUES, max_size=4), st.lists(NAMES, max_size=4))
def test_a_key_is_left_out_where_the_way_to_it_ends_in_a_name(record: dict[str, Any], ignored: list[str]) -> None:
    assert without_keys(record, ignored) == left_of(record, ignored)


def test_as_many_keys_as_a_record_has_are_left_out_soon() -> None:
    record = {f"key_{number}": number for number in range(20_000)}
    began = time.process_time()
    assert without_keys({**record, "a": [{"key_1": 1}]}, list(record)) == {"a": [{}]}
    assert time.process_time() - began < 2
