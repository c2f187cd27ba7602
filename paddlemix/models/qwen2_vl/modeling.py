"""Qwen2-VL: a vision tower whose tokens stand among the text tokens of a Qwen2 decoder with M-RoPE.

Source: Wang et al., "Qwen2-VL: Enhancing Vision-Language Model's Perception of the World at Any Resolution", 2024.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import paddle
from paddle import nn

from paddlemix.contract import LayerCache
from paddlemix.models.base import MixModelOutput, MixPretrainedModel
from paddlemix.models.layers.borrowing import Borrowing
from paddlemix.models.layers.decoding import DecoderParts, is_plain
from paddlemix.models.layers.linear import Linear
from paddlemix.models.layers.loss import next_token_loss
from paddlemix.models.layers.mask import causal_mask, check_pack_inputs
from paddlemix.models.layers.mlp import GatedMLP
from paddlemix.models.layers.norm import RMSNorm
from paddlemix.models.layers.recompute import run_block
from paddlemix.models.layers.tensor_parallel import embedding_logits
from paddlemix.models.layers.vision_tokens import Meeting, place_vision
from paddlemix.models.qwen2_vl.checkpoint import weight_layout
from paddlemix.models.qwen2_vl.config import Qwen2VLConfig
from paddlemix.models.qwen2_vl.positions import batch_mrope_positions
from paddlemix.models.qwen2_vl.tensor_parallel import split_plan
from paddlemix.models.qwen2_vl.vision import Qwen2VLVisionTower
from paddlemix.ops import CausalSegments, Rotary, Visible, attention, rotary_frequencies, rotate_pair


@dataclass
class Qwen2VLOutput(MixModelOutput):
    """What a forward pass gives, and where positions go on.

    Attributes:
        rope_deltas: int64[B, 1], the next position less the tokens so far; feed it back while decoding.
    """

    rope_deltas: paddle.Tensor | None = None

    def next_inputs(self) -> dict[str, paddle.Tensor]:
        """The deltas, without which positions cannot go on behind an image."""
        return {} if self.rope_deltas is None else {"rope_deltas": self.rope_deltas}


class Qwen2VLAttention(nn.Layer):
    """Causal attention with grouped heads; biases on query, key and value only."""

    def __init__(self, config: Qwen2VLConfig) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        key_width = config.num_key_value_heads * config.head_dim
        self.q_proj = Linear(config.hidden_size, config.hidden_size)
        self.k_proj = Linear(config.hidden_size, key_width)
        self.v_proj = Linear(config.hidden_size, key_width)
        self.o_proj = Linear(config.hidden_size, config.hidden_size, bias_attr=False)

    def forward(self, x: paddle.Tensor, rotary: Rotary, mask: Visible, cache: LayerCache | None) -> paddle.Tensor:
        """Mix float[B, L, hidden] with itself and with what `cache` holds."""
        batch, length, _ = x.shape
        query, key, value = (
            project(x).reshape([batch, length, -1, self.head_dim])
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        query, key = rotate_pair(query, key, *rotary)
        if cache is not None:
            key, value = cache.extend(key, value)
        return self.o_proj(attention(query, key, value, mask).reshape([batch, length, -1]))


class Qwen2VLDecoderLayer(nn.Layer):
    """One pre-norm transformer block."""

    def __init__(self, config: Qwen2VLConfig) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Qwen2VLAttention(config)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = GatedMLP(config.hidden_size, config.intermediate_size)

    def forward(self, x: paddle.Tensor, rotary: Rotary, mask: Visible, cache: LayerCache | None) -> paddle.Tensor:
        """Transform float[B, L, hidden]."""
        if cache is not None and (parts := self._parts()) is not None:
            decoded = parts.decode(x, rotary, rotary, mask, cache)
            if decoded is not None:
                return decoded
        mixed = self.self_attn(self.input_layernorm(x), rotary, mask, cache)
        x, normed = self.post_attention_layernorm.after_adding(x, mixed)
        return x + self.mlp(normed)

    def _parts(self) -> DecoderParts | None:
        attention, mlp = self.self_attn, self.mlp
        if not (is_plain(attention, Qwen2VLAttention) and is_plain(mlp, GatedMLP)):
            return None
        return DecoderParts(
            self.input_layernorm,
            (attention.q_proj, attention.k_proj, attention.v_proj),
            attention.o_proj,
            self.post_attention_layernorm,
            mlp.gate_proj,
            mlp.up_proj,
            mlp.down_proj,
        )


class Qwen2VLDecoder(nn.Layer):
    """Token embedding, decoder layers, final norm.

    Args:
        config: the model's.

    Attributes:
        recompute: whether training computes the layers' activations twice and does not keep them.
    """

    recompute: bool

    def __init__(self, config: Qwen2VLConfig) -> None:
        super().__init__()
        self.config = config
        self.recompute = False
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.LayerList([Qwen2VLDecoderLayer(config) for _ in range(config.num_hidden_layers)])
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(
        self,
        inputs_embeds: paddle.Tensor,
        position_ids: paddle.Tensor,
        attention_mask: paddle.Tensor | None = None,
        past_key_values: list[LayerCache] | None = None,
        cu_seqlens: paddle.Tensor | None = None,
    ) -> paddle.Tensor:
        """Turn embeddings into hidden states.

        Args:
            inputs_embeds: float[B, L, hidden].
            position_ids: int64[3, B, L].
            attention_mask: int64[B, past + L], 0 on padding.
            past_key_values: one cache a layer.
            cu_seqlens: int32[n + 1], where the samples of a pack begin and end.

        Returns:
            float[B, L, hidden].
        """
        caches: Sequence[LayerCache | None] = past_key_values or [None] * len(self.layers)
        past = past_key_values[0].length if past_key_values else 0
        length = inputs_embeds.shape[1]
        mask: Visible = (
            causal_mask(length, past + length, attention_mask) if cu_seqlens is None else CausalSegments(cu_seqlens)
        )
        rotary = self._rotary(position_ids)
        x = inputs_embeds
        for layer, cache in zip(self.layers, caches, strict=True):
            x = run_block(layer, x, rotary, mask, cache, recompute=self.recompute and cache is None)
        return self.norm(x)

    def embed(self, input_ids: paddle.Tensor) -> paddle.Tensor:
        """Look up int64[B, L] as float[B, L, hidden]; as in the published code, that never trains the padding token."""
        embeds = self.embed_tokens(input_ids)
        padding = self.config.pad_token_id
        if padding is None or embeds.stop_gradient:
            return embeds
        return paddle.where((input_ids == padding).unsqueeze(-1), embeds.detach(), embeds)

    def _rotary(self, position_ids: paddle.Tensor) -> Rotary:
        """Cosines and sines float32[B, L, head_dim / 2]: each pair turns with the axis that mrope_section gives it."""
        frequencies = rotary_frequencies(self.config.rope_theta, self.config.head_dim)
        axes = paddle.to_tensor(np.repeat(np.arange(3), self.config.mrope_section))
        positions = paddle.index_select(position_ids, axes, axis=0).transpose([1, 2, 0]).astype("float32")
        angles = positions * paddle.to_tensor(frequencies)
        return angles.cos(), angles.sin()


class Qwen2VLForConditionalGeneration(MixPretrainedModel):
    """Vision tower, decoder and head, with the published checkpoints' parameter names."""

    config_class = Qwen2VLConfig
    weight_layout = staticmethod(weight_layout)
    split_plan = staticmethod(split_plan)

    def __init__(self, config: Qwen2VLConfig) -> None:
        super().__init__(config)
        self.visual = Qwen2VLVisionTower(config.vision_config)
        self.model = Qwen2VLDecoder(config)
        if not config.tie_word_embeddings:
            self.lm_head = Linear(config.hidden_size, config.vocab_size, bias_attr=False)
        self.with_head = Borrowing(self._head.weight)

    def get_input_embeddings(self) -> nn.Embedding:
        """The token embedding, Trainer and LoRA ask for it."""
        return self.model.embed_tokens

    def set_recompute(self, *, vision: bool, language: bool) -> None:
        """Choose which blocks' activations training computes twice and does not keep."""
        self.visual.recompute, self.model.recompute = vision, language

    def forward(
        self,
        input_ids: paddle.Tensor | None = None,
        attention_mask: paddle.Tensor | None = None,
        position_ids: paddle.Tensor | None = None,
        past_key_values: list[LayerCache] | None = None,
        inputs_embeds: paddle.Tensor | None = None,
        labels: paddle.Tensor | None = None,
        pixel_values: paddle.Tensor | None = None,
        pixel_values_videos: paddle.Tensor | None = None,
        image_grid_thw: paddle.Tensor | None = None,
        video_grid_thw: paddle.Tensor | None = None,
        rope_deltas: paddle.Tensor | None = None,
        last_logits_only: bool = False,
        cu_seqlens: paddle.Tensor | None = None,
        loss_weights: paddle.Tensor | None = None,
    ) -> Qwen2VLOutput:
        """Run the model.

        Args:
            input_ids: int64[B, L].
            attention_mask: int64[B, past + L], 0 on padding, on either side.
            position_ids: int64[3, B, L]; laid out from the tokens and grids where not given.
            past_key_values: one cache a layer, filled further in place.
            inputs_embeds: float[B, L, hidden] in place of the embeddings of `input_ids`.
            labels: int64[B, L], the token itself at each place (the shift is done here), -100 where none is asked.
            pixel_values: float[patches, patch_values] of all images of the batch, row by row.
            pixel_values_videos: float[patches, patch_values] of all videos.
            image_grid_thw: int64[images, 3].
            video_grid_thw: int64[videos, 3].
            rope_deltas: int64[B, 1] from the prefill, while decoding.
            last_logits_only: compute the logits of the last place alone.
            cu_seqlens: int32[n + 1], where the n samples of a pack begin and end; the pack is the one row of the
                batch, its `position_ids` restart at every sample, whose first token `labels` leaves out.
            loss_weights: float32[B, L], by which the loss of each place's label is multiplied before all are summed;
                the mean is taken where not given.

        Returns:
            Loss, logits, cache and deltas.

        Raises:
            ValueError: the vision tokens are not those that the images and videos make, or `cu_seqlens` comes without
                `position_ids`, with padding or with a cache.
        """
        if cu_seqlens is not None:
            check_pack_inputs(position_ids, attention_mask, past_key_values)
        if position_ids is None:
            position_ids, rope_deltas = self._positions(
                input_ids, attention_mask, image_grid_thw, video_grid_thw, past_key_values, rope_deltas
            )
        if inputs_embeds is None:
            inputs_embeds = self.model.embed(input_ids)
        media = [
            (input_ids == token_id, pixels, grids)
            for token_id, pixels, grids in (
                (self.config.image_token_id, pixel_values, image_grid_thw),
                (self.config.video_token_id, pixel_values_videos, video_grid_thw),
            )
            if pixels is not None
        ]
        if media:
            inputs_embeds = self._with_vision(inputs_embeds, *map(list, zip(*media, strict=True)))
        elif labels is not None:
            inputs_embeds = self._with_idle_tower(inputs_embeds)
        hidden = self.model(inputs_embeds, position_ids, attention_mask, past_key_values, cu_seqlens)
        loss = None if labels is None else self.with_head(next_token_loss, hidden, labels, self._head, loss_weights)
        logits = (
            None
            if loss is not None and self.training
            else self.with_head(self._logits, hidden[:, -1:] if last_logits_only else hidden)
        )
        return Qwen2VLOutput(loss, logits, past_key_values, rope_deltas)

    def _positions(
        self,
        input_ids: paddle.Tensor | None,
        attention_mask: paddle.Tensor | None,
        image_grid_thw: paddle.Tensor | None,
        video_grid_thw: paddle.Tensor | None,
        past_key_values: list[LayerCache] | None,
        rope_deltas: paddle.Tensor | None,
    ) -> tuple[paddle.Tensor, paddle.Tensor]:
        if input_ids is None:
            raise ValueError("`position_ids` must be given with `inputs_embeds`: M-RoPE is laid out from `input_ids`.")
        past = past_key_values[0].length if past_key_values else 0
        if past:
            if rope_deltas is None:
                raise ValueError("`rope_deltas` of the prefill must be given while decoding from `past_key_values`.")
            counted = paddle.arange(past, past + input_ids.shape[1]).unsqueeze(0) + rope_deltas
            return counted.unsqueeze(0).expand([3, -1, -1]), rope_deltas
        optional = (
            None if tensor is None else tensor.numpy() for tensor in (attention_mask, image_grid_thw, video_grid_thw)
        )
        position_ids, deltas = batch_mrope_positions(
            input_ids.numpy(),
            *optional,
            image_token_id=self.config.image_token_id,
            video_token_id=self.config.video_token_id,
            merge_size=self.config.vision_config.spatial_merge_size,
        )
        return paddle.to_tensor(position_ids), paddle.to_tensor(deltas)

    def _with_vision(
        self,
        embeds: paddle.Tensor,
        places: list[paddle.Tensor],
        pixels: list[paddle.Tensor],
        grids: list[paddle.Tensor],
    ) -> paddle.Tensor:
        """The embeddings float[B, L, hidden] with images and videos in their places.

        The tower is run once for both: ranks that train together must all run it as often.
        """
        window = self.config.vision_config.spatial_merge_size**2
        features = self.visual(*(one[0] if len(one) == 1 else paddle.concat(one) for one in (pixels, grids)))
        embeds, features = Meeting.apply(embeds, features)
        for where, part in zip(places, features.split([one.shape[0] // window for one in pixels]), strict=True):
            embeds = place_vision(embeds, where, part)
        return embeds

    def _with_idle_tower(self, embeds: paddle.Tensor) -> paddle.Tensor:
        """The embeddings float[B, L, hidden], plus a zero through which the tower's parameters get gradients of zero.

        Ranks that train together must all run the tower, whether their batches show images or not: gradients are
        summed over ranks parameter by parameter, and parameters that are in pieces, frozen ones too, are put together
        by all ranks, in evaluation as well. One merged token is the least that reaches every parameter.
        """
        merge = self.config.vision_config.spatial_merge_size
        patches = paddle.zeros([merge**2, self.config.vision_config.patch_values])
        embeds, idle = Meeting.apply(embeds, self.visual(patches, paddle.to_tensor([[1, merge, merge]])))
        return embeds + (idle.mean() * 0).astype(embeds.dtype)

    @property
    def _head(self) -> nn.Layer:
        return self.model.embed_tokens if self.config.tie_word_embeddings else self.lm_head

    def _logits(self, hidden: paddle.Tensor) -> paddle.Tensor:
        if self.config.tie_word_embeddings:
            return embedding_logits(hidden, self.model.embed_tokens)
        return self.lm_head(hidden)
