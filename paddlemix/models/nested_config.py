"""The values of a config.json on one level, whichever release of transformers wrote them; needs no Paddle.

Published checkpoints keep the language model's values at the top level. Releases from 4.52 on write them into
`text_config`, those up to 4.56 into both; from 5 on `rope_parameters` holds what `rope_scaling` and `rope_theta` held.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from paddlemix.bounded_json import shown
from paddlemix.processors.settings import warn_once

TEXT = "text_config"
_TIED = "tie_word_embeddings"
# What a nested config says of itself, not of the model.
_OF_THE_FILE = ("model_type", "architectures", "transformers_version", "_name_or_path", "torch_dtype", "dtype")


def flat_values(values: Mapping[str, Any], *, known: Collection[str], of_the_whole: Collection[str]) -> dict[str, Any]:
    """Bring the values of both levels onto one. A null says nothing, on either level.

    Args:
        values: of a config.json.
        known: the keys that the model is built by; where levels differ in one of them, a warning says which counts.
        of_the_whole: the keys of the whole model, for which the top level counts; for others `text_config` does.

    Returns:
        The values that are said, without `text_config`, and with `rope_scaling` and `rope_theta`.

    Raises:
        ValueError: `text_config` is no object, or the levels contradict one another on whether embeddings are tied.
    """
    text = values.get(TEXT) or {}
    if not isinstance(text, Mapping):
        raise ValueError(f"config.json: `{TEXT}` is {shown(text)}; expected an object.")
    outer = _said({key: one for key, one in values.items() if key != TEXT})
    inner = _said({key: one for key, one in text.items() if key not in _OF_THE_FILE})
    for key in sorted(outer.keys() & inner.keys()):
        if outer[key] != inner[key] and key in known and key != _TIED:
            _tell_difference(key, outer[key], inner[key], takes_outer=key in of_the_whole)
    whole = {key: outer[key] for key in of_the_whole if key in outer}
    return {**outer, **inner, **whole, **_tied(outer, inner)}


def _said(level: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out nulls, and write `rope_parameters` as older releases do."""
    said = {key: one for key, one in level.items() if one is not None}
    parameters = said.pop("rope_parameters", None)
    # transformers 5 reads the older key first where a level has both.
    scaling = _object("rope_scaling", said.pop("rope_scaling", None) or parameters)
    if scaling:
        theta = scaling.pop("rope_theta", said.get("rope_theta"))
        said |= {} if theta is None else {"rope_theta": theta}
        said |= {"rope_scaling": scaling} if scaling else {}
    return said


def _object(name: str, value: Any) -> dict[str, Any]:
    if value is not None and not isinstance(value, Mapping):
        raise ValueError(f"config.json: `{name}` is {shown(value)}; expected an object.")
    return {key: one for key, one in (value or {}).items() if one is not None}


def _tied(outer: Mapping[str, Any], inner: Mapping[str, Any]) -> dict[str, bool]:
    """Tell whether embeddings are tied, as every release takes what it wrote itself.

    Releases 4.52 to 4.57 leave a nested false and an outer true out of the file; from 5 on the key stands at the top.
    """
    if inner.get(_TIED) is False and outer.get(_TIED):
        raise ValueError(
            f"config.json: `{_TIED}` is true at the top level and false in `{TEXT}`; releases of transformers differ "
            f"in which of them counts. Set both to true, or both to false if the weights have an `lm_head`."
        )
    said = {key: one for key, one in (*outer.items(), *inner.items()) if key == _TIED}
    return {**said, _TIED: True} if outer.get(_TIED) or inner.get(_TIED) else said


def _tell_difference(key: str, outer: Any, inner: Any, *, takes_outer: bool) -> None:
    taken, reason = (
        (outer, "the whole model's ids stand at the top level")
        if takes_outer
        else (inner, f"the language model's values stand in `{TEXT}`")
    )
    found = f"`{key}` is {shown(outer)} at the top level and {shown(inner)} in `{TEXT}`"
    warn_once(f"config.json: {found}; {shown(taken)} counts: {reason}.")
