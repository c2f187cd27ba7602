"""Questions to Qwen-VL, put as its users put them: images first, each with its number, a line each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from paddlemix.conversation import Image, Text, Turn
from paddlemix.generation.dialogue import Dialogue, Exchange
from paddlemix.models.qwen_vl.chat.chat import chat_stream
from paddlemix.models.qwen_vl.processing import QwenVLProcessor
from paddlemix.models.qwen_vl.tags import ImageSpan, from_list_format, split_at_images


class QwenVLDialogue(Dialogue):
    """Asks through `model.chat_stream`: in turns, or in the raw text that a base model completes."""

    @staticmethod
    def question(images: Sequence[str], video: Sequence[str], words: str, *, shown: int = 0) -> Turn:
        """Make a user's turn.

        Args:
            images: paths or addresses.
            video: nothing; this family reads images only.
            words: what is asked; they show images too, as `<img>path or address</img>`.
            shown: how many images were shown before.

        Returns:
            The turn, every image in its place.

        Raises:
            ValueError: there is a video, an image's path holds a tag, or an image of the words is not closed.
        """
        if video:
            raise ValueError(f"the video {video[0]} cannot be shown: Qwen-VL reads images only.")
        query = from_list_format([*({"image": path} for path in images), {"text": words}], shown=shown)
        stretches = split_at_images(query)
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
            generation_config=self._config,
            image_processor=self.processor.image_processor,
        )
        return pieces(texts)


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
