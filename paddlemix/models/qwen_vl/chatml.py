"""ChatML as Qwen-VL was trained on it, in ids and in text.

`<|im_start|>`, the role, a line end, what is said, `<|im_end|>`, a line end. Role, line ends and words are encoded
apart from one another, so that a word's tokens do not depend on where it stands.
"""

from __future__ import annotations

from typing import Any

from paddlemix.models.qwen_vl.tags import ImageSpan
from paddlemix.models.qwen_vl.tokenizer import IM_END, IM_START, QwenTokenizer
from paddlemix.processors.calls import Messages

DEFAULT_SYSTEM = "You are a helpful assistant."


class ChatMLIds:
    """Turns in ids.

    Args:
        tokenizer: encodes roles and line ends.

    Attributes:
        newline: the ids of a line end.
    """

    newline: list[int]

    def __init__(self, tokenizer: QwenTokenizer) -> None:
        self._tokenizer = tokenizer
        self.newline = tokenizer.encode("\n")

    def opening(self, role: str) -> list[int]:
        """Return the ids that stand before a turn's words."""
        return [self._tokenizer.im_start_id, *self._tokenizer.encode(role), *self.newline]

    def turn(self, role: str, content: list[int]) -> list[int]:
        """Return the ids of a turn up to its end token, without the line end behind it."""
        return [*self.opening(role), *content, self._tokenizer.im_end_id]


class ChatMLText:
    """Messages in text, images as `<img>path</img>`."""

    def render(self, messages: Messages, *, add_generation_prompt: bool = False, add_vision_id: bool = False) -> str:
        """Write the prompt's text.

        Args:
            messages: of roles and contents, as the field writes them.
            add_generation_prompt: end with the opening of an assistant's turn.
            add_vision_id: number the images and set a line end behind them, as `from_list_format` does.

        Returns:
            The text, with the default system turn where the messages have none of their own.

        Raises:
            ValueError: a message shows something that is neither text nor an image.
        """
        system = [] if messages and messages[0]["role"] == "system" else [("system", DEFAULT_SYSTEM)]
        said, images = list(system), 0
        for message in messages:
            content, images = _content(message["content"], images, add_vision_id)
            said.append((message["role"], content))
        text = "".join(f"{text_opening(role)}{content}{IM_END}\n" for role, content in said)
        return text + (text_opening("assistant") if add_generation_prompt else "")


def text_opening(role: str) -> str:
    """Return what stands before a turn's words, as text."""
    return f"{IM_START}{role}\n"


def _content(content: str | list[dict[str, Any]], images: int, numbered: bool) -> tuple[str, int]:
    """Write a message's text, and count the images shown up to its end."""
    if isinstance(content, str):
        return content, images
    text = ""
    for part in content:
        if part.get("type") == "image" or "image" in part or "image_url" in part:
            images += 1
            span = str(ImageSpan(_name(part)))
            text += f"Picture {images}: {span}\n" if numbered else span
        elif "text" in part:
            text += part["text"]
        else:
            raise ValueError(f"a message shows {part.get('type', part)!r}; this model reads texts and images only.")
    return text, images


def _name(part: dict[str, Any]) -> str:
    """Find an image's path or address; "" where it has none of its own."""
    values = (part[key] for key in ("image", "image_url", "path", "url") if part.get(key) is not None)
    value = next(values, "")
    value = value["url"] if isinstance(value, dict) else value
    return value if isinstance(value, str) else ""
