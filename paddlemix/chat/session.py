"""A conversation with Qwen-VL that remembers what was said and shown."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

from PIL import Image

from paddlemix.media.fetch import is_address
from paddlemix.media.images import open_image
from paddlemix.models.qwen_vl.tags import ImageSpan, split_at_images
from paddlemix.visualization.answers import answer_boxes, save_drawn

History = list[tuple[str, str]]
Reply = Callable[[str, History], Iterator[str]]

_IMAGE_TAG = re.compile("</?img>")


class ChatSession:
    """What was said, which images were shown, and where boxes are drawn.

    Images are numbered over the whole conversation, so that an answer can speak of "Picture 2". Those from an address
    are fetched once, and kept as copies until `close`.

    Args:
        reply: streams the raw answer to a query after a history, tags and all.
        processor: of the model's family, which reads boxes.
        output_dir: for the drawn images.

    Attributes:
        history: queries and raw answers so far.
        images: all shown, in their order.
    """

    history: History
    images: list[Image.Image]

    def __init__(self, reply: Reply, processor: Any, output_dir: Path) -> None:
        self._reply, self._processor, self._output_dir = reply, processor, output_dir
        self._copies, self._copy_numbers = Path(tempfile.mkdtemp(prefix="paddlemix-chat-")), count(1)
        self._drawn_numbers = count(1)
        self._waiting: list[tuple[ImageSpan, Image.Image]] = []
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
        self._waiting.append(self._opened(path))
        return len(self.images) + len(self._waiting)

    def ask(self, question: str) -> Iterator[str]:
        """Ask about the images that were shown, and those that the question shows as `<img>path or address</img>`.

        A turn that does not come to its end, because of an error or because the caller stops listening, is forgotten.

        Args:
            question: any text.

        Yields:
            Pieces of the raw answer.

        Raises:
            ValueError: an image of the question cannot be read, or is not closed.
        """
        text, inline = self._read(question)
        waiting, self._waiting = self._waiting, []
        first = len(self.images) + 1
        shown = "".join(f"Picture {number}: {span}\n" for number, (span, _) in enumerate(waiting, first))
        answer = ""
        for piece in self._reply(shown + text, list(self.history)):
            answer += piece
            yield piece
        self.history.append((shown + text, answer.strip()))
        self.images += [image for _, image in waiting] + inline

    def draw(self) -> list[Path]:
        """Draw the boxes of the last answer; the files, one for each image that has boxes."""
        if not (self.history and self.images):
            return []
        paths = []
        found = answer_boxes(self._processor, self.history[-1][1], self.images)
        for image, boxes in zip(self.images, found, strict=True):
            if boxes:
                paths.append(self._output_dir / f"chat_{next(self._drawn_numbers)}.jpg")
                save_drawn(image, boxes, paths[-1])
        return paths

    def clear(self) -> None:
        """Forget everything that was said and shown; drawn files stay."""
        self.history, self.images, self._waiting = [], [], []

    def close(self) -> None:
        """Remove the copies."""
        shutil.rmtree(self._copies, ignore_errors=True)

    def _read(self, question: str) -> tuple[str, list[Image.Image]]:
        """The question with its images in local files, and these images."""
        text, images = "", []
        for stretch in split_at_images(question):
            if isinstance(stretch, ImageSpan):
                stretch, image = self._opened(stretch.path)
                images.append(image)
            text += str(stretch)
        return text, images

    def _opened(self, path: str) -> tuple[ImageSpan, Image.Image]:
        """An image, and its place in a prompt; what cannot be named there is copied to where it can."""
        path = path if is_address(path) else os.path.expanduser(path)
        image = open_image(path)
        if not (is_address(path) or _IMAGE_TAG.search(path)):
            return ImageSpan(path), image
        copy = self._copies / f"{next(self._copy_numbers)}.png"
        image.save(copy)
        return ImageSpan(str(copy)), image
