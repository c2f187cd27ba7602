"""All known keys, ours and PaddleNLP's, as one pydantic model, and words for what each of them expects."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from enum import Enum
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, TypeAdapter, create_model
from pydantic.fields import FieldInfo

from paddlemix.configuration.arguments import DataArguments, ModelArguments, TrainingKeys

_CONFIG = ConfigDict(extra="forbid", strict=True, protected_namespaces=())
_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a string"}
_PLURALS = {bool: "true or false", int: "whole numbers", float: "numbers", str: "strings"}
_LIMIT_WORDS = {
    "gt": "more than {}",
    "ge": "at least {}",
    "lt": "less than {}",
    "le": "at most {}",
    "min_length": "not empty",
}


@cache
def key_table() -> Mapping[str, FieldInfo]:
    """Give all keys that a config may have at its top, by name. The first call imports PaddleNLP."""
    table = own_keys(ModelArguments) | own_keys(DataArguments) | paddlenlp_keys() | own_keys(TrainingKeys)
    return types.MappingProxyType(table)


@cache
def config_model() -> type[BaseModel]:
    """Make one model of all keys.

    A required key is None where it is not given: so the others are checked too, and all problems reported at once.
    """
    given: dict[str, Any] = {
        name: (constrained(key), None) if key.is_required() else (key.annotation, key)
        for name, key in key_table().items()
    }
    return create_model("Config", __config__=_CONFIG, **given)


def own_keys(owner: Any) -> dict[str, FieldInfo]:
    """Give the keys that a pydantic dataclass holds."""
    return dict(owner.__pydantic_fields__)


@cache
def paddlenlp_keys() -> dict[str, FieldInfo]:
    """Give every key of PaddleNLP's TrainingArguments, with PaddleNLP's defaults."""
    from paddlenlp.trainer import TrainingArguments  # takes seconds, so only once it is needed

    return keys_of_dataclass(TrainingArguments)


def keys_of_dataclass(owner: Any) -> dict[str, FieldInfo]:
    """Give the keys of a plain dataclass. A hint that says nothing useful gives way to the type of the default."""
    try:
        hints = get_type_hints(owner)
    except (NameError, TypeError):
        hints = {}
    given: dict[str, Any] = {}
    for member in dataclasses.fields(owner):
        if member.init:
            default = _default_of(member)
            given[member.name] = (_annotation(hints.get(member.name), default), default)
    return create_model(owner.__name__, __config__=_CONFIG, **given).model_fields


def constrained(key: FieldInfo) -> Any:
    """Give a key's type with its limits."""
    parts: Any = (key.annotation, *key.metadata)
    return Annotated[parts] if key.metadata else key.annotation


def read_json(key: FieldInfo, text: str) -> Any:
    """Read a JSON text strictly.

    Args:
        key: what it has to be.
        text: JSON, such as `[1, 2]`.

    Returns:
        The value it holds.

    Raises:
        ValidationError: it is not what the key expects.
    """
    return TypeAdapter(constrained(key)).validate_json(text, strict=True)


def kinds(annotation: Any) -> list[Any]:
    """Give the types that an annotation allows, unions taken apart, None left out."""
    if get_origin(annotation) in (Union, types.UnionType):
        return [kind for each in get_args(annotation) for kind in kinds(each)]
    return [] if annotation is type(None) else [annotation]


def members(key: FieldInfo) -> dict[str, FieldInfo]:
    """Give the keys of the object a key holds; none if it holds no object of ours."""
    owners = [kind for kind in kinds(key.annotation) if dataclasses.is_dataclass(kind)]
    return {name: member for owner in owners for name, member in own_keys(owner).items()}


def items(key: FieldInfo) -> FieldInfo:
    """Give what each item of the list a key holds has to be."""
    lists = [kind for kind in kinds(key.annotation) if get_origin(kind) is list]
    return FieldInfo(annotation=get_args(lists[0])[0] if lists else Any)


def nearest(name: str, known: Mapping[str, Any]) -> str:
    """Write a sentence with the known key that looks most like `name`, or with the way to the list of them."""
    near = get_close_matches(name.lower(), known, n=1)
    if near:
        return f"Did you mean `{near[0]}`?"
    return f"Known keys: {', '.join(known)}." if len(known) < 10 else "--help lists the known keys."


def expectation(key: FieldInfo) -> str:
    """Say in words what a value has to be, such as "a whole number, at least 1"."""
    allowed = kinds(key.annotation)
    joint = ", or " if any(get_origin(kind) is Annotated for kind in allowed) else " or "
    words = joint.join(map(_describe, allowed))
    return ", ".join([words, *_describe_limits(key.metadata)])


def _annotation(hint: Any, default: Any) -> Any:
    allowed = tuple(_with_plain_values(kind) for kind in kinds(hint) if _is_json_kind(kind))
    if allowed:
        return Union[allowed]  # noqa: UP007 - the members are known at run time only
    return Any if default in (None, ...) else type(default)


def _default_of(member: dataclasses.Field[Any]) -> Any:
    """Give a default as JSON spells it; an ellipsis, as pydantic has it, for none."""
    if member.default is not dataclasses.MISSING:
        return member.default.value if isinstance(member.default, Enum) else member.default
    return ... if member.default_factory is dataclasses.MISSING else member.default_factory()


def _is_json_kind(kind: Any) -> bool:
    return kind in _WORDS or get_origin(kind) in (list, dict, Literal) or kind in (list, dict) or _is_enum(kind)


def _is_enum(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Enum)


def _with_plain_values(kind: Any) -> Any:
    return Literal[tuple(each.value for each in kind)] if _is_enum(kind) else kind


def _describe(kind: Any) -> str:
    if get_origin(kind) is Annotated:
        limited, *fields = get_args(kind)
        limits = [limit for field in fields for limit in getattr(field, "metadata", [field])]
        return ", ".join([_describe(limited), *_describe_limits(limits)])
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(f'"{choice}"' for choice in get_args(kind))
    if get_origin(kind) is list:
        return "a list of " + _describe_many(get_args(kind)[0])
    if dataclasses.is_dataclass(kind):
        return f"an object with {', '.join(own_keys(kind))}"
    if get_origin(kind) is dict:
        _, value = get_args(kind)
        return "an object" if value is Any else f"an object in which each value is {_describe(value)}"
    return _WORDS.get(kind, "an object" if kind is dict else "any JSON value")


def _describe_many(annotation: Any) -> str:
    (kind, *_) = kinds(annotation)
    if get_origin(kind) is list:
        return "lists of " + _describe_many(get_args(kind)[0])
    return "them" if get_origin(kind) is Literal else _PLURALS.get(kind, "objects")


def _describe_limits(limits: Iterable[Any]) -> list[str]:
    return [
        words.format(getattr(limit, name))
        for limit in limits
        for name, words in _LIMIT_WORDS.items()
        if hasattr(limit, name)
    ]
