"""Answers as the field's `model.generate` gives them: one array of ids, prompts included."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from paddlemix.contract import Model
from paddlemix.generation.beams import IsOver
from paddlemix.generation.ends import carried_values, end_ids, named_ends
from paddlemix.generation.loop import TokenStream
from paddlemix.generation.published import ends_alone, without_effect
from paddlemix.generation.settings import GenerationConfig
from paddlemix.generation.streaming import Decoder, Streamer
from paddlemix.generation.text import StopStrings
from paddlemix.names import GENERATION_FILE

_SETTINGS = tuple(field.name for field in fields(GenerationConfig))


def generate_ids(
    model: Model,
    input_ids: Any,
    generation_config: Any = None,
    *,
    do_sample: bool | None = None,
    eos_token_id: int | Sequence[int] | None = None,
    pad_token_id: int | None = None,
    streamer: Streamer | None = None,
    tokenizer: Decoder | None = None,
    **inputs_and_settings: Any,
) -> paddle.Tensor:
    """Continue prompts.

    Args:
        model: in evaluation mode; its `carried_files` may hold the checkpoint's generation_config.json.
        input_ids: int64[B, L], padding on the left.
        generation_config: how answers are written, an object of ours or of transformers; None for the checkpoint's
            file, without one our defaults.
        do_sample: as `GenerationConfig.from_published` takes it.
        eos_token_id: what ends an answer; None for the settings' `eos_token_ids`, and then what the checkpoint names.
        pad_token_id: fills rows that end early; None for the checkpoint's file, the model config's, an end token.
        streamer: told the prompts, then the tokens of each step, and then the end.
        tokenizer: decodes what stop strings are looked for in; the processor does it too.
        **inputs_and_settings: inputs of the model by name, such as attention_mask int64[B, L] and pixel_values, and
            attributes of `GenerationConfig`, which take precedence over `generation_config`; None is not given. Other
            settings of transformers are taken where they change nothing.

    Returns:
        int64[B, L + new]: prompts, answers, and the end token of each answer that has one; a stop string that ended an
        answer is part of it.

    Raises:
        TypeError: a name is neither an input of the model nor a setting, or `generation_config` or `streamer` is not
            what it is called.
        ValueError: a setting makes no sense or asks for what is not done here, stop strings are asked for without a
            tokenizer or beams with a streamer, or a row is padded on the right.
    """
    settings = _settings(inputs_and_settings, eos_token_id)
    inputs = _inputs(model, {name: value for name, value in inputs_and_settings.items() if name not in _SETTINGS})
    config = settled_config(model, generation_config, do_sample=do_sample, **settings)
    if streamer is not None and (
        isinstance(streamer, type) or not hasattr(streamer, "put") or not hasattr(streamer, "end")
    ):
        raise TypeError(
            f"`streamer` is {streamer!r}; expected an object with `put(tokens)` and `end()`, such as "
            "TextStreamer(processor, skip_prompt=True)."
        )
    if streamer is not None and config.num_beams > 1:
        raise ValueError(
            f"`num_beams` is {config.num_beams}, but a `streamer` is given; what beams answer is certain at the end "
            "alone: set `num_beams` to 1, or leave the streamer out."
        )
    own_ends = named_ends(model)
    prompt = np.asarray(input_ids)
    stream = TokenStream(
        model, _batch(prompt, inputs), config, end_token_ids=own_ends, is_over=_stop_strings(config, tokenizer)
    )
    fillers = (pad_token_id, carried_values(model).get("pad_token_id"), model.config.pad_token_id)
    # No filler, no end token either, and every row is as long as the others.
    filler = next((token for token in (*fillers, *sorted(config.end_token_ids(own_ends))) if token is not None), 0)
    answers = _answers(stream.steps(), prompt, filler, streamer)
    return paddle.to_tensor(np.concatenate([prompt, _filled(answers, filler)], axis=1))


def settled_config(
    model: Model,
    generation_config: Any = None,
    *,
    do_sample: bool | None = None,
    **settings: Any,
) -> GenerationConfig:
    """Settle how a model's answers are written, from everything that says something about it.

    Args:
        model: as `generate_ids` takes it.
        generation_config: as `generate_ids` takes it.
        do_sample: as `generate_ids` takes it.
        **settings: attributes of ours, which take precedence over it; None is a setting not given.

    Returns:
        The settings.

    Raises:
        TypeError: a name is none of the settings, or `generation_config` no such thing.
        ValueError: a setting makes no sense.
    """
    unknown = sorted(settings.keys() - set(_SETTINGS))
    if unknown:
        raise TypeError(f"{', '.join(unknown)} is no setting of answers; expected do_sample, {', '.join(_SETTINGS)}.")
    if isinstance(generation_config, GenerationConfig):
        return generation_config.changed(do_sample=do_sample, **settings)
    values, named = carried_values(model), GENERATION_FILE
    if generation_config is not None:
        if not hasattr(generation_config, "to_dict"):
            raise TypeError(
                f"`generation_config` is {generation_config!r}; expected a GenerationConfig, ours or that of "
                "transformers. Single settings are arguments of their own, such as `temperature=0.7`."
            )
        values, named = generation_config.to_dict(), "generation_config"  # what transformers writes its file from
    return GenerationConfig.from_published(values, Path(named), do_sample=do_sample, **settings)


def greedy_config(model: Model, *, do_sample: bool | None = None, **settings: Any) -> GenerationConfig:
    """Settle how answers are written that are to be scored or compared: greedily, up to the ends that the model has.

    Args:
        model: as `generate_ids` takes it; of its generation_config.json only what ends an answer counts.
        do_sample: as `generate_ids` takes it.
        **settings: attributes of `GenerationConfig`, which take precedence; None is a setting not given.

    Returns:
        The settings.

    Raises:
        TypeError: a name is none of the settings.
        ValueError: a setting makes no sense.
    """
    values = ends_alone(carried_values(model))
    return GenerationConfig.from_published(values, Path(GENERATION_FILE), do_sample=do_sample, **settings)


def _stop_strings(config: GenerationConfig, tokenizer: Decoder | None) -> IsOver | None:
    """Make what finds stop strings; as in transformers one may begin in the prompt."""
    if not config.stop_strings:
        return None
    if tokenizer is None:
        raise ValueError(
            f"`stop_strings` are {list(config.stop_strings)}, but `generate` sees tokens only: give what decodes "
            "them, `tokenizer=processor.tokenizer`, or set `stop_strings=[]`."
        )
    return StopStrings(tokenizer.decode, config.stop_strings).end_sequence


def _answers(
    steps: Iterator[dict[int, int]], prompt: np.ndarray, filler: int, streamer: Streamer | None
) -> list[list[int]]:
    """Write the new tokens of each row, with its end token, and tell a streamer of them."""
    answers: list[list[int]] = [[] for _ in prompt]
    _tell(streamer, prompt)
    for said in steps:
        for row, token in said.items():
            answers[row].append(token)
        _tell(streamer, [said.get(row, filler) for row in range(len(answers))])
    if streamer is not None:
        streamer.end()
    return answers


def _tell(streamer: Streamer | None, ids: np.ndarray | list[int]) -> None:
    if streamer is not None:
        streamer.put(paddle.to_tensor(np.asarray(ids, dtype=np.int64), place=paddle.CPUPlace()))


def _filled(answers: list[list[int]], filler: int) -> np.ndarray:
    """Lay answers out as int64[B, new], short rows filled up behind their end."""
    length = max(map(len, answers))
    return np.array([answer + [filler] * (length - len(answer)) for answer in answers], dtype=np.int64)


def _settings(given: dict[str, Any], eos_token_id: int | Sequence[int] | None) -> dict[str, Any]:
    """Take the settings of what a caller gives, who may name one end or one stop string without a list round it."""
    settings = {name: value for name, value in given.items() if name in _SETTINGS}
    if eos_token_id is not None:
        settings["eos_token_ids"] = end_ids(eos_token_id)
    if isinstance(settings.get("stop_strings"), str):
        settings["stop_strings"] = [settings["stop_strings"]]
    return settings


def _inputs(model: Model, given: dict[str, Any]) -> dict[str, Any]:
    """Take the model's inputs of what a caller gives, and check the rest."""
    known = set(model.input_names)
    unknown = sorted(name for name, value in given.items() if name not in known and not without_effect(name, value))
    if unknown:
        raise TypeError(
            f"`generate` got {', '.join(unknown)}; expected inputs of the model, or of the settings do_sample, "
            f"eos_token_id, pad_token_id, streamer, tokenizer, {', '.join(_SETTINGS)}."
        )
    return {name: value for name, value in given.items() if name in known}


def _batch(prompt: np.ndarray, inputs: dict[str, Any]) -> dict[str, Any]:
    """Make the batch as `TokenStream` takes it: it reads ids and mask itself, the rest is the model's."""
    given = {name: value for name, value in inputs.items() if value is not None}
    if "attention_mask" in given:
        given["attention_mask"] = np.asarray(given["attention_mask"])
    return {**given, "input_ids": prompt}
