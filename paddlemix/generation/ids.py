"""Answers as the field's `model.generate` gives them: one array of ids, prompts included."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from paddlemix.contract import Model
from paddlemix.generation.loop import TokenStream
from paddlemix.generation.published import published_attributes, published_object
from paddlemix.generation.settings import GenerationConfig
from paddlemix.names import GENERATION_FILE

_SETTINGS = tuple(field.name for field in fields(GenerationConfig))


def generate_ids(
    model: Model,
    input_ids: Any,
    generation_config: GenerationConfig | None = None,
    *,
    do_sample: bool | None = None,
    eos_token_id: int | Sequence[int] | None = None,
    pad_token_id: int | None = None,
    **inputs_and_settings: Any,
) -> paddle.Tensor:
    """Continue prompts.

    Args:
        model: in evaluation mode; its `carried_files` may hold the checkpoint's generation_config.json.
        input_ids: int64[B, L], padding on the left.
        generation_config: how answers are written; None for the checkpoint's file, without one the class's defaults.
        do_sample: False takes the likeliest token whatever the temperature; True draws, without `generation_config`
            at temperature 1 among the 50 likeliest where nothing else is said; None leaves it to the temperature.
        eos_token_id: what ends an answer; None for the settings' `eos_token_ids`, and then the model config's.
        pad_token_id: fills rows that end early; None for the checkpoint's file, the model config's, an end token.
        **inputs_and_settings: inputs of the model by name, such as attention_mask int64[B, L] and pixel_values, and
            attributes of `GenerationConfig`, which take precedence over `generation_config`; None is not given.

    Returns:
        int64[B, L + new]: prompts, answers, and the end token of each answer that has one.

    Raises:
        TypeError: a name is neither an input of the model nor a setting.
        ValueError: a setting makes no sense, stop strings are asked for, or a row is padded on the right.
    """
    settings = {name: value for name, value in inputs_and_settings.items() if name in _SETTINGS}
    inputs = {name: value for name, value in inputs_and_settings.items() if name not in _SETTINGS}
    _check_names(model, inputs)
    if eos_token_id is not None:
        settings["eos_token_ids"] = _as_ids(eos_token_id)
    config = settled_config(model, generation_config, do_sample=do_sample, **settings)
    own_ends = _as_ids(model.config.eos_token_id)
    prompt = np.asarray(input_ids)
    answers = _answers(model, _batch(prompt, inputs), config, own_ends)
    ends = sorted(config.end_token_ids(own_ends))
    fillers = (pad_token_id, _published(model).get("pad_token_id"), model.config.pad_token_id, *ends)
    # No filler, no end token either, and every row is as long as the others.
    filler = next((token for token in fillers if token is not None), 0)
    return paddle.to_tensor(np.concatenate([prompt, _filled(answers, filler)], axis=1))


def settled_config(
    model: Model, generation_config: GenerationConfig | None = None, *, do_sample: bool | None = None, **settings: Any
) -> GenerationConfig:
    """Settle how a model's answers are written, from everything that says something about it.

    Args:
        model: as `generate_ids` takes it.
        generation_config: as `generate_ids` takes it.
        do_sample: as `generate_ids` takes it.
        **settings: attributes of `GenerationConfig`, which take precedence over it; None is a setting not given.

    Returns:
        The settings.

    Raises:
        TypeError: a name is none of the settings.
        ValueError: a setting makes no sense.
    """
    unknown = sorted(settings.keys() - set(_SETTINGS))
    if unknown:
        raise TypeError(f"{', '.join(unknown)} is no setting of answers; expected do_sample, {', '.join(_SETTINGS)}.")
    settings = {name: value for name, value in settings.items() if value is not None}
    if do_sample is False:
        settings["temperature"] = 0.0
    if generation_config is None:
        published = _published(model)
        values = published if do_sample is None else {**published, "do_sample": do_sample}
        config = GenerationConfig(**{**published_attributes(values, Path(GENERATION_FILE)), **settings})
    else:
        config = replace(generation_config, **settings)
    if do_sample and config.temperature == 0:
        raise ValueError("`do_sample` is True, but `temperature` is 0, which draws nothing; set it above 0.")
    return config


def _answers(model: Model, batch: dict[str, Any], config: GenerationConfig, ends: Sequence[int]) -> list[list[int]]:
    """Write the new tokens of each row, with its end token."""
    if config.stop_strings:
        raise ValueError(
            f"`stop_strings` are {list(config.stop_strings)}, but `model.generate` sees tokens only: use "
            "`paddlemix.generation.stream_text`, or set `stop_strings=[]`."
        )
    stream = TokenStream(model, batch, config, end_token_ids=ends)
    answers: list[list[int]] = [[] for _ in batch["input_ids"]]
    for row, token in stream:
        answers[row].append(token)
    return [
        [*answer, *([stream.end_tokens[row]] if row in stream.end_tokens else [])] for row, answer in enumerate(answers)
    ]


def _filled(answers: list[list[int]], filler: int) -> np.ndarray:
    """Lay answers out as int64[B, new], short rows filled up behind their end."""
    length = max(map(len, answers))
    return np.array([answer + [filler] * (length - len(answer)) for answer in answers], dtype=np.int64)


def _published(model: Model) -> dict[str, Any]:
    return published_object(Path(GENERATION_FILE), model.carried_files.get(GENERATION_FILE, b"{}"))


def _check_names(model: Model, inputs: dict[str, Any]) -> None:
    unknown = sorted(inputs.keys() - set(model.input_names))
    if unknown:
        raise TypeError(
            f"`generate` got {', '.join(unknown)}; expected inputs of the model, or of the settings do_sample, "
            f"eos_token_id, pad_token_id, {', '.join(_SETTINGS)}."
        )


def _batch(prompt: np.ndarray, inputs: dict[str, Any]) -> dict[str, Any]:
    """Make the batch as `TokenStream` takes it: it reads ids and mask itself, the rest is the model's."""
    given = {name: value for name, value in inputs.items() if value is not None}
    if "attention_mask" in given:
        given["attention_mask"] = np.asarray(given["attention_mask"])
    return {**given, "input_ids": prompt}


def _as_ids(ids: int | Sequence[int] | None) -> tuple[int, ...]:
    if ids is None:
        return ()
    return (ids,) if isinstance(ids, int) else tuple(ids)
