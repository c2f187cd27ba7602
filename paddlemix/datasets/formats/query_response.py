"""A query and its response, and those before, as ms-swift 2 writes them; also with Qwen-VL's tags in its texts.

{"query": "<image>Which colour?", "response": "Red.", "history": [["What is this?", "A bus."]], "images": ["a.jpg"]}
{"query": "Find <ref-object>", "response": "<bbox>", "images": ["a.jpg"],
 "objects":"[{\\"caption\\": \\"guy\\",\\"bbox\\": [138, 136, 235, 359], \\"bbox_type\\": \\"real\\", \\"image\\": 0}]"}
{"query": "Find <|object_ref_start|>the man<|object_ref_end|>", "images": ["a.jpg"],
 "response": "<|box_start|>(123,235),(324,546)<|box_end|>"}
"""

from __future__ import annotations

from paddlemix.conversation import Conversation
from paddlemix.datasets.formats.format import Format
from paddlemix.datasets.formats.inline import with_inline_media
from paddlemix.datasets.formats.messages import BESIDE_TURNS
from paddlemix.datasets.reading.context import Reading
from paddlemix.datasets.reading.fields import require
from paddlemix.datasets.reading.keys import check_keys, keys
from paddlemix.datasets.reading.turns import Said
from paddlemix.datasets.records.json_files import Record, describe

_READ = keys("query", "response", "history", *BESIDE_TURNS)


def parse(record: Record, reading: Reading) -> Conversation:
    """Make a conversation of one record.

    Args:
        record: the record.
        reading: of it.

    Returns:
        The history, the query and the response, with their images, videos, names and boxes; images and videos without
        any placeholder come before the first question.

    Raises:
        RecordError: the record has another shape.
    """
    check_keys(record, _READ, reading)
    query, response = (require(record, key, str, "a text", reading.source) for key in ("query", "response"))
    turns = [*history_of(record, reading), Said("user", (query,)), Said("assistant", (response,))]
    return with_inline_media(record, turns, reading)


FORMAT = Format(parse)


def history_of(record: Record, reading: Reading) -> list[Said]:
    """Read the questions and answers before a record's own.

    Args:
        record: `history` may be missing.
        reading: of it.

    Returns:
        Their turns.

    Raises:
        RecordError: it is no list of pairs.
    """
    history = record.get("history") or []
    if not isinstance(history, list):
        raise reading.error(f'`history` is {describe(history)}; expected a list of ["query", "response"]')
    turns = []
    for number, pair in enumerate(history):
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
            raise reading.error(f'`history[{number}]` is {describe(pair)}; expected ["query", "response"]')
        turns += [Said("user", (pair[0],)), Said("assistant", (pair[1],))]
    return turns
