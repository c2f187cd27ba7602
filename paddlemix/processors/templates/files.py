"""Where checkpoints keep chat templates, and the special tokens that templates may name.

Releases of transformers up to 4.51 write chat_template.json, later ones chat_template.jinja; templates beside the
default one stand in additional_chat_templates/, or in a list with names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paddlemix.bounded_json import shown
from paddlemix.files import read_bounded, read_json_object, replacing, write_json

TEMPLATE_FILE = "chat_template.json"
JINJA_FILE = "chat_template.jinja"
ADDITIONAL_FOLDER = "additional_chat_templates"
TOKENIZER_CONFIG_FILE = "tokenizer_config.json"
DEFAULT = "default"
_KEY = "chat_template"
_ENTRY = {"name", "template"}
_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_LISTED = "additional_special_tokens"
_EXTRA = "extra_special_tokens"
# Names become those of files when a model is saved.
_NAME = re.compile(r"\w[\w.-]{0,99}")
# What a template is given beside tokens, and a word of jinja2's own.
_TAKEN = frozenset({"messages", "tools", "add_generation_prompt", "add_vision_id", "self"})


@dataclass(frozen=True)
class TemplateText:
    """A template.

    Attributes:
        text: jinja2.
        place: the file it is from.
    """

    text: str
    place: str


@dataclass(frozen=True)
class StoredTemplates:
    """What a checkpoint says of chat templates.

    Attributes:
        named: the templates by name; the one that is used without a choice is called "default".
        tokens: special tokens by the names that templates know them by.
    """

    named: Mapping[str, TemplateText] = field(default_factory=dict)
    tokens: Mapping[str, Any] = field(default_factory=dict)


NOTHING_STORED = StoredTemplates()


def stored_templates(folder: Path) -> StoredTemplates:
    """Read a checkpoint's templates: chat_template.jinja goes before chat_template.json, that before the tokenizer's.

    Args:
        folder: of the checkpoint.

    Returns:
        The templates and tokens.

    Raises:
        ValueError: a file is damaged, or a template empty.
    """
    settings = read_json_object(folder / TOKENIZER_CONFIG_FILE, missing_ok=True)
    named: dict[str, TemplateText] = {}
    for name, values in (
        (TOKENIZER_CONFIG_FILE, settings),
        (TEMPLATE_FILE, read_json_object(folder / TEMPLATE_FILE, missing_ok=True)),
    ):
        texts = _texts(values.get(_KEY), folder / name)
        named = {**named, **{one: TemplateText(text, str(folder / name)) for one, text in texts.items()}}
    for path in sorted((folder / ADDITIONAL_FOLDER).glob("*.jinja")):
        named[path.stem] = TemplateText(_text_of(path), str(path))
    if (folder / JINJA_FILE).is_file():
        named[DEFAULT] = TemplateText(_text_of(folder / JINJA_FILE), str(folder / JINJA_FILE))
    empty = next((one.place for one in named.values() if not one.text.strip()), None)
    if empty is not None:
        raise ValueError(
            f"{empty}: a chat template in it is empty, and prompts would be. Fetch the file again, or take the "
            "template out of it, and the family's own counts."
        )
    extra = settings.get(_EXTRA)
    taken = sorted(_TAKEN.intersection(extra)) if isinstance(extra, Mapping) else []
    if taken:
        raise ValueError(
            f"{folder / TOKENIZER_CONFIG_FILE}: `{_EXTRA}` calls a token `{taken[0]}`, which templates know as "
            "something else; expected another name."
        )
    return StoredTemplates(named, special_tokens(settings))


def write_templates(folder: Path, default: str, others: Mapping[str, str]) -> None:
    """Write templates where every release of transformers that knows them reads them, and nothing else counts.

    Args:
        folder: of the checkpoint; files of templates in it are replaced.
        default: the template that is used without a choice: in chat_template.json, which all releases read, or, since
            those from 4.52 on refuse others beside that file, in chat_template.jinja where there are some.
        others: by name.
    """
    written = {folder / ADDITIONAL_FOLDER / f"{name}.jinja": text for name, text in others.items()}
    if others:
        written[folder / JINJA_FILE] = default
    for path, text in written.items():
        with replacing(path) as staged:
            staged.write_text(text, encoding="utf-8")
    if not others:
        write_json(folder / TEMPLATE_FILE, {_KEY: default})
    stale = {folder / (TEMPLATE_FILE if others else JINJA_FILE), *(folder / ADDITIONAL_FOLDER).glob("*.jinja")}
    for path in stale - written.keys():
        path.unlink(missing_ok=True)


def special_tokens(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Choose what a template may name of a tokenizer_config.json: `bos_token`, `eos_token` and others that are set."""
    extra = settings.get(_EXTRA)
    names = (*_TOKENS, *(extra if isinstance(extra, Mapping) else ()))
    said = {**settings, **(extra if isinstance(extra, Mapping) else {})}
    found: dict[str, Any] = {name: _token(said[name]) for name in names if said.get(name) is not None}
    listed = settings.get(_LISTED)
    return {**found, _LISTED: [_token(one) for one in listed]} if listed else found


def _text_of(path: Path) -> str:
    try:
        return read_bounded(path).decode("utf-8-sig")  # a mark that an editor has put in front is no part of prompts
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: is not UTF-8 ({error.reason} at byte {error.start}). Save it as UTF-8.") from error


def _texts(value: Any, path: Path) -> dict[str, str]:
    """Read one template, or several with names."""
    if isinstance(value, str) and value:
        return {DEFAULT: value}
    if isinstance(value, list) and all(
        isinstance(one, Mapping) and one.keys() >= _ENTRY and isinstance(one["name"], str) for one in value
    ):
        value = {one["name"]: one["template"] for one in value}
    if value is None or value == [] or value == "":
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(one, str) for one in value.values()):
        raise ValueError(
            f"{path}: `{_KEY}` is a {type(value).__name__}; expected a text, or a list of names and templates."
        )
    wrong = [name for name in value if not _NAME.fullmatch(name)]
    if wrong:
        raise ValueError(f"{path}: `{_KEY}` calls a template {shown(wrong[0])}; expected a name that a file can have.")
    return dict(value)


def _token(value: Any) -> Any:
    """Read a token that is written as its text or as an object with more about it."""
    return value.get("content") if isinstance(value, Mapping) else value
