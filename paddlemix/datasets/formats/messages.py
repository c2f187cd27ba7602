"""Records that are a list of turns, as LLaVA, LLaMA-Factory, ms-swift 3, OpenAI, TRL and many others write them.

{"conversations": [{"from": "human", "value": "<image>What?"}, {"from": "gpt", "value": "A bus."}], "image": "a.jpg"}
{"messages": [{"role": "user", "content": "<image>Find <ref-object>"}, {"role": "assistant", "content": "<bbox>"}],
 "images": ["a.jpg"], "objects": {"ref": ["sheep"], "bbox": [[90.9, 160.8, 135, 212.8]]}}
{"messages": [{"role": "user", "content": [{"type": "image", "image": "a.jpg"}, {"type": "text", "text": "What?"}]},
              {"role": "assistant", "content": "A bus."}]}

Whoever wrote it, `<image>` and `<video>` stand for what the record lists, in order; a turn may hold what it shows as
parts of its own; `<ref>` and `<box>` are text, since XML and wikis have them too, unless the set calls them markup.
"""

from __future__ import annotations

from paddlemix.conversation import Conversation, Image, UnknownKeysError, Video
from paddlemix.datasets.formats.format import Format
from paddlemix.datasets.reading.context import Reading
from paddlemix.datasets.reading.converse import converse
from paddlemix.datasets.reading.keys import IMAGE_KEYS, VIDEO_KEYS, check_keys, is_given, keys
from paddlemix.datasets.reading.media import IMAGE_SETTING_KEYS, image_settings, images_of, videos_of
from paddlemix.datasets.reading.places.objects import Counts, objects_of
from paddlemix.datasets.reading.tools import tools_of
from paddlemix.datasets.reading.turns import SYSTEM_KEYS, TURN_KEYS, Said, read_turns, turns_key, with_system
from paddlemix.datasets.records.json_files import Record

# ms-swift's way to bound all images of a record.
_TEMPLATE_KEY = "chat_template_kwargs"
_NAMES_OF_MEDIA = ("image_id", "video_id")
BESIDE_TURNS = keys(*IMAGE_KEYS, *VIDEO_KEYS, *SYSTEM_KEYS, "objects", "tools", _TEMPLATE_KEY)
MESSAGES = keys(*TURN_KEYS, *BESIDE_TURNS)


def parse(record: Record, reading: Reading) -> Conversation:
    """Make a conversation of one record.

    Args:
        record: the record.
        reading: of it.

    Returns:
        The turns with their images, videos, names, boxes and points; images and videos without any placeholder come
        before the first question.

    Raises:
        RecordError: the record has another shape.
    """
    key = turns_key(record, reading)
    check_keys(record, MESSAGES, reading)
    return converse_beside(record, read_turns(record, key, reading), reading, markup=False)


FORMAT = Format(parse)


def converse_beside(record: Record, turns: list[Said], reading: Reading, *, markup: bool) -> Conversation:
    """Make a conversation of turns and of what a record lists beside them.

    Args:
        record: has `BESIDE_TURNS`.
        turns: of it.
        reading: of it.
        markup: whether its texts have `<ref>` and `<box>`.

    Returns:
        The conversation.

    Raises:
        RecordError: the record has another shape.
    """
    own = [piece for said in turns for piece in said.pieces if isinstance(piece, (Image, Video))]
    if BESIDE_TURNS.keys().isdisjoint(record):  # as in most sets of texts, and those whose images stand in texts
        if not own:
            _refuse_names_of_media(record, reading)
        return converse(turns, reading, markup=markup)
    images, turns = images_of(record, reading), with_system(record, turns, reading)
    if isinstance(images, list):
        images = _with_settings(record, images, reading)
    videos = videos_of(record, reading)
    if not images and not videos and not own:
        _refuse_names_of_media(record, reading)
    own_images = sum(isinstance(piece, Image) for piece in own)
    shown = Counts(len(images) + own_images, len(videos) + len(own) - own_images)
    return converse(
        turns,
        reading,
        images=images,
        videos=videos,
        others=objects_of(record, turns, shown, reading),
        markup=markup,
        tools=tools_of(record, reading),
    )


def _refuse_names_of_media(record: Record, reading: Reading) -> None:
    """Refuse keys that say which image a record is about where it shows none."""
    named = tuple(key for key in _NAMES_OF_MEDIA if is_given(record.get(key)))
    if named:
        raise UnknownKeysError(reading.source, named)


def _with_settings(record: Record, images: list[Image], reading: Reading) -> list[Image]:
    given = record.get(_TEMPLATE_KEY)
    if not is_given(given):
        return images
    if not isinstance(given, dict):
        raise reading.error(f"`{_TEMPLATE_KEY}` is {given!r:.60}; expected an object with `max_pixels` or the like")
    check_keys(given, IMAGE_SETTING_KEYS, reading, _TEMPLATE_KEY)
    settings = image_settings(given, f"`{_TEMPLATE_KEY}`", reading)
    return [Image(image.path, settings) for image in images]
