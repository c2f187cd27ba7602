"""A config file in YAML."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NoReturn, get_args, get_origin

import yaml
from pydantic.fields import FieldInfo

from paddlemix.configuration.keys import items, kinds, members
from paddlemix.configuration.problems import ConfigError, Place, Problem
from paddlemix.configuration.reading.strict_json import (
    MAX_DEPTH,
    KeyPath,
    ParsedObject,
    path_name,
    repeated_keys,
    without_nulls,
)
from paddlemix.configuration.reading.text import read_text, required_object
from paddlemix.configuration.reading.yaml_words import meaning

_UNKNOWN = FieldInfo(annotation=Any)
_PLAIN_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str", "map", "seq", "merge")}
# Anchors that stand for anchors multiply, and each value takes 50 microseconds to read; the longest config that a
# person writes has some hundred.
_MAX_VALUES = 20_000


_TOO_MUCH = f"is nested more than {MAX_DEPTH} levels deep, or holds more than {_MAX_VALUES} values"


class YamlFile:
    """The keys of a YAML file.

    Args:
        path: the file.
        known: the keys that may stand in it, by whose types its plain scalars are read.

    Raises:
        ConfigError: it cannot be read, is not YAML, does not hold a mapping, or uses more of YAML than a config needs.
    """

    def __init__(self, path: str, known: Mapping[str, FieldInfo]) -> None:
        self.path = path
        self._lines: dict[KeyPath, int] = {}
        self.problems: list[Problem] = []
        self._left = _MAX_VALUES
        root = _compose(read_text(path), path)
        if root is None:
            raise ConfigError([Problem(Place(path, 1), "is empty; expected lines such as `seed: 1`.")])
        document = self._read(root, known, ())
        document = required_object(document, path, "lines such as `seed: 1`")
        self.problems += [
            Problem(self.place(where), f"`{path_name(where)}` is given {times} times; keep one of them.")
            for where, times in repeated_keys(document)
        ]
        self.values = without_nulls(document)

    def place(self, path: KeyPath) -> Place:
        """Tell the line of the key or list item at `path`, or of what is around it."""
        for length in range(len(path), 0, -1):
            if (line := self._lines.get(path[:length])) is not None:
                return Place(self.path, line)
        return Place(self.path)

    def _read(self, node: yaml.Node, known: Mapping[str, FieldInfo] | FieldInfo, path: KeyPath) -> Any:
        """Read a value.

        Args:
            node: the value.
            known: what is expected in its place, or which keys it may have.
            path: to it.

        Returns:
            What it holds.

        Raises:
            ConfigError: nothing that a config needs is written so.
        """
        self._left -= 1
        if self._left < 0 or len(path) > MAX_DEPTH:
            self._refuse(node, _TOO_MUCH)
        if node.tag not in _PLAIN_TAGS:
            self._refuse(node, f"has a value of the type `{node.tag.removeprefix('tag:yaml.org,2002:')}`")
        if isinstance(node, yaml.MappingNode):
            return self._read_mapping(node, known, path)
        if isinstance(node, yaml.SequenceNode):
            item = items(known) if isinstance(known, FieldInfo) else _UNKNOWN
            return [self._read_at(child, child, item, (*path, index)) for index, child in enumerate(node.value)]
        return self._read_scalar(node, known if isinstance(known, FieldInfo) else _UNKNOWN, path)

    def _read_mapping(
        self, node: yaml.MappingNode, known: Mapping[str, FieldInfo] | FieldInfo, path: KeyPath
    ) -> ParsedObject:
        return ParsedObject(
            [
                (name.value, self._read_at(name, value, _member(known, name.value), (*path, name.value)))
                for name, value in self._pairs(node)
            ]
        )

    def _read_at(self, mark: yaml.Node, node: yaml.Node, key: FieldInfo, path: KeyPath) -> Any:
        self._lines[path] = mark.start_mark.line + 1
        return self._read(node, key, path)

    def _read_scalar(self, node: yaml.Node, key: FieldInfo, path: KeyPath) -> Any:
        if node.style is not None and node.tag.endswith(":str"):
            return node.value
        try:
            return meaning(node.value, key)
        except ValueError as error:
            self.problems.append(Problem(self.place(path), f"`{path_name(path)}` is {error}"))
            return None

    def _pairs(self, node: yaml.MappingNode, depth: int = 0) -> Iterator[tuple[yaml.Node, yaml.Node]]:
        """Give a mapping's keys and values; first those that it takes over by `<<` and does not give itself."""
        if depth > MAX_DEPTH:
            self._refuse(node, "takes over itself by `<<`")
        own: list[tuple[yaml.Node, yaml.Node]] = []
        taken: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        for name, value in node.value:
            if not isinstance(name, yaml.ScalarNode):
                self._refuse(name, "has a key that is a list or a mapping")
            if name.style is not None or name.value != "<<":
                own.append((name, value))
                continue
            for other in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                if not isinstance(other, yaml.MappingNode):
                    self._refuse(value, "takes over by `<<` what is no mapping")
                for pair in self._pairs(other, depth + 1):
                    self._left -= 1  # what is taken over from what takes over multiplies as well
                    if self._left < 0:
                        self._refuse(node, _TOO_MUCH)
                    taken.setdefault(pair[0].value, pair)
        given = {name.value for name, _ in own}
        yield from (pair for key, pair in taken.items() if key not in given)
        yield from own

    def _refuse(self, node: yaml.Node, text: str) -> NoReturn:
        raise _refusal(self.path, node.start_mark.line + 1, text)


def _refusal(path: str, line: int, text: str) -> ConfigError:
    return ConfigError(
        [Problem(Place(path, line), f"{text}. Expected plain keys with texts, numbers, true, false and lists.")]
    )


def _member(known: Mapping[str, FieldInfo] | FieldInfo, name: str) -> FieldInfo:
    """Tell what is expected of a key of a mapping."""
    if not isinstance(known, FieldInfo):
        return known.get(name, _UNKNOWN)
    free = [get_args(kind)[1] for kind in kinds(known.annotation) if get_origin(kind) is dict]
    return members(known).get(name) or FieldInfo(annotation=free[0] if free else Any)


class _TooMuchError(Exception):
    """More values than a config has, or one in more others.

    Args:
        line: where.
    """

    def __init__(self, line: int) -> None:
        super().__init__()
        self.line = line


class _BoundedLoader(yaml.BaseLoader):
    """Gives up once a text has more values than a config, before the rest of it is looked at.

    Args:
        text: YAML.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        # A key counts as a value here.
        self._left, self._depth = 2 * _MAX_VALUES, 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Make a value, or a key, and all that stands in it."""
        self._left, self._depth = self._left - 1, self._depth + 1
        if self._left < 0 or self._depth > MAX_DEPTH + 1:
            raise _TooMuchError(self.line + 1)
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1


def _compose(text: str, path: str) -> yaml.Node | None:
    """Parse a text; its scalars are not read yet."""
    try:
        return yaml.compose(text, Loader=_BoundedLoader)
    except _TooMuchError as error:
        raise _refusal(path, error.line, _TOO_MUCH) from None
    except yaml.reader.ReaderError as error:
        line = text[: error.position].count("\n") + 1
        problem = f"not valid YAML: it holds a control character (U+{ord(text[error.position]):04X}). Take it out."
        raise ConfigError([Problem(Place(path, line), problem)]) from None
    except yaml.MarkedYAMLError as error:
        raise ConfigError([_syntax_problem(error, path)]) from None
    except RecursionError:
        problem = f"the YAML is nested more than {MAX_DEPTH} levels deep. Expected plain keys."
        raise ConfigError([Problem(Place(path), problem)]) from None


def _syntax_problem(error: yaml.MarkedYAMLError, path: str) -> Problem:
    said = f"{error.context or ''} {error.problem or ''}"
    # What is never closed is found at the end of the file; where it begins says more.
    is_open = error.context_mark and ("end of stream" in said or "stream end" in said)
    mark = error.context_mark if is_open else error.problem_mark or error.context_mark
    advice = next((advice for words, advice in _ADVICE if words in said), "Look at indentation, quotes and brackets.")
    text = f"not valid YAML at column {mark.column + 1}: {error.problem}. {advice}"
    return Problem(Place(path, mark.line + 1), text)


_QUOTES = "Put quotes around a text that begins with one of * & ! % @ ` [ {, or that holds a colon and a space."
_ADVICE = (
    ("end of stream", "A quote that begins here is not closed."),
    ("stream end", "A bracket that begins here is not closed."),
    ("alias", 'A text that begins with * stands in quotes, such as "*visual*".'),
    ("anchor", "A text that begins with & stands in quotes."),
    ("tag", "A text that begins with ! stands in quotes."),
    ("'\\t'", "Indent by spaces, not by tabs."),
    (
        "mapping values are not allowed",
        "A text that holds a colon and a space, or ends with a colon, stands in quotes; keys of one level are indented "
        "alike.",
    ),
    ("could not find expected ':'", "A colon and a space stand behind a key."),
    ("but found another document", "Keep one document; take out the lines `---` between them."),
    ("cannot start any token", _QUOTES),
)
