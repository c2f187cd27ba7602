from __future__ import annotations

from pathlib import Path

import pytest

from paddlemix.conversation import RecordError, RecordId
from paddlemix.datasets.reading.context import Reading


@pytest.fixture
def check_refused():
    """Parse a record that has to be refused, and look for what the sentence must say."""

    def check(parse, record, problem):
        with pytest.raises(RecordError) as caught:
            parse(record, Reading(RecordId("train.jsonl", 3), Path("图")))
        assert str(caught.value).startswith("train.jsonl, record 3: ")
        assert problem in str(caught.value)

    return check
