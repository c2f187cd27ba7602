"""Chat templates: a jinja2 text from the checkpoint, rendered in a sandbox, with users' words kept out of its reach.

The template sees a marker in place of every text. What it writes round the markers are control tokens and role names;
what replaces the markers afterwards is plain text, whatever it spells, and is known to be a user's or an assistant's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property, lru_cache
from itertools import count, groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from jinja2 import Template
from jinja2.sandbox import ImmutableSandboxedEnvironment

from paddlemix.contract import Piece, Written
from paddlemix.conversation import Image, Role, Video
from paddlemix.files import write_json

if TYPE_CHECKING:
    from typing_extensions import Self

TEMPLATE_FILE = "chat_template.json"
JINJA_FILE = "chat_template.jinja"  # Read only: newer checkpoints keep the bare text.

# Characters of a private use area: no template writes them, and texts are put in only after the split.
_MARKER = "\ue000{}\ue001"
_END_MARKER = _MARKER.format("")
_MARKED = re.compile("\ue000(\\d*)\ue001")
# Renderings kept: records of a set share few shapes, and a rendering takes ten times as long as all that follows it.
_KEPT_SHAPES = 1024

WrittenTurn = tuple[Role, Sequence[Written]]
# Of each turn its role, and "i" for each image, "v" for each video and "t" for the pieces between them.
Shape = tuple[tuple[str, str], ...]
_KINDS: dict[type, str] = {Image: "i", Video: "v"}


class ChatTemplate:
    """A compiled chat template; a family's class says what its checkpoints leave unsaid.

    Args:
        source: jinja2 text, taken from a checkpoint, never from a request; None for the family's own.

    Attributes:
        default: the family's own template.
        control_tokens: the tokens of the family that are control tokens where a template writes them.
    """

    default: ClassVar[str]
    control_tokens: ClassVar[tuple[str, ...]]

    def __init__(self, source: str | None = None) -> None:
        self.source = self.default if source is None else source
        self._layout = lru_cache(_KEPT_SHAPES)(self._render_shape)

    @classmethod
    def from_pretrained(cls, folder: Path) -> Self:
        """Read a checkpoint's: chat_template.jinja, .json, tokenizer_config.json, or else the family's own."""
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
        """Write the prompt's text for messages of roles and contents, as the field has them."""
        return self._compiled.render(
            messages=messages, add_generation_prompt=add_generation_prompt, add_vision_id=add_vision_id
        )

    def pieces(
        self,
        turns: Sequence[WrittenTurn],
        *,
        add_generation_prompt: bool = False,
    ) -> Iterator[Piece]:
        """Put the template's control tokens and text round what is said.

        Args:
            turns: each one's role, and what a `Grounding` wrote of it; these pieces reach the result as they are.
            add_generation_prompt: end with the opening of an assistant turn.

        Yields:
            The pieces in their order, the assistant's words and its end token marked as trained.
        """
        shape, spoken = _taken_apart(turns)
        for stretch in self._layout(shape, add_generation_prompt):
            if isinstance(stretch, Piece):
                yield stretch
            else:
                role, pieces = spoken[stretch]
                yield from (_as_trained(piece, role == "assistant") for piece in pieces)

    def split(self, text: str) -> Iterator[Piece]:
        """Split a rendered text into control tokens and the text between them."""
        for place, stretch in enumerate(self._control.split(text)):
            if stretch:
                yield Piece(stretch, control=place % 2 == 1)

    def read_again(self, written: Iterable[Written]) -> list[Written]:
        """Read the control tokens that texts spell as such.

        Args:
            written: what a turn consists of.

        Returns:
            The same with every text split.
        """
        return [
            piece
            for one in written
            for piece in (self.split(one.text) if isinstance(one, Piece) and not one.control else [one])
        ]

    def _render_shape(self, shape: Shape, add_generation_prompt: bool) -> tuple[Piece | int, ...]:
        """Make the template's own pieces, and between them the numbers of the stretches of any turns of this shape."""
        number = count()
        messages = []
        for role, kinds in shape:
            content = [_placeholder(kind, number) for kind in kinds]
            if role == "assistant":
                # Stands behind an assistant's words: the control token that follows it ends the turn.
                content.append({"type": "text", "text": _END_MARKER})
            messages.append({"role": role, "content": content})
        return tuple(self._laid_out(self.render(messages, add_generation_prompt=add_generation_prompt)))

    def _laid_out(self, rendered: str) -> Iterator[Piece | int]:
        """Take a rendering apart; the control token that follows an assistant's words is trained with them."""
        end_is_due = False
        # re.split alternates the template's own text with what a marker holds.
        for place, stretch in enumerate(_MARKED.split(rendered)):
            if place % 2:
                end_is_due = not stretch
                if stretch:
                    yield int(stretch)
                continue
            for piece in self.split(stretch):
                yield _as_trained(piece, end_is_due and piece.control)
                end_is_due = end_is_due and not piece.control

    @cached_property
    def _control(self) -> re.Pattern[str]:
        return re.compile("(" + "|".join(map(re.escape, self.control_tokens)) + ")")

    @cached_property
    def _compiled(self) -> Template:
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
        return environment.from_string(self.source)


def _default_of(templates: str | list[dict[str, str]] | None) -> str | None:
    """Choose a checkpoint's only template, or the one called "default" of several."""
    if isinstance(templates, list):
        return {entry["name"]: entry["template"] for entry in templates}.get("default")
    return templates


def _as_trained(piece: Piece, trained: bool) -> Piece:
    return piece if piece.trained == trained else Piece(piece.text, piece.control, trained, piece.repeat)


def _taken_apart(turns: Sequence[WrittenTurn]) -> tuple[Shape, list[tuple[Role, list[Piece]]]]:
    """Tell apart what the template has to know of turns, and the stretches of pieces that are put in afterwards."""
    shape: list[tuple[str, str]] = []
    spoken: list[tuple[Role, list[Piece]]] = []
    for role, content in turns:
        kinds = ""
        for kind, group in groupby(content, key=_kind):
            same: list[Any] = list(group)
            kinds += kind if kind == "t" else kind * len(same)
            if kind == "t":
                spoken.append((role, same))
        shape.append((role, kinds))
    return tuple(shape), spoken


def _kind(written: Written) -> str:
    return _KINDS.get(type(written), "t")


def _placeholder(kind: str, number: Iterator[int]) -> dict[str, str]:
    """Make a message's part in which a marker stands for words."""
    if kind == "t":
        return {"type": "text", "text": _MARKER.format(next(number))}
    return {"type": "image" if kind == "i" else "video"}
