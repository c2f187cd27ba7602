"""Chat templates: a jinja2 text from the checkpoint, rendered in a sandbox, with users' words kept out of its reach.

The template sees a marker in place of every text. What it writes round the markers are control tokens and role names;
what replaces the markers afterwards is plain text, whatever it spells, and is known to be a user's or an assistant's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from jinja2 import Template, TemplateError, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from paddlemix.contract import Piece, Written
from paddlemix.files import write_json
from paddlemix.processors.turns.layout import Laid, OfTurn, Shape, as_json, laid_out, marked, taken_apart
from paddlemix.processors.turns.tool_texts import spelled_out
from paddlemix.processors.turns.written import WrittenTurn

if TYPE_CHECKING:
    from typing_extensions import Self

TEMPLATE_FILE = "chat_template.json"
JINJA_FILE = "chat_template.jinja"  # Read only: newer checkpoints keep the bare text.

# Renderings kept: records of a set share few shapes, and a rendering takes ten times as long as all that follows it.
_KEPT_SHAPES = 1024
# Stands for any words.
_ANY = "\ue000"


class ChatTemplate:
    """A compiled chat template; a family's class says what its checkpoints leave unsaid.

    Args:
        source: jinja2 text, taken from a checkpoint, never from a request; None for the family's own.
        own_tokens: more tokens that are control tokens where a template writes them, but text in all texts.

    Attributes:
        default: the family's own template.
        control_tokens: the tokens of the family that are control tokens where a template writes them.
    """

    default: ClassVar[str]
    control_tokens: ClassVar[tuple[str, ...]]

    def __init__(self, source: str | None = None, own_tokens: tuple[str, ...] = ()) -> None:
        self.source = self.default if source is None else source
        self.own_tokens = own_tokens
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

    def __reduce__(self) -> tuple[type[ChatTemplate], tuple[str, tuple[str, ...]]]:
        # A compiled template cannot be pickled.
        return type(self), (self.source, self.own_tokens)

    def save_pretrained(self, folder: Path) -> None:
        """Write chat_template.json."""
        write_json(folder / TEMPLATE_FILE, {"chat_template": self.source})

    def render(
        self,
        messages: list[dict[str, Any]],
        *,
        tools: Sequence[Any] | None = None,
        add_generation_prompt: bool = False,
        add_vision_id: bool = False,
    ) -> str:
        """Write the prompt's text for messages of roles and contents, as the field has them."""
        return self._compiled.render(
            messages=messages, tools=tools, add_generation_prompt=add_generation_prompt, add_vision_id=add_vision_id
        )

    def pieces(
        self,
        turns: Sequence[WrittenTurn],
        tools: Sequence[str] = (),
        *,
        add_generation_prompt: bool = False,
    ) -> Iterator[Piece]:
        """Put the template's control tokens and text round what is said.

        A template that knows nothing of tools is given them, calls and results in words (`spelled_out`).

        Args:
            turns: each with what a `Grounding` wrote of it.
            tools: the functions that an assistant may call, each an object as JSON text.
            add_generation_prompt: end with the opening of an assistant turn.

        Yields:
            The pieces in their order. What is said and the token that ends it have their turn's weight, calls and what
            the template writes round them included; all else that the template writes, and the tools, have none.

        Raises:
            ValueError: the template does not show the tools and calls as they are.
        """
        turns = [turn.weighed() for turn in turns]
        if not self.knows_tools and (tools or any(turn.calls or turn.role == "tool" for turn in turns)):
            turns, tools = spelled_out(turns, tools, self.default_system), ()
        shape, stretches = taken_apart(turns, tools)
        for laid in self._layout(shape, len(tools), add_generation_prompt):
            if isinstance(laid, Piece):
                yield laid
            elif isinstance(laid, OfTurn):
                yield turns[laid.turn].spoken(laid.piece)
            else:
                yield from stretches[laid]

    def split(self, text: str) -> Iterator[Piece]:
        """Split a rendered text into control tokens and the text between them."""
        return _split(text, _any_of((*self.control_tokens, *self.own_tokens)))

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
            for piece in (
                _split(one.text, _any_of(self.control_tokens)) if isinstance(one, Piece) and not one.control else [one]
            )
        ]

    @cached_property
    def knows_tools(self) -> bool:
        """Whether the template reads a list of tools."""
        parsed = ImmutableSandboxedEnvironment().parse(self.source)
        return any(name.name == "tools" for name in parsed.find_all(nodes.Name))

    @cached_property
    def default_system(self) -> str:
        """What the template lets the system say where a conversation has no such turn; "" where it adds none."""
        user, system = ({"role": role, "content": [{"type": "text", "text": _ANY}]} for role in ("user", "system"))
        without = self.render([user])
        before, _, after = self.render([system, user]).partition(_ANY)
        has_turn = without.startswith(before) and without.endswith(after) and len(without) > len(before) + len(after)
        return without[len(before) : len(without) - len(after)] if has_turn else ""

    def _render_shape(self, shape: Shape, tools: int, add_generation_prompt: bool) -> tuple[Laid, ...]:
        """Lay out any turns of a shape, with so many tools."""
        messages, listed = marked(shape, tools)
        if not tools and not any(turn.calls for turn in shape):
            rendered = self.render(messages, add_generation_prompt=add_generation_prompt)
            return tuple(laid_out(rendered, shape, self.split))
        try:
            rendered = self.render(messages, tools=listed, add_generation_prompt=add_generation_prompt)
            layout = tuple(laid_out(rendered, shape, self.split))
            _check_all_are_there(layout, shape, tools)
        except (TemplateError, TypeError, ValueError) as error:
            raise ValueError(
                f"the checkpoint's chat template does not write tools and calls as they stand: {error}. Put another "
                "`chat_template.jinja` into the model's folder; one that does not read `tools` has Qwen2.5's form."
            ) from error
        return layout

    @cached_property
    def _compiled(self) -> Template:
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        environment.filters["tojson"] = as_json
        return environment.from_string(self.source)


@lru_cache
def _any_of(tokens: tuple[str, ...]) -> re.Pattern[str]:
    """Make a pattern for tokens, of which a longer one goes before its beginning."""
    return re.compile("(" + "|".join(map(re.escape, sorted(tokens, key=len, reverse=True))) + ")")


def _split(text: str, tokens: re.Pattern[str]) -> Iterator[Piece]:
    """Split a text into the tokens that a pattern finds and the text between them."""
    for place, stretch in enumerate(tokens.split(text)):
        if stretch:
            yield Piece(stretch, control=place % 2 == 1)


def _default_of(templates: str | list[dict[str, str]] | None) -> str | None:
    """Choose a checkpoint's only template, or the one called "default" of several."""
    if isinstance(templates, list):
        return {entry["name"]: entry["template"] for entry in templates}.get("default")
    return templates


def _check_all_are_there(layout: Sequence[Laid], shape: Shape, tools: int) -> None:
    """Make sure that a template writes each tool, text and call once."""
    expected = tools + sum(turn.kinds.count("t") + 2 * turn.calls for turn in shape)
    found = sorted(one for one in layout if isinstance(one, int))
    if found != list(range(expected)):
        raise ValueError(f"of {expected} texts, tools and calls' names and arguments it writes {len(set(found))}")
