"""The jinja2 that chat templates are written for: what transformers lets them use, in a sandbox with a budget."""

from __future__ import annotations

import traceback
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import Template, TemplateError, TemplateSyntaxError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser

from paddlemix.processors.templates.budget import begin, budget
from paddlemix.processors.templates.sandbox import MAX_SOURCE, BudgetedSandbox
from paddlemix.processors.turns.layout import as_json

# What a template can end with, its own budget and Python's depth among them.
_STOPS = (
    TemplateError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
)
# Characters of an error that are shown.
_LONGEST_SAID = 500
# What Python writes for one character of a date's form at most.
_LONGEST_DATE = 256


class TemplateProblem(ValueError):
    """A chat template cannot be read, or refuses or loses what it is given; the message names its file and line."""


class CompiledTemplate:
    """A template that says in one sentence what is wrong with it; `place` is where it is from.

    Args:
        source: jinja2 text.
        place: the file it is from, for messages.

    Raises:
        TemplateProblem: it is no jinja2.
    """

    def __init__(self, source: str, place: str) -> None:
        self.place = place
        self._environment = _environment()
        if len(source) > MAX_SOURCE:
            raise TemplateProblem(
                f"{self._at(1)}: the chat template has {len(source)} characters; expected at most {MAX_SOURCE}."
            )
        try:
            counted = self._environment.parse_counted(source)
            self._parsed = self._environment.parse(source)
            code = self._environment.compile(counted, filename=place)
        except TemplateSyntaxError as error:
            said = _shortened(error.message or "it cannot be read")
            raise TemplateProblem(f"{self._at(error.lineno)}: the chat template is no jinja2: {said}.") from error
        except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError) as error:
            said = _shortened(str(error) or type(error).__name__)
            raise TemplateProblem(f"{self._at(1)}: the chat template is nested too deep ({said}).") from error
        self._template = Template.from_code(self._environment, code, self._environment.make_globals(None))

    def render(self, **variables: Any) -> str:
        """Write a text.

        Args:
            **variables: what the template can name.

        Returns:
            The text.

        Raises:
            TemplateProblem: the template stops, on purpose or not, or does more than a template may.
        """
        begin(variables)
        try:
            return self._template.render(**variables)
        except _STOPS as error:
            frames = traceback.extract_tb(error.__traceback__)
            lines = [frame.lineno for frame in frames if frame.filename == self.place and frame.lineno]
            said = _shortened(str(error) or type(error).__name__)
            raise TemplateProblem(f"{self._at(lines[-1] if lines else 1)}: the chat template stops: {said}.") from error

    def names(self, variable: str) -> bool:
        """Tell whether the template reads a variable."""
        return any(name.name == variable for name in self._parsed.find_all(nodes.Name))

    def _at(self, line: int) -> str:
        """Name a line of the template, which is one of the file where that holds nothing else."""
        return f"{self.place}:{line}" if self.place.endswith(".jinja") else f"{self.place}, line {line} of the template"


def _reason(error: BaseException) -> str:
    return str(error).rstrip(".") or type(error).__name__


def is_refusal(error: ValueError) -> bool:
    """Tell whether a template stopped on purpose, by `raise_exception`."""
    return type(error.__cause__) is TemplateError


class GenerationBlocks(Extension):
    """`{% generation %}`, in which templates put what the assistant says; here it writes what is in it.

    transformers finds the trained tokens by it, we by what stands in place of the assistant's words.
    """

    tags = {"generation"}  # noqa: RUF012 - jinja2 declares it so

    def parse(self, parser: Parser) -> nodes.Node:
        """Read a block up to its end."""
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


def _environment() -> BudgetedSandbox:
    environment = BudgetedSandbox(
        trim_blocks=True, lstrip_blocks=True, extensions=[GenerationBlocks, "jinja2.ext.loopcontrols"]
    )
    environment.add_filter("tojson", as_json)
    environment.globals |= {"raise_exception": _raise_exception, "strftime_now": _strftime_now}
    return environment


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(message)


def _strftime_now(form: str) -> str:
    budget().spend(_LONGEST_DATE * len(form))
    return datetime.now().strftime(form)


def _shortened(said: str) -> str:
    """Write what an error says on one line, without what a template put into it to fill a screen."""
    said = " ".join(said.split())
    return (said if len(said) <= _LONGEST_SAID else f"{said[:_LONGEST_SAID]}...").rstrip(".")
