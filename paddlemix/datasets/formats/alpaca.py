"""Alpaca's instructions, as LLaMA-Factory reads them, with images and videos.

{"instruction": "<image>Name the colour.", "input": "Answer with one word.", "output": "Red.", "images": ["a.jpg"],
 "system": "Be short.", "history": [["Hello", "Hi"]]}
"""

from __future__ import annotations

from paddlemix.conversation import Conversation
from paddlemix.datasets.formats.format import Format
from paddlemix.datasets.formats.messages import BESIDE_TURNS, converse_beside
from paddlemix.datasets.formats.query_response import history_of
from paddlemix.datasets.reading.context import Reading
from paddlemix.datasets.reading.fields import checked_text, require
from paddlemix.datasets.reading.keys import check_keys, keys
from paddlemix.datasets.reading.turns import Said
from paddlemix.datasets.records.json_files import Record, describe

_READ = keys("instruction", "input", "output", "history", *BESIDE_TURNS)


def parse(record: Record, reading: Reading) -> Conversation:
    """Make a conversation of one record.

    Args:
        record: the record.
        reading: of it.

    Returns:
        The history; the instruction and, behind a line end, its input; answered by the output.

    Raises:
        RecordError: the record has another shape.
    """
    check_keys(record, _READ, reading)
    instruction = require(record, "instruction", str, "a text", reading.source)
    given = record.get("input") or ""
    if not isinstance(given, str):
        raise reading.error(f"`input` of the record is {describe(given)}; expected a text, or null")
    question = "\n".join(text for text in (instruction, given) if text)
    output = checked_text(record.get("output"), "`output` of the record", reading.source)
    turns = [*history_of(record, reading), Said("user", (question,)), Said("assistant", (output,))]
    return converse_beside(record, turns, reading, markup=False)


FORMAT = Format(parse)
