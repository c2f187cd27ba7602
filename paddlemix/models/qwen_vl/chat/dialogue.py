"""Questions to Qwen-VL, put as its users put them: images first, each with its number, a line each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from paddlemix.conversation import Image, Text, Turn, Video
from paddlemix.generation.dialogue import Asked, Dialogue, Exchange
from paddlemix.models.qwen_vl.chat.chat import chat_stream
from paddlemix.models.qwen_vl.processing import QwenVLProcessor
from paddlemix.models.qwen_vl.tags import Element, ImageSpan, from_list_format, split_at_images


class QwenVLDialogue(Dialogue):
    """Asks through `model.chat_stream`: in turns, or in the raw text that a base model completes."""

    @staticmethod
    def question(parts: Sequence[Asked], before: Sequence[Turn] = ()) -> Turn:
        """Make a user's turn.

        Args:
            parts: words and images in their order; words show images too, as `<img>path or address</img>`.
            before: the questions before this one.

        Returns:
            The turn, every image in its place.

        Raises:
            ValueError: there is a video, an image's path holds a tag, or an image of the words is not closed.
        """
        shown = sum(isinstance(part, Image) for turn in before for part in turn.parts)
        stretches = split_at_images(from_list_format(map(_element, parts), shown=shown))
        return Turn("user", tuple(Image(one.path) if isinstance(one, ImageSpan) else Text(one) for one in stretches))

    def reply(self, history: Sequence[Exchange], question: Turn) -> Iterator[str]:
        """Answer a question after others, in the format that the checkpoint was trained on.

        Args:
            history: what was said before, the oldest first.
            question: of `question`.

        Returns:
            Pieces of the raw answer, tags and all, while it is being written; none is empty.
        """
        assert isinstance(self.processor, QwenVLProcessor), "the model's family has one processor"
        texts = chat_stream(
            self._model,
            self.processor.tokenizer,
            query_text(question),
            [(query_text(one.question), one.answer) for one in history],
            system=self._system,
            generation_config=self._config,
            image_processor=self.processor.image_processor,
            image_opening=self.processor.image_opening,
        )
        return pieces(texts)


def _element(part: Asked) -> Element:
    """Write a part of a question in the list format."""
    if isinstance(part, Video):
        named = part.path if isinstance(part.path, str) else part.path[0]
        raise ValueError(f"the video {named} cannot be shown: Qwen-VL reads images only.")
    return {"text": part.text} if isinstance(part, Text) else {"image": part.path}


def query_text(question: Turn) -> str:
    """Write a user's turn as `model.chat` takes it, images as `<img>path</img>`."""
    shown = (part for part in question.parts if isinstance(part, (Text, Image)))
    return "".join(part.text if isinstance(part, Text) else str(ImageSpan(part.path)) for part in shown)


def pieces(texts: Iterator[str]) -> Iterator[str]:
    """Cut growing texts into what each adds to the one before it, where it adds something."""
    said = ""
    for text in texts:
        if text != said:
            yield text[len(said) :]
        said = text
