"""LLaVA's conversations, of instruction tuning and of Stage 1 alike: `<image>` stands for the record's images.

{"id": "1", "image": "a.jpg", "conversations": [{"from": "human", "value": "<image>\\nWhat is this?"},
                                                {"from": "gpt", "value": "A bus."}]}
{"image": ["a.jpg", "b.jpg"], "conversations": [...]}    {"video": "a.mp4", "conversations": [...]}
"""

from __future__ import annotations

from pathlib import Path

from paddlemix.conversation import Conversation, RecordId
from paddlemix.datasets.formats.format import Format, refuse_unread
from paddlemix.datasets.formats.placeholders import converse, listed_media
from paddlemix.datasets.formats.turns import FROM_VALUE, read_turns
from paddlemix.datasets.records.json_files import Record


def parse(record: Record, source: RecordId, root: Path) -> Conversation:
    """Make a conversation of one record.

    Args:
        record: the record.
        source: where it comes from.
        root: the folder of relative image paths.

    Returns:
        The turns, an image in the place of each `<image>`; without any, all come before the first question.

    Raises:
        RecordError: the record has another shape.
    """
    refuse_unread(record, ("conversations", "image", "video"), source)
    turns = read_turns(record, "conversations", [FROM_VALUE], source)
    return converse(turns, listed_media(record, "image", "video", source, root), source)


FORMAT = Format(parse)
