"""A question about images and its answer, or the answers of several people, as sets for one task have them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from paddlemix.conversation import Conversation, Image, Task
from paddlemix.datasets.reading.context import Reading
from paddlemix.datasets.reading.converse import converse
from paddlemix.datasets.reading.fields import checked_text, require
from paddlemix.datasets.reading.keys import IMAGE_KEYS, is_given
from paddlemix.datasets.reading.media import images_of
from paddlemix.datasets.reading.turns import Said
from paddlemix.datasets.records.json_files import Record, describe


def shown_images(record: Record, reading: Reading) -> list[Image]:
    """Read the images that a record shows, at least one.

    Args:
        record: the record.
        reading: of it.

    Returns:
        The images.

    Raises:
        RecordError: there is none, or it is written otherwise.
    """
    images = images_of(record, reading)
    if isinstance(images, dict) or not images:
        found = ", ".join(f"`{name}`" for name, value in record.items() if is_given(value)) or "no key at all"
        raise reading.error(
            f"key `image` is missing in the record, which has {found}; expected the image under `image`, or one of "
            f"{', '.join(f'`{key}`' for key in IMAGE_KEYS if key != 'image')}"
        )
    return images


def ask(
    images: Sequence[Image], questions: Sequence[str], answers: Sequence[Sequence[str]], reading: Reading, task: Task
) -> Conversation:
    """Make a conversation of questions about images.

    Args:
        images: shown before the first question, or where it has `<image>`.
        questions: in their order.
        answers: to each question, at least one; the most common is learned, the first of several as common.
        reading: of the record.
        task: which metric fits.

    Returns:
        The conversation; all answers to the last question are what an answer is scored against.

    Raises:
        RecordError: the markup of a text cannot be read.
    """
    turns = []
    for question, given in zip(questions, answers, strict=True):
        most_common = given[0] if len(given) == 1 else Counter(given).most_common(1)[0][0]
        turns += [Said("user", (question,)), Said("assistant", (most_common,))]
    return converse(turns, reading, images=images, markup=True, answers=tuple(answers[-1]), task=task)


def texts_at(record: Record, key: str, reading: Reading) -> list[str]:
    """Read a text, or a list of texts, that a record must have.

    Args:
        record: the record.
        key: where it stands.
        reading: of the record.

    Returns:
        The texts, at least one, none of them blank.

    Raises:
        RecordError: it is something else.
    """
    value = require(record, key, object, "a text, or a list of texts", reading.source)
    texts = value if isinstance(value, list) else [value]
    if not texts:
        raise reading.error(f"`{key}` of the record is {describe(value)}; expected a text, or a list of at least one")
    return [checked_text(text, f"`{key}` of the record", reading.source) for text in texts]
