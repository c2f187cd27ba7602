"""The settings of answers as flags of a command line, made from `GenerationConfig`."""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from typing import Any, get_type_hints

from paddlemix.generation import GenerationConfig
from paddlemix.generation.settings import problem_with
from paddlemix.names import GENERATION_FILE

DO_SAMPLE = "do_sample"
_SETTINGS = tuple(field.name for field in fields(GenerationConfig))
_EXAMPLE = "such as: --do_sample true --temperature 0.7 --top_p 0.9 --max_new_tokens 256 --stop_strings END"
_TRUTHS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def add_generation_flags(
    parser: argparse.ArgumentParser,
    *,
    otherwise: str,
    defaults: Mapping[str, Any] | None = None,
    left_out: Collection[str] = (),
) -> None:
    """Add a flag for each setting of answers.

    Args:
        parser: of the command line.
        otherwise: what holds where no flag is given, as --help says it.
        defaults: settings that are given where the command line gives none.
        left_out: settings that get no flag.
    """
    defaults, said = defaults or {}, _descriptions()
    group = parser.add_argument_group("how answers are written", f"{otherwise}; {_EXAMPLE}")
    group.add_argument(
        f"--{DO_SAMPLE}",
        type=parse_bool,
        metavar="{true,false}",
        help="false takes the likeliest token whatever the temperature; true draws, at temperature 1 among the 50 "
        "likeliest where nothing else is said",
    )
    for name in (name for name in _SETTINGS if name not in left_out):
        parse, metavar, shape = _READINGS[_HINTS[name]]
        default = f" (default: {defaults[name]})" if name in defaults else ""
        group.add_argument(
            f"--{name}",
            type=_checked(name, parse, is_list=bool(shape)),
            metavar=metavar,
            default=defaults.get(name),
            help=f"{said[name]}{default}".replace("%", "%%"),
            **shape,
        )


def generation_settings(args: argparse.Namespace) -> dict[str, Any]:
    """Gather what the flags of `add_generation_flags` give.

    Args:
        args: the command line.

    Returns:
        Settings and `do_sample` by name; None is not given.
    """
    return {name: getattr(args, name, None) for name in (DO_SAMPLE, *_SETTINGS)}


@contextmanager
def errors_name_flags() -> Iterator[None]:
    """Let errors of settings that do not go together name flags; what a checkpoint's file says stays as it is.

    Raises:
        ValueError: they do not.
    """
    try:
        yield
    except ValueError as error:
        if GENERATION_FILE in str(error):
            raise
        flags = "|".join((DO_SAMPLE, *_SETTINGS))
        raise ValueError(re.sub(f"`({flags})`", r"--\1", str(error))) from error


def parse_bool(text: str) -> bool:
    """Parse True or False as a command line spells it.

    Args:
        text: of the command line.

    Returns:
        The truth.

    Raises:
        ArgumentTypeError: it is neither.
    """
    if text.lower() not in _TRUTHS:
        raise argparse.ArgumentTypeError(f"{text!r} is neither True nor False")
    return _TRUTHS[text.lower()]


def _descriptions() -> dict[str, str]:
    """Read what each setting does from the docstring that describes them."""
    _, _, listed = (inspect.getdoc(GenerationConfig) or "").partition("Attributes:\n")
    found = re.findall(r"^ {4}(\w+): (.+?)(?=^ {4}\w|\Z)", listed, re.MULTILINE | re.DOTALL)
    return {**dict.fromkeys(_SETTINGS, ""), **{name: " ".join(text.split()).rstrip(".") for name, text in found}}


def _checked(name: str, parse: Callable[[str], Any], *, is_list: bool) -> Callable[[str], Any]:
    """Make what parses a setting, or an element of its list, and refuses a value that is out of range."""

    def read(text: str) -> Any:
        try:
            value = parse(text)
        except ValueError:
            value = text
        expected = problem_with(name, [value] if is_list else value)
        if expected is not None:
            raise argparse.ArgumentTypeError(f"{text!r}; expected {expected}")
        return value

    return read


def _early_stopping(text: str) -> bool | str:
    return _TRUTHS.get(text.lower(), text)


def _sequence(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


_LIST: dict[str, Any] = {"nargs": "*"}
# By the type of a setting, what parses a word of the command line, what --help calls it, and how many words there are.
_READINGS: dict[Any, tuple[Callable[[str], Any], str, dict[str, Any]]] = {
    int: (int, "N", {}),
    float: (float, "X", {}),
    bool | str: (_early_stopping, "{true,false,never}", {}),
}
_HINTS = get_type_hints(GenerationConfig)
_READINGS |= {
    _HINTS["eos_token_ids"]: (int, "ID", _LIST),
    _HINTS["stop_token_ids"]: (int, "ID", _LIST),
    _HINTS["stop_strings"]: (str, "TEXT", _LIST),
    _HINTS["stop_words_ids"]: (_sequence, "ID,ID", _LIST),
}
