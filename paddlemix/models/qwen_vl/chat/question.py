"""One question to Qwen-VL, put as its users put it: pictures first, each with its number, a line each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from paddlemix.generation import GenerationConfig
from paddlemix.models.qwen_vl.tags import ImageSpan, from_list_format, split_at_pictures


class ChatQuestion:
    """A question about pictures; those that its own words show as `<img>path or address</img>` count too.

    Args:
        images: paths or addresses.
        video: empty; this family reads pictures only.
        prompt: what is asked.

    Attributes:
        pictures: the paths or addresses of all pictures, in their order.

    Raises:
        ValueError: a picture's path holds a tag, or a picture of the prompt is not closed.
    """

    pictures: list[str]

    def __init__(self, images: Sequence[str], video: Sequence[str], prompt: str) -> None:
        assert not video, "the command line offers no videos"
        self._query = from_list_format([*({"image": path} for path in images), {"text": prompt}])
        self.pictures = [one.path for one in split_at_pictures(self._query) if isinstance(one, ImageSpan)]

    def answer(self, model: Any, processor: Any, config: GenerationConfig) -> Iterator[str]:
        """Pieces of the raw answer, in the format that the checkpoint was trained on: turns, or plain completion."""
        images = processor.image_processor
        yield from pieces(
            model.chat_stream(processor.tokenizer, self._query, generation_config=config, image_processor=images)
        )


def pieces(texts: Iterator[str]) -> Iterator[str]:
    """What each text adds to the one before it, where it adds something."""
    said = ""
    for text in texts:
        if text != said:
            yield text[len(said) :]
        said = text
