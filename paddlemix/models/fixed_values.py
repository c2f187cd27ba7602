"""What a config.json may ask for and no model here computes, or no number is: refused by name, never ignored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

# Of language models like Qwen2's: what their files can say, and the values that are built in.
QWEN2_LANGUAGE: Mapping[str, tuple[Any, ...]] = {
    "hidden_act": ("silu", "swish"),
    "attention_bias": (True,),
    "qkv_bias": (True,),
    "mlp_bias": (False,),
    "attention_dropout": (0.0,),
    "partial_rotary_factor": (1.0,),
    "qk_norm": (False,),
    "use_qk_norm": (False,),
    "qk_layernorm": (False,),
}
_KINDS: Mapping[type, tuple[tuple[type, ...], str]] = {
    bool: ((bool,), "true or false"),
    int: ((int,), "a whole number"),
    float: ((int, float), "a number"),
}
_FULL, _SLIDING = "full_attention", "sliding_attention"
# What transformers takes where a file asks for windows and leaves these out.
_WINDOW, _FULL_LAYERS = 4096, 80


def refuse_other_values(values: Mapping[str, Any], built_in: Mapping[str, Sequence[Any]], *, section: str = "") -> None:
    """Refuse values that nothing computes.

    Args:
        values: of a config.json, or of one of its sections; nulls say nothing.
        built_in: by key, the values that are computed.
        section: the section's name and a point, for the message.

    Raises:
        ValueError: another value is asked for; the message names the key.
    """
    for name, built in built_in.items():
        value = values.get(name)
        if value is not None and value not in built:
            expected = " or ".join(repr(one) for one in built)
            raise ValueError(f"config.json: `{section}{name}` is {value!r}; only {expected} is built in.")


def refuse_other_kinds(values: Mapping[str, Any], defaults: Mapping[str, Any], *, section: str = "") -> None:
    """Refuse what is of another kind than a model can be built by.

    Args:
        values: of a config.json, or of one of its sections; nulls say nothing.
        defaults: by key, a value of the kind that is expected; keys whose default is None or no number say nothing.
        section: as in `refuse_other_values`.

    Raises:
        ValueError: one is; the message names the key.
    """
    for name, default in defaults.items():
        value = values.get(name)
        if value is None or not isinstance(default, (bool, int, float)):
            continue
        kinds, expected = _KINDS[type(default)]
        # For Python true is a number.
        if not isinstance(value, kinds) or isinstance(value, bool) != isinstance(default, bool):
            raise ValueError(f"config.json: `{section}{name}` is {value!r}; expected {expected}.")


def refuse_no_object(values: Any, *, section: str) -> None:
    """Refuse a section of a config.json that is no object; null says nothing.

    Args:
        values: of the section.
        section: its name.

    Raises:
        ValueError: it is none.
    """
    if values is not None and not isinstance(values, Mapping):
        raise ValueError(f"config.json: `{section}` is {values!r}; expected an object.")


def refuse_acting_windows(values: Mapping[str, Any], *, layers: int, context: int) -> None:
    """Refuse attention windows that would hide tokens.

    Args:
        values: of a config.json, on one level.
        layers: of the language model.
        context: tokens that its positions were made for; a window as long hides none of them.

    Raises:
        ValueError: a layer would attend within a window, or in a way that is not known.
    """
    kinds = values.get("layer_types") or ()
    unknown = sorted(set(kinds) - {_FULL, _SLIDING})
    if unknown:
        raise ValueError(f"config.json: `layer_types` has {', '.join(unknown)}; only {_FULL} is built in.")
    if not values.get("use_sliding_window"):
        return
    window, first = values.get("sliding_window", _WINDOW), values.get("max_window_layers", _FULL_LAYERS)
    acts = _SLIDING in kinds if kinds else first < layers
    if acts and window < context:
        raise ValueError(
            f"config.json: `use_sliding_window` is true, and with `sliding_window` {window} and `max_window_layers` "
            f"{first} some of the {layers} layers would see less than the context of {context} tokens; only full "
            "attention is built in."
        )
