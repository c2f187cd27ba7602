"""Which keys of a record mean the same, which mean nothing, and which must not be ignored."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from paddlemix.conversation import UnknownKeysError
from paddlemix.datasets.reading.context import Reading

Keys = dict[str, None]
"""Names of keys: in an order for messages, and found at once."""


def keys(*names: str) -> Keys:
    """Make keys of their names."""
    return dict.fromkeys(names)


# How sets spell the key of the images, or videos, that a record or a turn shows.
IMAGE_KEYS = keys(
    "images", "image", "image_path", "image_paths", "image_file", "image_files", "image_url", "image_urls",
    "image_list", "image_name", "img", "imgs", "img_path", "img_paths", "img_url", "picture", "pictures", "photo",
    "file_name", "Image", "Images",
)  # fmt: skip
VIDEO_KEYS = keys(
    "videos", "video", "video_path", "video_paths", "video_file", "video_url", "video_urls", "Video", "Videos"
)
MEDIA_KEYS = keys(*IMAGE_KEYS, *VIDEO_KEYS)
# All but the ones that messages name.
_SPELLINGS = MEDIA_KEYS.keys() - {"images", "videos"}

# Keys that mean something in one format or another, and what that is. Ignored, half of a record would be trained.
_MEANINGFUL = {
    "audio": "sound, which no model here hears",
    "audios": "sound, which no model here hears",
    "rejected_response": "a worse answer, for preference training",
    "rejected": "a worse answer, for preference training",
    "chosen": "a better answer, for preference training",
    "reasoning_content": "reasoning before an answer; write it into the answer's text if it is to be learned",
    "reasoning": "reasoning before an answer; write it into the answer's text if it is to be learned",
    "thinking": "reasoning before an answer; write it into the answer's text if it is to be learned",
    **dict.fromkeys(IMAGE_KEYS, "images"),
    **dict.fromkeys(VIDEO_KEYS, "videos"),
    **dict.fromkeys(("messages", "conversations", "conversation", "history"), "turns"),
    **dict.fromkeys(("query", "response", "instruction", "input", "output"), "a question and its answer"),
    **dict.fromkeys(("system", "system_prompt"), "a system text"),
    **dict.fromkeys(("tools", "tool_calls", "function_call"), "functions to call"),
    **dict.fromkeys(("objects", "bbox", "boxes"), "boxes"),
    **dict.fromkeys(("loss", "weight", "loss_weight", "loss_scale", "train"), "how much is learned"),
}
# Keys that sets have about their records: nothing that a model sees or says.
_ABOUT = frozenset((
    "id", "uid", "uuid", "idx", "index", "key", "__key__", "name", "source", "dataset", "data_source", "origin",
    "url", "task", "task_type", "type", "category", "categories", "category_id", "subset", "split", "lang",
    "language", "license", "model", "metadata", "meta", "meta_info", "extra_info", "info", "height", "width",
    "height_list", "width_list", "image_id", "image_size", "image_width", "image_height", "question_id",
    "question_type", "answer_type", "answer_id", "ann_id", "ref_id", "sent_id", "sentence_id", "area", "iscrowd",
    "segmentation", "coco_url", "flickr_url", "date_captured", "data_subtype", "video_id", "conversation_id",
    "message_id", "tool_call_id", "created_at", "timestamp", "refusal",
))  # fmt: skip


def is_given(value: Any) -> bool:
    """Tell whether a key's value says anything; null, "", [] and {} mean that the key is not there."""
    return value is not None and value != "" and value != [] and value != {}


def check_keys(record: Mapping[str, Any], read: Collection[str], reading: Reading, within: str = "") -> None:
    """Refuse a record, or an object in it, that says more than what is read of it.

    Args:
        record: the record, or the object.
        read: the keys that are read.
        reading: the record's.
        within: what the object is called, such as "messages[]"; "" for the record.

    Raises:
        RecordError: a key that means something is not read here.
        UnknownKeysError: a key has a name that means nothing here, so that it may be a misspelling.
    """
    unread = [key for key in record if key not in read and key not in _ABOUT and is_given(record[key])]
    if not unread:
        return
    place = f"{within}." if within else ""
    meant = [f"`{place}{key}` ({_MEANINGFUL[key]})" for key in unread if key in _MEANINGFUL]
    if meant:
        shown = ", ".join(f"`{key}`" for key in read if key not in _SPELLINGS)
        raise reading.error(
            f"{', '.join(meant)} would be ignored; this format reads {shown} there. Choose the format that reads it, "
            "rename it with the set's `columns`, or name it in `ignore_keys`"
        )
    raise UnknownKeysError(reading.source, tuple(f"{place}{key}" for key in unread))


def only_key(record: Mapping[str, Any], spellings: Collection[str], reading: Reading) -> str | None:
    """Find the one of several keys with one meaning that a record has.

    Args:
        record: the record, or an object in it.
        spellings: keys that mean the same.
        reading: the record's.

    Returns:
        The key; None where it has none of them.

    Raises:
        RecordError: several are given, with different values.
    """
    found = [key for key in record if key in spellings and is_given(record[key])]
    if len(found) > 1 and any(record[key] != record[found[0]] for key in found[1:]):
        raise reading.error(f"{', '.join(f'`{key}`' for key in found)} mean the same; expected one of them")
    return found[0] if found else None
