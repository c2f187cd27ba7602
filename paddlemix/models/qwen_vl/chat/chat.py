"""`model.chat` and `model.chat_stream` of Qwen-VL."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from paddlemix.contract import Model
from paddlemix.generation import GenerationConfig, TokenStream, settled_config
from paddlemix.generation.ends import carried_values
from paddlemix.media.images import open_image
from paddlemix.media.opening import DEFAULT_OPENING, ImageOpening
from paddlemix.models.qwen_vl.chat.answers import decode_tokens, stop_words_ids
from paddlemix.models.qwen_vl.chat.context import MAX_WINDOW_SIZE, make_context
from paddlemix.models.qwen_vl.chatml import DEFAULT_SYSTEM
from paddlemix.models.qwen_vl.images import QwenVLImageProcessor
from paddlemix.models.qwen_vl.tags import History
from paddlemix.models.qwen_vl.tokenizer import QwenTokenizer

if TYPE_CHECKING:
    from paddlemix.models.qwen_vl.config import QWenConfig, QWenVisionConfig


@dataclass(frozen=True)
class ChatSettings:
    """How a chat is held.

    Attributes:
        system: stands before everything.
        chat_format: "chatml", or "raw" for a base model.
        max_window_size: tokens below which system text and history stay; see `make_context`.
        stop_words_ids: sequences of tokens that end an answer beside the format's own; they stay in it.
        generation_config: how answers are written.
        do_sample: as `model.generate` takes it.
        image_processor: the checkpoint's, where its images are not normalised as the published ones are.
        image_opening: how images are opened; the checkpoint's, where it was trained with another than the usual.
    """

    system: str = DEFAULT_SYSTEM
    chat_format: str = "chatml"
    max_window_size: int = MAX_WINDOW_SIZE
    stop_words_ids: Sequence[Sequence[int]] = ()
    generation_config: GenerationConfig | None = None
    do_sample: bool | None = None
    image_processor: QwenVLImageProcessor = field(default_factory=QwenVLImageProcessor)
    image_opening: ImageOpening = DEFAULT_OPENING

    @classmethod
    def for_model(cls, model: Model, given: dict[str, Any]) -> ChatSettings:
        """Take what is given, then what the checkpoint says, then the defaults; None is not given."""
        published = carried_values(model)
        values: dict[str, Any] = {
            "chat_format": published.get("chat_format"),
            "max_window_size": published.get("max_window_size"),
            "image_processor": QwenVLImageProcessor(_vision_config(model).image_size),
        }
        values |= {name: value for name, value in given.items() if value is not None}
        return cls(**{name: value for name, value in values.items() if value is not None})


def chat(
    model: Model,
    tokenizer: QwenTokenizer,
    query: str,
    history: History | None = None,
    *,
    append_history: bool = True,
    **options: Any,
) -> tuple[str, list[tuple[str, str | None]]]:
    """Answer a query after a history.

    Args:
        model: in evaluation mode.
        tokenizer: of the model.
        query: what the user says. Images that it or a query of the history shows as `<img>path or address</img>` are
            opened; for whose texts may do that see `paddlemix.models.qwen_vl.chat.context`.
        history: as the last call gave it back; stays as it is.
        append_history: whether the history that is given back ends with this query and its answer.
        **options: attributes of `ChatSettings` and of `GenerationConfig`, such as `system` and `max_new_tokens`.

    Returns:
        The answer, tags and all, and the history.

    Raises:
        TypeError: an option is none.
        ValueError: an image cannot be read or is not closed, the tokenizer is another model's, or an option makes no
            sense.
    """
    run = _Run(model, tokenizer, query, history, options)
    ids = [*run.context.ids, *run.tokens()]
    answer = decode_tokens(ids, tokenizer, context_length=len(run.context.ids), chat_format=run.chat_format)
    return answer.text, [*(history or ()), *([(query, answer.text)] if append_history else [])]


def chat_stream(
    model: Model, tokenizer: QwenTokenizer, query: str, history: History | None = None, **options: Any
) -> Iterator[str]:
    """Answer a query while the answer is being written.

    Args:
        model: as `chat` takes it.
        tokenizer: as `chat` takes it.
        query: as `chat` takes it.
        history: as `chat` takes it.
        **options: as `chat` takes them.

    Yields:
        The answer so far after each token, with the tags of names and boxes and no other special token; a character
        that is not whole yet is left out.
    """
    run = _Run(model, tokenizer, query, history, options)
    ids: list[int] = []
    for token in run.tokens():
        ids.append(token)
        yield tokenizer.decode(ids, skip_special_tokens=True, keep_image_special=True, errors="ignore")


class _Run:
    """One answer: what the model is given, and how it answers."""

    def __init__(
        self, model: Model, tokenizer: QwenTokenizer, query: str, history: History | None, options: dict[str, Any]
    ) -> None:
        _check_fit(model, tokenizer)
        of_chat = {one.name for one in fields(ChatSettings)} & options.keys()
        settings = ChatSettings.for_model(model, {name: options[name] for name in of_chat})
        generation = {name: value for name, value in options.items() if name not in of_chat}
        self.chat_format = settings.chat_format
        self.context = make_context(
            tokenizer,
            query,
            history,
            system=settings.system,
            max_window_size=settings.max_window_size,
            chat_format=self.chat_format,
        )
        self._model, self._tokenizer = model, tokenizer
        self._image_processor, self._image_opening = settings.image_processor, settings.image_opening
        config = settled_config(model, settings.generation_config, do_sample=settings.do_sample, **generation)
        stop_words = [*config.stop_words_ids, *stop_words_ids(tokenizer, self.chat_format), *settings.stop_words_ids]
        self._config = replace(config, stop_words_ids=stop_words)

    def tokens(self) -> Iterator[int]:
        """Write the answer's tokens, the end token last where there is one."""
        batch: dict[str, Any] = {"input_ids": np.array([self.context.ids], dtype=np.int64)}
        opened = [open_image(path, self._image_opening) for path in self.context.images]
        images = [self._image_processor.pixels(image) for image in opened]
        if images:
            batch["pixel_values"] = np.stack(images)
        stream = TokenStream(self._model, batch, self._config, end_token_ids=[self._tokenizer.eod_id])
        for _, token in stream:
            yield token
        yield from stream.end_tokens.values()


def _check_fit(model: Model, tokenizer: QwenTokenizer) -> None:
    visual = _vision_config(model)
    ours, wanted = (tokenizer.img_start_id, tokenizer.n_queries), (visual.image_start_id, visual.n_queries)
    if ours != wanted:
        raise ValueError(
            f"the tokenizer writes an image as token {ours[0]} and {ours[1]} more, the model reads token {wanted[0]} "
            f"and {wanted[1]} more; take the tokenizer of the model's own folder."
        )


def _vision_config(model: Model) -> QWenVisionConfig:
    return cast("QWenConfig", model.config).visual
