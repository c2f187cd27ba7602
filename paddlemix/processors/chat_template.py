"""Chat templates: a jinja2 text from the checkpoint, rendered in a sandbox, with users' words kept out of its reach.

The template sees a marker in place of every text. What it writes round the markers are control tokens and role names;
what replaces the markers afterwards is plain text, whatever it spells, and is known to be a user's or an assistant's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from paddlemix.contract import Piece, Written
from paddlemix.processors.settings import warn_once
from paddlemix.processors.templates.environment import CompiledTemplate, TemplateProblem, is_refusal
from paddlemix.processors.templates.files import (
    DEFAULT,
    NOTHING_STORED,
    StoredTemplates,
    stored_templates,
    write_templates,
)
from paddlemix.processors.turns.layout import Laid, OfTurn, Shape, Stretch, laid_out, marked, taken_apart
from paddlemix.processors.turns.tool_texts import spelled_out
from paddlemix.processors.turns.written import WrittenTurn

if TYPE_CHECKING:
    from typing_extensions import Self

# Renderings kept: records of a set share few shapes, and a rendering takes ten times as long as all that follows it.
_KEPT_SHAPES = 1024
# Stands for any words.
_ANY = "\ue000"
# Which of several templates is for conversations with tools, as transformers chooses.
_OF_TOOLS = "tool_use"
# Stands for a file in messages about a family's own template.
_OWN_PLACE = "the family's own"


class ChatTemplate:
    """A compiled chat template; a family's class says what its checkpoints leave unsaid.

    Args:
        source: jinja2 text, taken from a checkpoint, never from a request; None for the family's own.
        stored: what else the checkpoint says: templates with names, and special tokens that templates may name.
        name: which of the named templates `source` is; None without a choice.
        own_tokens: more tokens that are control tokens where a template writes them.

    Attributes:
        default: the family's own template.
        control_tokens: the tokens of the family that are control tokens where a template writes them.
    """

    default: ClassVar[str]
    control_tokens: ClassVar[tuple[str, ...]]

    def __init__(
        self,
        source: str | None = None,
        stored: StoredTemplates = NOTHING_STORED,
        name: str | None = None,
        own_tokens: tuple[str, ...] = (),
    ) -> None:
        self.source = self.default if source is None else source
        self.stored, self.name, self.own_tokens = stored, name, own_tokens
        self._layout = lru_cache(_KEPT_SHAPES)(self._render_shape)

    @classmethod
    def from_pretrained(cls, folder: Path) -> Self:
        """Read a checkpoint's template, or else the family's own; see `stored_templates`.

        Args:
            folder: of the checkpoint.

        Returns:
            The template.

        Raises:
            ValueError: a file is damaged, or a template no jinja2.
        """
        stored = stored_templates(folder)
        default = stored.named.get(DEFAULT)
        if default is None and stored.named:
            warn_once(
                f"{folder}: of the chat templates {', '.join(sorted(stored.named))} none is called `{DEFAULT}`; the "
                "family's own is used where `chat_template` chooses none."
            )
        template = cls(None if default is None else default.text, stored)
        _ = template._compiled  # what is no jinja2 is refused here
        return template

    def chosen(self, name: str) -> Self:
        """Take another of the checkpoint's templates.

        Args:
            name: of the template.

        Returns:
            The template.

        Raises:
            ValueError: there is none of this name, or it is no jinja2.
        """
        if name not in self.stored.named:
            known = ", ".join(sorted(self.stored.named)) or "the family's own alone"
            raise ValueError(f"`chat_template` is {name!r}; the checkpoint has {known}.")
        template = type(self)(self.stored.named[name].text, self.stored, name, self.own_tokens)
        _ = template._compiled
        return template

    def reading(self, own_tokens: tuple[str, ...]) -> Self:
        """Make the same template, in which more tokens are control tokens where it writes them.

        Args:
            own_tokens: of the checkpoint; what they are in texts, its tokenizer says.

        Returns:
            The template.
        """
        return self if own_tokens == self.own_tokens else type(self)(self.source, self.stored, self.name, own_tokens)

    def __reduce__(self) -> tuple[type[ChatTemplate], tuple[Any, ...]]:
        # A compiled template cannot be pickled.
        return type(self), (self.source, self.stored, self.name, self.own_tokens)

    def save_pretrained(self, folder: Path) -> None:
        """Write the template, and others with names beside it, as releases of transformers read them."""
        others = {name: one for name, one in self.stored.named.items() if name not in (DEFAULT, self.name)}
        write_templates(folder, self.source, {name: one.text for name, one in others.items()})

    def render(
        self,
        messages: list[dict[str, Any]],
        *,
        tools: Sequence[Any] | None = None,
        add_generation_prompt: bool = False,
        add_vision_id: bool = False,
    ) -> str:
        """Write the prompt's text for messages of roles and contents, as the field has them."""
        if tools and self._for_tools is not self:
            return self._for_tools.render(
                messages, tools=tools, add_generation_prompt=add_generation_prompt, add_vision_id=add_vision_id
            )
        return self._compiled.render(
            **self.stored.tokens,
            messages=messages,
            tools=tools,
            add_generation_prompt=add_generation_prompt,
            add_vision_id=add_vision_id,
        )

    def pieces(
        self,
        turns: Sequence[WrittenTurn],
        tools: Sequence[str] = (),
        *,
        add_generation_prompt: bool = False,
    ) -> list[Piece]:
        """Put the template's control tokens and text round what is said.

        A template that knows nothing of tools is given them, calls and results in words (`spelled_out`).

        Args:
            turns: each with what a `Grounding` wrote of it.
            tools: the functions that an assistant may call, each an object as JSON text.
            add_generation_prompt: end with the opening of an assistant turn.

        Returns:
            The pieces in their order. What is said and the token that ends it have their turn's weight, calls and what
            the template writes round them included; all else that the template writes, and the tools, have none.

        Raises:
            ValueError: the template does not show the tools and calls as they are.
        """
        if tools and self._for_tools is not self:
            return self._for_tools.pieces(turns, tools, add_generation_prompt=add_generation_prompt)
        turns = [turn.weighed() for turn in turns]
        if not self.knows_tools and (tools or any(turn.calls or turn.role == "tool" for turn in turns)):
            turns, tools = spelled_out(turns, tools, self.default_system), ()
        shape, stretches = taken_apart(turns, tools)
        pieces: list[Piece] = []
        for laid in self._layout(shape, len(tools), add_generation_prompt):
            if isinstance(laid, Piece):
                pieces.append(laid)
            elif isinstance(laid, OfTurn):
                pieces.append(turns[laid.turn].spoken(laid.piece))
            else:
                pieces += laid.put_in(stretches[laid.number])
        return pieces

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
        return self._compiled.names("tools")

    @cached_property
    def end_of_answer(self) -> str | None:
        """The control token that the template writes behind an answer; None where it writes none, or takes no chat."""
        shape, _ = taken_apart(
            [WrittenTurn("user", [Piece(_ANY)], 0.0), WrittenTurn("assistant", [Piece(_ANY)], 1.0)], ()
        )
        try:
            layout = self._layout(shape, 0, False)
        except TemplateProblem:
            return None
        return next((one.piece.text for one in layout if isinstance(one, OfTurn)), None)

    @cached_property
    def default_system(self) -> str:
        """What the template lets the system say where a conversation has no such turn; "" where it adds none."""
        for any_words in ([{"type": "text", "text": _ANY}], _ANY):
            user, system = ({"role": role, "content": any_words} for role in ("user", "system"))
            try:
                without, whole = self.render([user]), self.render([system, user])
            except TemplateProblem:
                continue
            before, _, after = whole.partition(_ANY)
            frame = len(before) + len(after)
            if without.startswith(before) and without.endswith(after) and len(without) > frame:
                return without[len(before) : len(without) - len(after)]
        return ""

    def _render_shape(self, shape: Shape, tools: int, add_generation_prompt: bool) -> tuple[Laid, ...]:
        """Lay out any turns of a shape, with so many tools; for templates that take no lists, of strings."""
        problems: list[ValueError] = []
        for as_strings in (False, True):
            try:
                return self._laid_out(shape, tools, as_strings=as_strings, add_generation_prompt=add_generation_prompt)
            except ValueError as error:
                problems.append(error)
        # A refusal of the template's own says more than what it does with a form of content that it does not take.
        problem = next((one for one in problems if is_refusal(one)), problems[0])
        if tools or any(turn.calls for turn in shape):
            raise TemplateProblem(
                f"the checkpoint's chat template does not write tools and calls as they stand: {problem} Put another "
                "`chat_template.jinja` into the model's folder; one that does not read `tools` has Qwen2.5's form."
            ) from problem
        raise problem

    def _laid_out(self, shape: Shape, tools: int, *, as_strings: bool, add_generation_prompt: bool) -> tuple[Laid, ...]:
        messages, listed = marked(shape, tools, as_strings=as_strings)
        has_tools = bool(tools) or any(turn.calls for turn in shape)
        rendered = self.render(
            messages, tools=listed if has_tools else None, add_generation_prompt=add_generation_prompt
        )
        layout = tuple(laid_out(rendered, shape, self.split))
        expected = tools + sum(turn.kinds.count("t") + 2 * turn.calls for turn in shape)
        found = [one.number for one in layout if isinstance(one, Stretch)]
        if set(found) != set(range(expected)) or (has_tools and len(found) != expected):
            raise TemplateProblem(
                f"{self._compiled.place}: the chat template loses what is said: of {expected} texts, tools and calls' "
                f"names and arguments it writes {len(set(found))}."
            )
        return layout

    @cached_property
    def _for_tools(self) -> ChatTemplate:
        """The template for conversations with tools: where none was chosen, the checkpoint's own for them."""
        return self.chosen(_OF_TOOLS) if self.name is None and _OF_TOOLS in self.stored.named else self

    @cached_property
    def _compiled(self) -> CompiledTemplate:
        places = [one.place for one in self.stored.named.values() if one.text == self.source]
        return CompiledTemplate(self.source, places[0] if places else _OWN_PLACE)


@lru_cache
def _any_of(tokens: tuple[str, ...]) -> re.Pattern[str]:
    """Make a pattern for tokens, of which a longer one goes before its beginning."""
    return re.compile("(" + "|".join(map(re.escape, sorted(tokens, key=len, reverse=True))) + ")")


def _split(text: str, tokens: re.Pattern[str]) -> Iterator[Piece]:
    """Split a text into the tokens that a pattern finds and the text between them."""
    for place, stretch in enumerate(tokens.split(text)):
        if stretch:
            yield Piece(stretch, control=place % 2 == 1)
