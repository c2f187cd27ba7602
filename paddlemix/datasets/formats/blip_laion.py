"""Stage 1 captions of LLaVA, from the file that keeps them beside their addresses.

{"id": "1", "image": "00453/004539375.jpg", "blip_caption": "a red bus on a street", "url": "https://..."}
"""

from __future__ import annotations

from pathlib import Path

from paddlemix.conversation import Conversation, RecordId
from paddlemix.datasets.formats import caption
from paddlemix.datasets.formats.format import Format, refuse_unread, text_at
from paddlemix.datasets.records.json_files import Record


def parse(record: Record, source: RecordId, root: Path, prompt: str = caption.DEFAULT_PROMPT) -> Conversation:
    """Make a conversation of one record.

    Args:
        record: the record.
        source: where it comes from.
        root: the folder of relative image paths.
        prompt: what the user asks about every image.

    Returns:
        The image and the prompt, answered by the caption.

    Raises:
        RecordError: the record has another shape.
    """
    refuse_unread(record, ("image", "blip_caption"), source)
    text = text_at(record, "blip_caption", source)
    return caption.parse({"image": text_at(record, "image", source), "caption": text}, source, root, prompt)


FORMAT = Format(parse, takes_prompt=True, task="caption")
