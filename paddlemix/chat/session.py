"""A conversation with a model of any family that remembers what was said and shown."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path

import PIL.Image

from paddlemix.contract import ShownSize
from paddlemix.conversation import Image, Part, Text, Turn, Video
from paddlemix.generation.dialogue import Dialogue, Exchange
from paddlemix.media.fetch import is_address
from paddlemix.visualization.answers import answer_boxes, save_drawn

# Families that write paths into the prompt set them between such tags.
_IMAGE_TAG = re.compile("</?img>")


class ChatSession:
    """What was said, which images and videos were shown, and where boxes are drawn.

    Images are numbered over the whole conversation, so that an answer can speak of "Picture 2", and so are videos.
    Images from an address are fetched once, and kept as copies until `close`.

    Args:
        dialogue: asks the model.
        output_dir: for the drawn images.

    Attributes:
        history: questions and raw answers so far.
        images: all shown, in their order.
    """

    history: list[Exchange]
    images: list[PIL.Image.Image]

    def __init__(self, dialogue: Dialogue, output_dir: Path) -> None:
        self._dialogue, self._output_dir = dialogue, output_dir
        self._copies, self._copy_numbers = Path(tempfile.mkdtemp(prefix="paddlemix-chat-")), count(1)
        self._drawn_numbers = count(1)
        self._waiting: list[Image | Video] = []
        self._opened: dict[str, PIL.Image.Image] = {}  # those that wait, by path
        self.history, self.images = [], []

    def show(self, path: str) -> int:
        """Show an image with the next question.

        Args:
            path: a local file or an http(s) address.

        Returns:
            Its number in the conversation.

        Raises:
            ValueError: it cannot be read.
        """
        path, image = self._open(path)
        self._opened[path] = image
        return self._show(Image(path))

    def show_video(self, paths: Sequence[str]) -> int:
        """Show a video with the next question.

        Args:
            paths: a local file or an http(s) address; several are the images of its frames.

        Returns:
            Its number among the videos of the conversation.

        Raises:
            ValueError: it cannot be read, or the model's family reads no videos.
            ImportError: nothing is installed that decodes videos.
        """
        self._dialogue.question([Video(paths[0])])  # which refuses it before it is opened
        video = Video(_local(paths[0]) if len(paths) == 1 else tuple(self._open(path)[0] for path in paths))
        with self._dialogue.processor.open_video(video.path):
            pass
        return self._show(video)

    def ask(self, words: str) -> Iterator[str]:
        """Ask about what was shown, and the images that the words show where a family's words may.

        A turn that does not come to its end, because of an error or because the caller stops listening, is forgotten.

        Args:
            words: any text.

        Yields:
            Pieces of the raw answer.

        Raises:
            ValueError: an image of the words cannot be read, or is not closed.
        """
        question, images = self._question(words)
        self._waiting, self._opened = [], {}
        answer = ""
        for piece in self._dialogue.reply(tuple(self.history), question):
            answer += piece
            yield piece
        self.history.append(Exchange(question, answer))
        self.images += images

    def draw(self) -> list[Path]:
        """Draw the boxes of the last answer.

        Returns:
            The files, one for each image that has boxes.
        """
        if not (self.history and self.images):
            return []
        paths = []
        found = answer_boxes(
            self._dialogue.processor.grounding, self.history[-1].answer, [ShownSize(one.size) for one in self.images]
        )
        for image, boxes in zip(self.images, found, strict=True):
            if boxes:
                paths.append(self._output_dir / f"chat_{next(self._drawn_numbers)}.jpg")
                save_drawn(image, boxes, paths[-1])
        return paths

    def clear(self) -> None:
        """Forget everything that was said and shown; drawn files stay."""
        self.history, self.images, self._waiting, self._opened = [], [], [], {}

    def close(self) -> None:
        """Remove the copies."""
        shutil.rmtree(self._copies, ignore_errors=True)

    def _show(self, part: Image | Video) -> int:
        self._waiting.append(part)
        asked = (one for exchange in self.history for one in exchange.question.parts)
        return sum(isinstance(one, type(part)) for one in (*asked, *self._waiting))

    def _question(self, words: str) -> tuple[Turn, list[PIL.Image.Image]]:
        """Make the question, all of its images in local files, and give these images."""
        parts: list[Part] = []
        images = []
        before = [exchange.question for exchange in self.history]
        for part in self._dialogue.question([*self._waiting, Text(words)], before).parts:
            if isinstance(part, Image):
                known = self._opened.get(part.path)
                path, image = self._open(part.path) if known is None else (part.path, known)
                part = Image(path)
                images.append(image)
            parts.append(part)
        return Turn("user", tuple(parts)), images

    def _open(self, path: str) -> tuple[str, PIL.Image.Image]:
        """Open an image, and say where it can be opened again; what no prompt can name is copied to where one can."""
        path = _local(path)
        image = self._dialogue.processor.open_image(path)
        if not (is_address(path) or _IMAGE_TAG.search(path)):
            return path, image
        copy = self._copies / f"{next(self._copy_numbers)}.png"
        image.save(copy)
        return str(copy), image


def _local(path: str) -> str:
    return path if is_address(path) else os.path.expanduser(path)
