"""One question to a model of any family, after whatever was said before; the caller keeps the history."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from paddlemix.contract import Model, Processor
from paddlemix.generation import GenerationConfig, settled_config
from paddlemix.generation.dialogue import Dialogue, History, Query
from paddlemix.models.registry import family_of


def dialogue_with(
    model: Model,
    processor: Processor,
    *,
    system: str | None = None,
    generation_config: GenerationConfig | None = None,
    do_sample: bool | None = None,
    **settings: Any,
) -> Dialogue:
    """Make what asks a model in the way of its family.

    Args:
        model: in evaluation mode.
        processor: of the model's family.
        system: stands before everything; None leaves it to the checkpoint.
        generation_config: how answers are written; None for the checkpoint's generation_config.json.
        do_sample: as `model.generate` takes it.
        **settings: attributes of `GenerationConfig`, such as `max_new_tokens`, which take precedence over it.

    Returns:
        The dialogue.

    Raises:
        TypeError: a name is none of the settings.
        ValueError: a setting makes no sense.
    """
    config = settled_config(model, generation_config, do_sample=do_sample, **settings)
    return family_of(model.config).dialogue_class(model, processor, config, system)


def inference(
    model: Model,
    processor: Processor,
    query: Query,
    history: Sequence[tuple[Query, str]] | None = None,
    **settings: Any,
) -> tuple[str, History]:
    """Answer a query after a history.

    Args:
        model: as `dialogue_with` takes it.
        processor: as `dialogue_with` takes it.
        query: as `Dialogue.chat` takes it.
        history: as the last call gave it back; stays as it is.
        **settings: as `dialogue_with` takes them.

    Returns:
        The raw answer, tags and all, and the history with this query and its answer.

    Raises:
        TypeError: a name is none of the settings.
        ValueError: a setting makes no sense, an image or a video cannot be read, or the query is malformed.
    """
    return dialogue_with(model, processor, **settings).chat(query, history)


def inference_stream(
    model: Model,
    processor: Processor,
    query: Query,
    history: Sequence[tuple[Query, str]] | None = None,
    **settings: Any,
) -> Iterator[tuple[str, History]]:
    """Answer a query while the answer is being written.

    Args:
        model: as `dialogue_with` takes it.
        processor: as `dialogue_with` takes it.
        query: as `Dialogue.chat` takes it.
        history: as the last call gave it back; stays as it is.
        **settings: as `dialogue_with` takes them.

    Returns:
        The raw answer so far, and the history with this query and it, again and again; leaving the loop ends the work.

    Raises:
        TypeError: a name is none of the settings.
        ValueError: as `inference`.
    """
    return dialogue_with(model, processor, **settings).chat_stream(query, history)
