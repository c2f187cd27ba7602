"""What a config.json may ask for and no model here computes: refused by name, never ignored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from paddlemix.bounded_json import shown

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
            expected = " or ".join(map(shown, built))
            raise ValueError(f"config.json: `{section}{name}` is {shown(value)}; only {expected} is built in.")


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
