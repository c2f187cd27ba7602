"""Conversations with images and videos inside their text, as Qwen-VL and PaddleMIX write them.

{"id": "7", "conversations": [{"from": "user", "value": "Picture 1: <img>a.jpg</img>\\nWhere is the bus?"},
                              {"from": "assistant", "value": "<ref>bus</ref><box>(178,279),(806,884)</box>"}]}
{"image": "a.jpg", "conversations": [["What is this?", "A bus."], ["Which colour?", "Red."]]}
{"conversations": [["<video>a.mp4</video>What happens?", "A bus leaves."],
                   ["<video>["1.jpg", "2.jpg"]</video>And in these frames?", "It stops."]]}
"""

from __future__ import annotations

from paddlemix.conversation import Conversation
from paddlemix.datasets.formats.format import Format
from paddlemix.datasets.formats.inline import with_inline_media
from paddlemix.datasets.formats.messages import MESSAGES
from paddlemix.datasets.reading.context import Reading
from paddlemix.datasets.reading.keys import check_keys
from paddlemix.datasets.reading.turns import read_turns, turns_key
from paddlemix.datasets.records.json_files import Record


def parse(record: Record, reading: Reading) -> Conversation:
    """Make a conversation of one record.

    Images stand where `<img>path</img>` does, or, those of the record's list, where `<image>` does or before the first
    user turn's text. Videos stand where `<video>path</video>` does; a JSON list in place of the path names the files of
    the frames. All other text stays as it was written, `Picture 1: ` and the newline after an image included.

    Args:
        record: the record.
        reading: of it.

    Returns:
        The turns with their images, videos, references and boxes.

    Raises:
        RecordError: the record has another shape.
    """
    key = turns_key(record, reading)
    check_keys(record, MESSAGES, reading)
    return with_inline_media(record, read_turns(record, key, reading), reading)


FORMAT = Format(parse)
