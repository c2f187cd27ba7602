"""Chat templates: a jinja2 text from the checkpoint, rendered in a sandbox, with users' words kept out of its reach.

The template sees a marker in place of every text. What it writes round the markers are control tokens and role names;
what replaces the markers afterwards is plain text, whatever it spells, and is known to be a user's or an assistant's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from jinja2 import Template
from jinja2.sandbox import ImmutableSandboxedEnvironment

from paddlemix.conversation import Conversation, Part, Picture, Text, Turn, Video
from paddlemix.files import write_json
from paddlemix.processors.text import CONTROL_TOKENS, Piece

# The published behaviour: a default system turn, vision blocks with optional numbers, ChatML round every turn.
QWEN2_VL_TEMPLATE = (
    "{% set count = namespace(image=0, video=0) %}"
    "{% for message in messages %}"
    "{% if loop.first and message.role != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "{% endif %}"
    "<|im_start|>{{ message.role }}\n"
    "{% if message.content is string %}{{ message.content }}{% else %}"
    "{% for part in message.content %}"
    "{% if part.type == 'image' or 'image' in part or 'image_url' in part %}"
    "{% set count.image = count.image + 1 %}"
    "{% if add_vision_id %}Picture {{ count.image }}: {% endif %}"
    "<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part.type == 'video' or 'video' in part %}"
    "{% set count.video = count.video + 1 %}"
    "{% if add_vision_id %}Video {{ count.video }}: {% endif %}"
    "<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif 'text' in part %}{{ part.text }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEMPLATE_FILE = "chat_template.json"
JINJA_FILE = "chat_template.jinja"  # Read only: newer checkpoints keep the bare text.

_CONTROL = re.compile("(" + "|".join(re.escape(token) for token in CONTROL_TOKENS) + ")")
# Characters of a private use area: no template writes them, and texts are put in only after the split.
_MARKER = "\ue000{}\ue001"
_MARKED = re.compile("\ue000(\\d+)\ue001")
# Stands behind an assistant's words: the control token that follows it ends the turn.
_END = Text("")


class ChatTemplate:
    """A compiled chat template.

    Args:
        source: jinja2 text, taken from a checkpoint, never from a request.
    """

    def __init__(self, source: str = QWEN2_VL_TEMPLATE) -> None:
        self.source = source

    @classmethod
    def from_pretrained(cls, folder: Path) -> ChatTemplate:
        """The template of a checkpoint: chat_template.jinja, .json, tokenizer_config.json, or else Qwen2-VL's."""
        if (folder / JINJA_FILE).is_file():
            return cls((folder / JINJA_FILE).read_text("utf-8"))
        for name in (TEMPLATE_FILE, "tokenizer_config.json"):
            path = folder / name
            source = _default_of(json.loads(path.read_text("utf-8")).get("chat_template")) if path.is_file() else None
            if source:
                return cls(source)
        return cls()

    def __reduce__(self) -> tuple[type[ChatTemplate], tuple[str]]:
        # A compiled template cannot be pickled.
        return type(self), (self.source,)

    def save_pretrained(self, folder: Path) -> None:
        """Write chat_template.json."""
        write_json(folder / TEMPLATE_FILE, {"chat_template": self.source})

    def render(
        self, messages: list[dict[str, Any]], *, add_generation_prompt: bool = False, add_vision_id: bool = False
    ) -> str:
        """The prompt's text for messages of roles and contents, as the field writes them."""
        return self._compiled.render(
            messages=messages, add_generation_prompt=add_generation_prompt, add_vision_id=add_vision_id
        )

    def pieces(
        self,
        conversation: Conversation,
        part_pieces: Callable[[Part], Iterator[Piece]],
        *,
        add_generation_prompt: bool = False,
    ) -> Iterator[Piece]:
        """The conversation as control tokens and plain text, the assistant's words and its end token marked as trained.

        Args:
            conversation: its texts reach the result as plain text.
            part_pieces: how the model family writes a text, a reference or a box.
            add_generation_prompt: end with the opening of an assistant turn.

        Yields:
            The pieces in their order.
        """
        contents: list[tuple[Turn, Part]] = []
        messages = [self._message(turn, contents) for turn in conversation.turns]
        rendered = self.render(messages, add_generation_prompt=add_generation_prompt)
        end_is_due = False
        # re.split alternates the template's own text with the number of a marker.
        for place, stretch in enumerate(_MARKED.split(rendered)):
            if place % 2:
                turn, part = contents[int(stretch)]
                end_is_due = part is _END
                yield from (_as_trained(piece, turn.role == "assistant") for piece in part_pieces(part))
            else:
                for piece in template_pieces(stretch):
                    yield _as_trained(piece, end_is_due and piece.control)
                    end_is_due = end_is_due and not piece.control

    @cached_property
    def _compiled(self) -> Template:
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
        return environment.from_string(self.source)

    @staticmethod
    def _message(turn: Turn, contents: list[tuple[Turn, Part]]) -> dict[str, Any]:
        """A template's message in which markers stand for the words; the words join `contents`."""
        message: dict[str, Any] = {"role": turn.role, "content": []}
        for part in (*turn.parts, _END) if turn.role == "assistant" else turn.parts:
            if isinstance(part, (Picture, Video)):
                message["content"].append({"type": "image" if isinstance(part, Picture) else "video"})
            else:
                message["content"].append({"type": "text", "text": _MARKER.format(len(contents))})
                contents.append((turn, part))
        return message


def template_pieces(text: str) -> Iterator[Piece]:
    """Split a template's own text into control tokens and the text between them."""
    for place, stretch in enumerate(_CONTROL.split(text)):
        if stretch:
            yield Piece(stretch, control=place % 2 == 1)


def _default_of(templates: str | list[dict[str, str]] | None) -> str | None:
    """A checkpoint's only template, or the one called "default" of several."""
    if isinstance(templates, list):
        return {entry["name"]: entry["template"] for entry in templates}.get("default")
    return templates


def _as_trained(piece: Piece, trained: bool) -> Piece:
    return Piece(piece.text, piece.control, trained, piece.repeat)
