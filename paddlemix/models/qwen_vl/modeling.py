"""Qwen-VL: images, resampled to a fixed number of tokens each, among the text tokens of a Qwen decoder.

Source: Bai et al., "Qwen-VL: A Versatile Vision-Language Model for Understanding, Localization, Text Reading, and
Beyond", 2023, arXiv:2308.12966.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import paddle
from paddle import nn

from paddlemix.generation.ends import carried_values
from paddlemix.handover import Arrays
from paddlemix.models.decoder import Decoder, Rotaries
from paddlemix.models.qwen_vl.checkpoint import weight_layout
from paddlemix.models.qwen_vl.config import QWenConfig
from paddlemix.models.qwen_vl.positions import logn_factors, ntk_alpha, scaled_frequencies
from paddlemix.models.qwen_vl.spans import image_places
from paddlemix.models.qwen_vl.tensor_parallel import split_plan
from paddlemix.models.qwen_vl.vision import QWenVisionTower
from paddlemix.models.vision_language import VISION_PLACES, Inputs, Turned, Vision, VisionLanguageModel

if TYPE_CHECKING:
    from paddlemix.models.qwen_vl.chat.context import History
    from paddlemix.models.qwen_vl.tokenizer import QwenTokenizer

# A name in a layout: int64[], how far positions go where they are given.
LENGTH = "length"


class QWenLMHeadModel(VisionLanguageModel):
    """Decoder, vision tower and head, with the published checkpoints' parameter names."""

    config_class = QWenConfig
    weight_layout = staticmethod(weight_layout)
    split_plan = staticmethod(split_plan)
    own_inputs: ClassVar[dict[str, str]] = {"pixel_values": "float[images, 3, S, S] of all images, row by row"}

    def __init__(self, config: QWenConfig) -> None:
        super().__init__(config)
        self.transformer = Decoder(config.decoder_shape)
        # The tower lies inside the decoder in the published names.
        self.transformer.visual = QWenVisionTower(config.visual)
        self.add_head()

    @property
    def decoder(self) -> Decoder:
        """The language model."""
        return self.transformer

    @property
    def tower(self) -> nn.Layer:
        """What sees."""
        return self.transformer.visual

    def knows_turns(self, end_of_turn: int) -> bool:
        """Tell whether the checkpoint was trained on conversations: a base model's file asks for raw text."""
        del end_of_turn  # which the published files of neither model name
        return carried_values(self).get("chat_format") != "raw"

    def begin_tuning_on_turns(self, end_of_turn: int, other_ends: Collection[int]) -> None:
        """Let a base model, which completes its prompt as it stands, answer in turns once it is tuned on them.

        Args:
            end_of_turn: as every model takes it.
            other_ends: as every model takes them.
        """
        # A chat model's file names no turn's end: `chat` and its counterpart in the published code know it.
        if carried_values(self).get("chat_format") != "chatml":
            super().begin_tuning_on_turns(end_of_turn, other_ends)
            self.carry_generation_values({**carried_values(self), "chat_format": "chatml"})

    def chat(  # type: ignore[override]  # the published one takes the tokenizer
        self,
        tokenizer: QwenTokenizer,
        query: str,
        history: History | None = None,
        **options: Any,
    ) -> tuple[str, list[tuple[str, str | None]]]:
        """Answer a query after a history: see `paddlemix.models.qwen_vl.chat.chat.chat`."""
        from paddlemix.models.qwen_vl.chat.chat import chat  # here: a chat opens images, which no model does

        return chat(self, tokenizer, query, history, **options)

    def chat_stream(  # type: ignore[override]
        self,
        tokenizer: QwenTokenizer,
        query: str,
        history: History | None = None,
        **options: Any,
    ) -> Iterator[str]:
        """Answer a query while the answer is being written: see `paddlemix.models.qwen_vl.chat.chat.chat_stream`."""
        from paddlemix.models.qwen_vl.chat.chat import chat_stream  # here: a chat opens images, which no model does

        return chat_stream(self, tokenizer, query, history, **options)

    @classmethod
    def lay_out_own(cls, config: QWenConfig, batch: Arrays, past: int) -> dict[str, np.ndarray]:
        """Find where images belong, and how far the positions that are given go."""
        laid: dict[str, np.ndarray] = {}
        # While an answer is written its tokens are no images, whatever the model says.
        if "input_ids" in batch and not (past and "pixel_values" not in batch):
            visual = config.visual
            places = image_places(batch["input_ids"], visual.image_start_id, visual.n_queries)
            laid[VISION_PLACES] = np.flatnonzero(places)
        if "position_ids" in batch and not past:
            laid[LENGTH] = batch["position_ids"].max() + 1
        return laid

    def turn(self, inputs: Inputs) -> Turned:
        """Count places; further than the model was trained to see, by dynamic NTK and log-n attention."""
        return Turned(rotaries(self.config, inputs, training=self.training))

    def look(self, inputs: Inputs) -> Vision | None:
        """Run the tower on the batch's images; as many must stand among its tokens."""
        pixel_values, input_ids = inputs.own.get("pixel_values"), inputs.input_ids
        if input_ids is None and pixel_values is not None:
            raise ValueError("`pixel_values` were given without `input_ids`, which say where the images belong.")
        if VISION_PLACES not in inputs.layout:
            return None
        given = 0 if pixel_values is None else pixel_values.shape[0]
        shown = len(inputs.layout.array(VISION_PLACES)) // self.config.visual.n_queries
        if shown != given:
            raise ValueError(
                f"{shown} images stand among the tokens, but `pixel_values` holds {given}; give each its pixels."
            )
        if pixel_values is None:
            return None
        return Vision(self.tower(pixel_values).flatten(0, 1), inputs.layout.tensor(VISION_PLACES))

    def look_at_nothing(self) -> paddle.Tensor:
        """Run the tower on an image of one patch of zeros."""
        patch = self.config.visual.patch_size
        return self.tower(paddle.zeros([1, 3, patch, patch]))


def rotaries(config: QWenConfig, inputs: Inputs, *, training: bool) -> Rotaries:
    """Compute by which cosines and sines a batch's tokens turn.

    Args:
        config: the model's.
        inputs: of the forward pass; without positions places are counted, padding on the left included.
        training: whether the model is trained, which knows neither dynamic NTK nor log-n attention.

    Returns:
        Of queries, with the log-n factor in them, and of keys.
    """
    position_ids, past, length = inputs.position_ids, inputs.past, inputs.shape[1]
    alpha = 1 if training or not config.use_dynamic_ntk else _ntk_alpha(config, inputs)
    if position_ids is None:
        position_ids = paddle.arange(past, past + length).unsqueeze(0).expand(inputs.shape)
    frequencies = scaled_frequencies(config.rotary_emb_base, config.head_dim, alpha)
    angles = position_ids.astype("float32").unsqueeze(-1) * frequencies
    rotary = angles.cos(), angles.sin()
    if training or not config.use_logn_attn:
        return Rotaries(rotary, rotary)
    # A turned query times a factor is the query turned by cosines and sines times that factor.
    factors = logn_factors(position_ids, config.seq_length).unsqueeze(-1)
    return Rotaries((rotary[0] * factors, rotary[1] * factors), rotary)


def _ntk_alpha(config: QWenConfig, inputs: Inputs) -> int:
    """Compute the prompt's, also while an answer is written: the cached keys were turned by it."""
    length = inputs.shape[1]
    if inputs.past:
        length = inputs.caches[0].prefilled
    elif inputs.position_ids is not None:
        length = int(inputs.layout.array(LENGTH))
    return ntk_alpha(length, config.seq_length)
