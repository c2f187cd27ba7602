"""One question to Qwen-VL, put as its users put it: images first, each with its number, a line each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from paddlemix.generation import GenerationConfig
from paddlemix.models.qwen_vl.tags import ImageSpan, from_list_format, split_at_images


class ChatQuestion:
    """A question about images; those that its own words show as `<img>path or address</img>` count too.

    Args:
        images: paths or addresses.
        video: empty; this family reads images only.
        prompt: what is asked.

    Attributes:
        images: the paths or addresses of all images, in their order.

    Raises:
        ValueError: an image's path holds a tag, or an image of the prompt is not closed.
    """

    images: list[str]

    def __init__(self, images: Sequence[str], video: Sequence[str], prompt: str) -> None:
        assert not video, "the command line offers no videos"
        self._query = from_list_format([*({"image": path} for path in images), {"text": prompt}])
        self.images = [one.path for one in split_at_images(self._query) if isinstance(one, ImageSpan)]

    def answer(self, model: Any, processor: Any, config: GenerationConfig) -> Iterator[str]:
        """Pieces of the raw answer, in the format that the checkpoint was trained on: turns, or plain completion."""
        yield from pieces(
            model.chat_stream(
                processor.tokenizer, self._query, generation_config=config, image_processor=processor.image_processor
            )
        )


def pieces(texts: Iterator[str]) -> Iterator[str]:
    """What each text adds to the one before it, where it adds something."""
    said = ""
    for text in texts:
        if text != said:
            yield text[len(said) :]
        said = text
