"""generation_config.json, the file in which a checkpoint says how it wants its answers written."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paddlemix.bounded_json import parse_json_object, shown
from paddlemix.files import read_bounded
from paddlemix.foreign.invented_ids import without_invented_ids
from paddlemix.names import GENERATION_FILE

# The attributes of `GenerationConfig` that the file spells the same way.
_SAME_NAME = (
    "max_new_tokens", "min_new_tokens", "temperature", "top_k", "top_p", "repetition_penalty", "stop_strings",
    "stop_words_ids", "num_beams", "length_penalty", "early_stopping",
)  # fmt: skip
# What a file that asks for sampling means by leaving these out: the defaults of transformers, which writes the files.
_SAMPLING_DEFAULTS = {"temperature": 1.0, "top_k": 50}
# Values that ask for nothing; null is one everywhere. Other values would make other answers, and are refused.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "min_length": (0,), "max_time": (), "num_beam_groups": (1,), "num_return_sequences": (1,),
    "min_p": (0,), "typical_p": (1,), "epsilon_cutoff": (0,), "eta_cutoff": (0,), "penalty_alpha": (0,),
    "encoder_repetition_penalty": (1,), "no_repeat_ngram_size": (0,), "encoder_no_repeat_ngram_size": (0,),
    "diversity_penalty": (0,), "guidance_scale": (1,), "bad_words_ids": ([],), "force_words_ids": ([],),
    "constraints": ([],), "forced_bos_token_id": (), "forced_eos_token_id": (), "suppress_tokens": ([],),
    "begin_suppress_tokens": ([],), "sequence_bias": ({}, []), "exponential_decay_length_penalty": (),
    "token_healing": (False,), "dola_layers": (), "watermarking_config": (),
}  # fmt: skip
# Settings that choose no token: of speed, of what transformers returns, of `chat` alone. `max_length` bounds prompt and
# answer together, which a model of images has no use for; an answer is bounded by `max_new_tokens`.
_NO_EFFECT = frozenset({
    "max_length", "chat_format", "max_window_size", "low_memory", "use_cache", "cache_implementation",
    "cache_config", "return_legacy_cache", "prefill_chunk_size", "compile_config", "disable_compile",
    "renormalize_logits", "remove_invalid_values", "output_attentions", "output_hidden_states", "output_scores",
    "output_logits", "return_dict_in_generate", "num_assistant_tokens", "num_assistant_tokens_schedule",
    "assistant_confidence_threshold", "assistant_early_exit", "assistant_lookbehind", "target_lookbehind",
    "is_assistant", "prompt_lookup_num_tokens", "max_matching_ngram_size", "pad_token_id", "bos_token_id",
    "decoder_start_token_id", "generation_kwargs", "transformers_version", "_from_model_config", "_commit_hash",
})  # fmt: skip
# Settings that say where an answer ends.
_ENDS = ("eos_token_id", "stop_strings", "stop_words_ids")
# What only a call can ask for, with the values that ask for nothing: in a file the first of them have no effect, since
# files hold all of a writer's settings.
_OF_CALLS: dict[str, tuple[Any, ...]] = {
    "return_dict_in_generate": (False,), "output_attentions": (False,), "output_hidden_states": (False,),
    "output_scores": (False,), "output_logits": (False,), "logits_processor": ([],), "stopping_criteria": ([],),
    "prefix_allowed_tokens_fn": (), "assistant_model": (), "negative_prompt_ids": (),
    "negative_prompt_attention_mask": (), "custom_generate": (), "synced_gpus": (False,),
}  # fmt: skip
_TRANSLATED = frozenset({"do_sample", "eos_token_id"})

logger = logging.getLogger(__name__)


def read_generation_file(folder: Path) -> dict[str, Any]:
    """Read the values of a checkpoint's generation_config.json.

    Args:
        folder: of the checkpoint.

    Returns:
        The values; none where there is no file.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: the file is no JSON object.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no local folder; {GENERATION_FILE} is read from a checkpoint's folder.")
    path = folder / GENERATION_FILE
    return published_object(path, read_bounded(path)) if path.is_file() else {}


def published_attributes(values: dict[str, Any], path: Path) -> dict[str, Any]:
    """Turn the values of a generation_config.json into attributes of `GenerationConfig`.

    Args:
        values: of the file.
        path: how errors call the file.

    Returns:
        The attributes that it sets.

    Raises:
        ValueError: a value asks for what is not done here.
    """
    _warn_of_unknown_keys(path, values)
    _refuse_unsupported(path, values)
    return attributes_of(path, values)


def ends_alone(values: Mapping[str, Any]) -> dict[str, Any]:
    """Leave of the values of a generation_config.json those that say where an answer ends."""
    return {name: values[name] for name in _ENDS if name in values}


def without_effect(name: str, value: Any) -> bool:
    """Tell whether a caller's setting, by the name that transformers has for it, is one that changes nothing here.

    Args:
        name: of an argument.
        value: of it.

    Returns:
        False where the name is none of those that are known.

    Raises:
        ValueError: the value asks for what is not done here.
    """
    neutral = {**_NEUTRAL, **_OF_CALLS}
    if value is None:
        return name in neutral or name in _NO_EFFECT
    if name == "max_length":
        raise ValueError(
            f"`max_length` is {value}, which would count the prompt and its images too; set `max_new_tokens`, the "
            "tokens of the longest answer."
        )
    if name in neutral and not any(value is one or value == one for one in neutral[name]):
        raise ValueError(f"`{name}` is {shown(value)}, which is not done here; leave it out.")
    return name in neutral or name in _NO_EFFECT


def published_object(path: Path, content: bytes) -> dict[str, Any]:
    """Parse the JSON object in the content of a generation_config.json that errors call `path`."""
    return without_invented_ids(parse_json_object(content, path))


def _warn_of_unknown_keys(path: Path, values: dict[str, Any]) -> None:
    unknown = sorted(values.keys() - {*_SAME_NAME, *_NEUTRAL, *_NO_EFFECT, *_TRANSLATED})
    if unknown:
        logger.warning("%s: unknown keys, which change nothing: %s", path, ", ".join(unknown))


def _refuse_unsupported(path: Path, values: dict[str, Any]) -> None:
    for name, neutral in _NEUTRAL.items():
        value = values.get(name)
        if value is not None and value not in neutral:
            wanted = json.dumps(neutral[0] if neutral else None)
            raise ValueError(
                f"{path}: `{name}` is {shown(value)}, which is not done here; set it to {wanted} or remove it."
            )


def attributes_of(path: Path, values: Mapping[str, Any]) -> dict[str, Any]:
    """Turn the values of a generation_config.json that were checked into attributes of `GenerationConfig`.

    Args:
        path: how errors call the file.
        values: of the file, and perhaps a caller's `do_sample`.

    Returns:
        The attributes that they set.

    Raises:
        ValueError: `do_sample` is neither true nor false.
    """
    do_sample = values.get("do_sample") or False
    if not isinstance(do_sample, bool):
        raise ValueError(f"{path}: `do_sample` is {shown(do_sample)}; expected true or false.")
    values = {**_SAMPLING_DEFAULTS, **values} if do_sample else {**values, "temperature": None}
    attributes = {name: values[name] for name in _SAME_NAME if values.get(name) is not None}
    ends = values.get("eos_token_id")
    if ends is not None:
        attributes["eos_token_ids"] = ends if isinstance(ends, list) else [ends]
    if isinstance(values.get("stop_strings"), str):
        attributes["stop_strings"] = [values["stop_strings"]]
    return attributes
