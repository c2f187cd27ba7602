"""The table of all known keys, ours and PaddleNLP's, and words for what each of them expects."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping
from difflib import get_close_matches
from enum import Enum
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter
from pydantic_core import PydanticUndefined

from paddlemix.configuration.arguments import DataArguments, ModelArguments, TrainingKeys

_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a string"}
_PLURALS = {bool: "true or false", int: "whole numbers", float: "numbers", str: "strings"}
_LIMIT_WORDS = {
    "gt": "more than {}",
    "ge": "at least {}",
    "lt": "less than {}",
    "le": "at most {}",
    "min_length": "not empty",
}


@dataclasses.dataclass(frozen=True)
class Key:
    """What a config key accepts.

    Attributes:
        annotation: its type; None in a union stands for "the default" only.
        limits: pydantic's limits on the value.
        default: its default, `PydanticUndefined` if the key is required.
        help: what it is for, "" if only PaddleNLP knows.
    """

    annotation: Any
    limits: tuple[Any, ...] = ()
    default: Any = PydanticUndefined
    help: str = ""

    @property
    def required(self) -> bool:
        """Whether a config must give it."""
        return self.default is PydanticUndefined

    @property
    def expectation(self) -> str:
        """In words, what a value has to be, such as "a whole number, at least 1"."""
        words = " or ".join(_describe(kind) for kind in kinds(self.annotation))
        return ", ".join([words, *_describe_limits(self.limits)])

    def check(self, text: str) -> Any:
        """Read a JSON text strictly.

        Args:
            text: JSON, such as `[1, 2]`.

        Returns:
            The value it holds.

        Raises:
            ValidationError: it is not what the key expects.
        """
        parts: Any = (self.annotation, *self.limits)
        return TypeAdapter(Annotated[parts] if self.limits else self.annotation).validate_json(text, strict=True)


@cache
def key_table() -> Mapping[str, Key]:
    """All keys a config may have at its top, by name. The first call imports PaddleNLP."""
    table = own_keys(ModelArguments) | own_keys(DataArguments) | paddlenlp_keys() | own_keys(TrainingKeys)
    return types.MappingProxyType(table)


def own_keys(owner: Any) -> dict[str, Key]:
    """The keys that a pydantic dataclass holds."""
    return {
        name: Key(
            info.annotation,
            tuple(info.metadata),
            info.get_default(call_default_factory=True, validated_data={}),
            info.description or "",
        )
        for name, info in owner.__pydantic_fields__.items()
    }


@cache
def paddlenlp_keys() -> dict[str, Key]:
    """Every key of PaddleNLP's TrainingArguments, with PaddleNLP's defaults."""
    from paddlenlp.trainer import TrainingArguments  # takes seconds, so only once it is needed

    return keys_of_dataclass(TrainingArguments)


def keys_of_dataclass(owner: Any) -> dict[str, Key]:
    """The keys of a plain dataclass. A hint that says nothing useful gives way to the type of the default."""
    try:
        hints = get_type_hints(owner)
    except (NameError, TypeError):
        hints = {}
    members = [member for member in dataclasses.fields(owner) if member.init]
    return {member.name: _key_of_field(hints.get(member.name), _default_of(member)) for member in members}


def kinds(annotation: Any) -> list[Any]:
    """The types that an annotation allows, unions taken apart, None left out."""
    if get_origin(annotation) is Annotated:
        return kinds(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return [kind for each in get_args(annotation) for kind in kinds(each)]
    return [] if annotation is type(None) else [annotation]


def members(key: Key) -> dict[str, Key]:
    """The keys of the object a key holds; none if it holds no object of ours."""
    return {
        name: member
        for kind in kinds(key.annotation)
        if dataclasses.is_dataclass(kind)
        for name, member in own_keys(kind).items()
    }


def items(key: Key) -> Key:
    """What each item of the list a key holds has to be."""
    for kind in kinds(key.annotation):
        if get_origin(kind) is list:
            return Key(get_args(kind)[0])
    return Key(Any)


def nearest(name: str, known: Mapping[str, Key]) -> str:
    """A sentence with the known key that looks most like `name`, or with the way to the list of them."""
    near = get_close_matches(name.lower(), known, n=1)
    if near:
        return f"Did you mean `{near[0]}`?"
    return f"Known keys: {', '.join(known)}." if len(known) < 10 else "--help lists the known keys."


def _key_of_field(hint: Any, default: Any) -> Key:
    allowed = tuple(_with_plain_values(kind) for kind in kinds(hint) if _is_json_kind(kind))
    if allowed:
        return Key(Union[allowed], default=default)  # noqa: UP007 - the members are known at run time only
    return Key(Any if default is None or default is PydanticUndefined else type(default), default=default)


def _default_of(member: dataclasses.Field[Any]) -> Any:
    if member.default is not dataclasses.MISSING:
        return member.default.value if isinstance(member.default, Enum) else member.default
    if member.default_factory is not dataclasses.MISSING:
        return member.default_factory()
    return PydanticUndefined


def _is_json_kind(kind: Any) -> bool:
    return kind in _WORDS or get_origin(kind) in (list, dict, Literal) or kind in (list, dict) or _is_enum(kind)


def _is_enum(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Enum)


def _with_plain_values(kind: Any) -> Any:
    return Literal[tuple(each.value for each in kind)] if _is_enum(kind) else kind


def _describe(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(f'"{choice}"' for choice in get_args(kind))
    if get_origin(kind) is list:
        return "a list of " + _describe_many(get_args(kind)[0])
    if dataclasses.is_dataclass(kind):
        return f"an object with {', '.join(own_keys(kind))}"
    return _WORDS.get(kind, "an object" if kind is dict or get_origin(kind) is dict else "any JSON value")


def _describe_many(annotation: Any) -> str:
    (kind, *_) = kinds(annotation)
    if get_origin(kind) is list:
        return "lists of " + _describe_many(get_args(kind)[0])
    if get_origin(kind) is Literal:
        return "them"
    return _PLURALS.get(kind, "objects")


def _describe_limits(limits: tuple[Any, ...]) -> list[str]:
    return [
        words.format(getattr(limit, name))
        for limit in limits
        for name, words in _LIMIT_WORDS.items()
        if hasattr(limit, name)
    ]
