"""What a chat with Qwen-VL hands to the model: the conversation so far in ids, and the images that it shows.

Whose word is whose decides what a text may do:

- The query, the queries of the history and the system text are the caller's. `<img>path</img>` in them shows an image,
  and `<ref>` and `<box>` are tags; ChatML's own tokens are text, so that a quoted `<|im_end|>` ends nothing. Whoever
  passes on texts of strangers takes `<img>` out of them first, or they choose what is opened.
- The answers of the history are the model's. `<ref>` and `<box>` are tags; `<img>` is text and opens nothing, whatever
  the model was led to say. The original reads images there too.
- In the format "raw", which base models complete, the query is the caller's whole prompt, and every special token
  counts.
"""

from __future__ import annotations

from dataclasses import dataclass

from paddlemix.models.qwen_vl.chatml import ChatMLIds, text_opening
from paddlemix.models.qwen_vl.tags import GROUNDING_TAGS, IMG_END, History, ImageSpan, split_at_images
from paddlemix.models.qwen_vl.tokenizer import IM_END, AllowedSpecial, QwenTokenizer

MAX_WINDOW_SIZE = 6144
CHAT_FORMATS = ("chatml", "raw")


@dataclass(frozen=True)
class ChatContext:
    """A prompt, or a stretch of one.

    Attributes:
        ids: the tokens.
        text: the same as text.
        images: paths and addresses in the order of the ids' spans.
    """

    ids: tuple[int, ...] = ()
    text: str = ""
    images: tuple[str, ...] = ()

    def __add__(self, other: ChatContext) -> ChatContext:
        return ChatContext(self.ids + other.ids, self.text + other.text, self.images + other.images)


def make_context(
    tokenizer: QwenTokenizer,
    query: str,
    history: History | None = None,
    *,
    system: str = "",
    max_window_size: int = MAX_WINDOW_SIZE,
    chat_format: str = "chatml",
) -> ChatContext:
    """Put a prompt together.

    Args:
        tokenizer: of the model.
        query: what the user says now.
        history: queries and answers, the oldest first; an answer may be missing.
        system: stands before everything.
        max_window_size: the system text and the history stay below so many tokens; the newest turns are kept, up to
            the first that does not fit.
        chat_format: "chatml", or "raw" for the query alone.

    Returns:
        The prompt, with the images of the turns that were kept.

    Raises:
        ValueError: an image is not closed or not opened, or there is no such format.
    """
    if chat_format == "raw":
        return _callers_words(tokenizer, query, "all")
    if chat_format != "chatml":
        raise ValueError(f"`chat_format` is {chat_format!r}; expected one of {', '.join(CHAT_FORMATS)}.")
    turns = _Turns(tokenizer)
    opening, window = turns.by_caller("system", system), ChatContext()
    for asked, answered in reversed(history or ()):
        exchange = turns.exchange(asked, answered)
        if len(opening.ids) + len(exchange.ids) + len(window.ids) >= max_window_size:
            break
        window = exchange + window
    return opening + window + turns.newline + turns.by_caller("user", query) + turns.newline + turns.answer_opening


class _Turns:
    """The pieces of a ChatML prompt; a line end stands between two turns."""

    def __init__(self, tokenizer: QwenTokenizer) -> None:
        self._tokenizer, self._chatml = tokenizer, ChatMLIds(tokenizer)
        self.newline = ChatContext(tuple(self._chatml.newline), "\n")
        self.answer_opening = ChatContext(tuple(self._chatml.opening("assistant")), text_opening("assistant"))

    def exchange(self, asked: str, answered: str | None) -> ChatContext:
        """Write a line end, a query, a line end, and the answer where there is one."""
        query = self.newline + self.by_caller("user", asked) + self.newline
        if answered is None:
            return query
        ids = self._tokenizer.encode(answered, allowed_special=GROUNDING_TAGS)
        return query + self._turn("assistant", ChatContext(tuple(ids), answered))

    def by_caller(self, role: str, words: str) -> ChatContext:
        """Write a turn of the caller's words."""
        return self._turn(role, _callers_words(self._tokenizer, words, QwenTokenizer.IMAGE_ST))

    def _turn(self, role: str, content: ChatContext) -> ChatContext:
        ids = tuple(self._chatml.turn(role, list(content.ids)))
        return ChatContext(ids, f"{text_opening(role)}{content.text}{IM_END}", content.images)


def _callers_words(tokenizer: QwenTokenizer, words: str, allowed_special: AllowedSpecial) -> ChatContext:
    ids = tokenizer.encode(words, allowed_special=allowed_special)
    images = tuple(span.path for span in split_at_images(words) if isinstance(span, ImageSpan))
    if ids.count(tokenizer.img_end_id) != len(images):
        raise ValueError(f"`{IMG_END}` closes no image in {words[:80]!r}; expected `<img>path{IMG_END}`.")
    return ChatContext(tuple(ids), words, images)
