"""ShareGPT as LLaMA-Factory reads it, with its default columns and tags and with those of its own demo sets.

{"conversations": [{"from": "human", "value": "<image>What is this?"}, {"from": "gpt", "value": "A bus."}],
 "images": ["a.jpg"], "system": "Be short."}
{"messages": [{"role": "user", "content": "<video>What happens?"}, {"role": "assistant", "content": "A bus leaves."}],
 "videos": ["a.mp4"]}
"""

from __future__ import annotations

from pathlib import Path

from paddlemix.conversation import Conversation, RecordId
from paddlemix.datasets.formats.format import Format, refuse_unread
from paddlemix.datasets.formats.placeholders import converse, listed_media
from paddlemix.datasets.formats.turns import FROM_VALUE, ROLE_CONTENT, read_turns, with_system
from paddlemix.datasets.records.json_files import Record


def parse(record: Record, source: RecordId, root: Path) -> Conversation:
    """Make a conversation of one record.

    Args:
        record: the record.
        source: where it comes from.
        root: the folder of relative image paths.

    Returns:
        The turns, an image or video in the place of each `<image>` and `<video>`; where there is none of a kind, all
        come before the first question.

    Raises:
        RecordError: the record has another shape.
    """
    column = "messages" if "messages" in record and "conversations" not in record else "conversations"
    refuse_unread(record, (column, "images", "videos", "system"), source)
    turns = with_system(record, read_turns(record, column, [FROM_VALUE, ROLE_CONTENT], source), source)
    return converse(turns, listed_media(record, "images", "videos", source, root), source)


FORMAT = Format(parse)
