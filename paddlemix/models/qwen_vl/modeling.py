"""Qwen-VL: images, resampled to a fixed number of tokens each, among the text tokens of a Qwen decoder.

Source: Bai et al., "Qwen-VL: A Versatile Vision-Language Model for Understanding, Localization, Text Reading, and
Beyond", 2023.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import paddle
from paddle import nn

from paddlemix.contract import LayerCache
from paddlemix.models.base import MixModelOutput, MixPretrainedModel
from paddlemix.models.layers.borrowing import Borrowing
from paddlemix.models.layers.decoding import DecoderParts, is_plain
from paddlemix.models.layers.linear import Linear
from paddlemix.models.layers.loss import next_token_loss
from paddlemix.models.layers.mask import causal_mask, check_pack_inputs
from paddlemix.models.layers.norm import RMSNorm
from paddlemix.models.layers.recompute import run_block
from paddlemix.models.layers.vision_tokens import Meeting, place_vision
from paddlemix.models.qwen_vl.checkpoint import weight_layout
from paddlemix.models.qwen_vl.config import QWenConfig
from paddlemix.models.qwen_vl.positions import logn_factors, ntk_alpha, scaled_frequencies
from paddlemix.models.qwen_vl.spans import image_places
from paddlemix.models.qwen_vl.tensor_parallel import split_plan
from paddlemix.models.qwen_vl.vision import QWenVisionTower
from paddlemix.names import GENERATION_FILE
from paddlemix.ops import CausalSegments, Rotary, Visible, apply_rotary, attention, swiglu


class QWenAttention(nn.Layer):
    """Causal attention; query, key and value come out of one projection, the only one with a bias."""

    def __init__(self, config: QWenConfig) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        self.c_attn = Linear(config.hidden_size, 3 * config.hidden_size)
        self.c_proj = Linear(config.hidden_size, config.hidden_size, bias_attr=False)

    def forward(
        self,
        x: paddle.Tensor,
        query_rotary: Rotary,
        key_rotary: Rotary,
        mask: Visible,
        cache: LayerCache | None,
    ) -> paddle.Tensor:
        """Mix float[B, L, hidden] with itself and with what `cache` holds."""
        batch, length, _ = x.shape
        query, key, value = self.c_attn(x).reshape([batch, length, 3, -1, self.head_dim]).unbind(axis=2)
        query, key = apply_rotary(query, *query_rotary), apply_rotary(key, *key_rotary)
        if cache is not None:
            key, value = cache.extend(key, value)
        return self.c_proj(attention(query, key, value, mask).reshape([batch, length, -1]))


class QWenMLP(nn.Layer):
    """`c_proj(silu(w2(x)) * w1(x))`, no biases."""

    def __init__(self, size: int, inner_size: int) -> None:
        super().__init__()
        self.w1 = Linear(size, inner_size, bias_attr=False)
        self.w2 = Linear(size, inner_size, bias_attr=False)
        self.c_proj = Linear(inner_size, size, bias_attr=False)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Transform float[..., size]."""
        return self.c_proj(swiglu(self.w2(x), self.w1(x)))


class QWenBlock(nn.Layer):
    """One pre-norm transformer block."""

    def __init__(self, config: QWenConfig) -> None:
        super().__init__()
        self.ln_1 = RMSNorm(config.hidden_size, config.layer_norm_epsilon)
        self.attn = QWenAttention(config)
        self.ln_2 = RMSNorm(config.hidden_size, config.layer_norm_epsilon)
        self.mlp = QWenMLP(config.hidden_size, config.mlp_size)

    def forward(
        self,
        x: paddle.Tensor,
        query_rotary: Rotary,
        key_rotary: Rotary,
        mask: Visible,
        cache: LayerCache | None,
    ) -> paddle.Tensor:
        """Transform float[B, L, hidden]."""
        if cache is not None and (parts := self._parts()) is not None:
            decoded = parts.decode(x, query_rotary, key_rotary, mask, cache)
            if decoded is not None:
                return decoded
        mixed = self.attn(self.ln_1(x), query_rotary, key_rotary, mask, cache)
        x, normed = self.ln_2.after_adding(x, mixed)
        return x + self.mlp(normed)

    def _parts(self) -> DecoderParts | None:
        attention, mlp = self.attn, self.mlp
        if not (is_plain(attention, QWenAttention) and is_plain(mlp, QWenMLP)):
            return None
        return DecoderParts(self.ln_1, (attention.c_attn,), attention.c_proj, self.ln_2, mlp.w2, mlp.w1, mlp.c_proj)


class QWenTransformer(nn.Layer):
    """Token embedding, decoder blocks, final norm, and the vision tower, where the published names have it.

    Args:
        config: the model's.

    Attributes:
        recompute: whether training computes the blocks' activations twice and does not keep them.
    """

    recompute: bool

    def __init__(self, config: QWenConfig) -> None:
        super().__init__()
        self.config = config
        self.recompute = False
        self.wte = nn.Embedding(config.vocab_size, config.hidden_size)
        self.h = nn.LayerList([QWenBlock(config) for _ in range(config.num_hidden_layers)])
        self.ln_f = RMSNorm(config.hidden_size, config.layer_norm_epsilon)
        self.visual = QWenVisionTower(config.visual)

    def forward(
        self,
        inputs_embeds: paddle.Tensor,
        attention_mask: Visible,
        position_ids: paddle.Tensor | None,
        past_key_values: list[LayerCache] | None,
        cu_seqlens: paddle.Tensor | None = None,
    ) -> paddle.Tensor:
        """Turn embeddings into hidden states.

        Args:
            inputs_embeds: float[B, L, hidden].
            attention_mask: int64 or bool[B, past + L], 0 on padding.
            position_ids: int64[B, L]; None counts on from what the caches hold.
            past_key_values: one cache a layer.
            cu_seqlens: int32[n + 1], where the samples of a pack begin and end.

        Returns:
            float[B, L, hidden].
        """
        caches: Sequence[LayerCache | None] = past_key_values or [None] * len(self.h)
        past, length = past_key_values[0].length if past_key_values else 0, inputs_embeds.shape[1]
        mask: Visible = (
            causal_mask(length, past + length, attention_mask) if cu_seqlens is None else CausalSegments(cu_seqlens)
        )
        query_rotary, key_rotary = self._rotary(position_ids, inputs_embeds.shape[:2], caches[0])
        x = inputs_embeds
        for block, cache in zip(self.h, caches, strict=True):
            recompute = self.recompute and cache is None
            x = run_block(block, x, query_rotary, key_rotary, mask, cache, recompute=recompute)
        return self.ln_f(x)

    def _rotary(
        self, position_ids: paddle.Tensor | None, shape: list[int], cache: LayerCache | None
    ) -> tuple[Rotary, Rotary]:
        """Cosines and sines float32[B, L, head_dim / 2] for queries, with log-n in them, and for keys."""
        config, past, length = self.config, 0 if cache is None else cache.length, shape[1]
        alpha = self._ntk_alpha(position_ids, length, cache)
        if position_ids is None:
            position_ids = paddle.arange(past, past + length).unsqueeze(0).expand(shape)
        frequencies = scaled_frequencies(config.rotary_emb_base, config.head_dim, alpha)
        angles = position_ids.astype("float32").unsqueeze(-1) * frequencies
        rotary = angles.cos(), angles.sin()
        if self.training or not config.use_logn_attn:
            return rotary, rotary
        # A turned query times a factor is the query turned by cosines and sines times that factor.
        factors = logn_factors(position_ids, config.seq_length).unsqueeze(-1)
        return (rotary[0] * factors, rotary[1] * factors), rotary

    def _ntk_alpha(self, position_ids: paddle.Tensor | None, length: int, cache: LayerCache | None) -> int:
        """Of the prompt, also while an answer is written: the cached keys were turned by it."""
        if self.training or not self.config.use_dynamic_ntk:
            return 1
        if cache is not None and cache.length:
            length = cache.prefilled
        elif position_ids is not None:
            length = int(position_ids.max()) + 1
        return ntk_alpha(length, self.config.seq_length)


class QWenLMHeadModel(MixPretrainedModel):
    """Decoder, vision tower and head, with the published checkpoints' parameter names."""

    config_class = QWenConfig
    weight_layout = staticmethod(weight_layout)
    split_plan = staticmethod(split_plan)

    def __init__(self, config: QWenConfig) -> None:
        super().__init__(config)
        self.transformer = QWenTransformer(config)
        self.lm_head = Linear(config.hidden_size, config.vocab_size, bias_attr=False)
        self.with_head = Borrowing(self.lm_head.weight)

    def get_input_embeddings(self) -> nn.Embedding:
        """The token embedding, Trainer and LoRA ask for it."""
        return self.transformer.wte

    def set_recompute(self, *, vision: bool, language: bool) -> None:
        """Choose which blocks' activations training computes twice and does not keep."""
        self.transformer.visual.transformer.recompute, self.transformer.recompute = vision, language

    def knows_turns(self, end_of_turn: int) -> bool:
        """Whether the checkpoint was trained on conversations: a base model's file asks for raw text."""
        del end_of_turn  # which the published files of neither model name
        return json.loads(self.carried_files.get(GENERATION_FILE, b"{}")).get("chat_format") != "raw"

    def begin_tuning_on_turns(self) -> None:
        """A base model completes its prompt as it stands; what is tuned on turns answers in turns."""
        values = json.loads(self.carried_files.get(GENERATION_FILE, b"{}"))
        if values.get("chat_format") == "raw":
            content = json.dumps({**values, "chat_format": "chatml"}, ensure_ascii=False, indent=2)
            self.carried_files[GENERATION_FILE] = f"{content}\n".encode()

    def chat(
        self, tokenizer: Any, query: str, history: Sequence[tuple[str, str | None]] | None = None, **options: Any
    ) -> tuple[str, list[tuple[str, str | None]]]:
        """Answer a query after a history: see `paddlemix.models.qwen_vl.chat.chat.chat`."""
        from paddlemix.models.qwen_vl.chat.chat import chat  # here: a chat opens images, which no model does

        return chat(self, tokenizer, query, history, **options)

    def chat_stream(
        self, tokenizer: Any, query: str, history: Sequence[tuple[str, str | None]] | None = None, **options: Any
    ) -> Iterator[str]:
        """Answer a query while the answer is being written: see `paddlemix.models.qwen_vl.chat.chat.chat_stream`."""
        from paddlemix.models.qwen_vl.chat.chat import chat_stream  # here: a chat opens images, which no model does

        return chat_stream(self, tokenizer, query, history, **options)

    def forward(
        self,
        input_ids: paddle.Tensor | None = None,
        attention_mask: paddle.Tensor | None = None,
        position_ids: paddle.Tensor | None = None,
        past_key_values: list[LayerCache] | None = None,
        inputs_embeds: paddle.Tensor | None = None,
        labels: paddle.Tensor | None = None,
        pixel_values: paddle.Tensor | None = None,
        last_logits_only: bool = False,
        cu_seqlens: paddle.Tensor | None = None,
        loss_weights: paddle.Tensor | None = None,
    ) -> MixModelOutput:
        """Run the model.

        Args:
            input_ids: int64[B, L].
            attention_mask: int64 or bool[B, past + L], 0 on padding, on either side.
            position_ids: int64[B, L]; places in the batch where not given, padding on the left counted.
            past_key_values: one cache a layer, filled further in place.
            inputs_embeds: float[B, L, hidden] in place of the embeddings of `input_ids`.
            labels: int64[B, L], the token itself at each place (the shift is done here), -100 where none is asked.
            pixel_values: float[images, 3, S, S] of all images of the batch, row by row.
            last_logits_only: compute the logits of the last place alone.
            cu_seqlens: int32[n + 1], where the n samples of a pack begin and end; the pack is the one row of the
                batch, its `position_ids` restart at every sample, whose first token `labels` leaves out.
            loss_weights: float32[B, L], by which the loss of each place's label is multiplied before all are summed;
                the mean is taken where not given.

        Returns:
            Loss, logits and cache.

        Raises:
            ValueError: the images are not those that the tokens speak of, or `cu_seqlens` comes without
                `position_ids`, with padding or with a cache.
        """
        if cu_seqlens is not None:
            check_pack_inputs(position_ids, attention_mask, past_key_values)
        if inputs_embeds is None:
            inputs_embeds = self.transformer.wte(input_ids)
        inputs_embeds = self._with_images(inputs_embeds, input_ids, pixel_values, past_key_values)
        if pixel_values is None and labels is not None:
            inputs_embeds = self._with_idle_tower(inputs_embeds)
        hidden = self.transformer(inputs_embeds, attention_mask, position_ids, past_key_values, cu_seqlens)
        loss = None if labels is None else self.with_head(next_token_loss, hidden, labels, self.lm_head, loss_weights)
        is_lean = loss is not None and self.training
        logits = None if is_lean else self.lm_head(hidden[:, -1:] if last_logits_only else hidden)
        return MixModelOutput(loss, logits, past_key_values)

    def _with_images(
        self,
        embeds: paddle.Tensor,
        input_ids: paddle.Tensor | None,
        pixel_values: paddle.Tensor | None,
        caches: list[LayerCache] | None,
    ) -> paddle.Tensor:
        """The embeddings float[B, L, hidden] with the images in their places."""
        # While an answer is written its tokens are no images, whatever the model says.
        if input_ids is not None and (pixel_values is not None or not (caches and caches[0].length)):
            places = self._image_places(input_ids, pixel_values)
        elif pixel_values is not None:
            raise ValueError("`pixel_values` were given without `input_ids`, which say where the images belong.")
        if pixel_values is None:
            return embeds
        embeds, features = Meeting.apply(embeds, self.transformer.visual(pixel_values))
        return place_vision(embeds, places, features.flatten(0, 1))

    def _image_places(self, input_ids: paddle.Tensor, pixel_values: paddle.Tensor | None) -> paddle.Tensor:
        """Where the images belong, bool[B, L]; as many as were given."""
        visual, given = self.config.visual, 0 if pixel_values is None else pixel_values.shape[0]
        places = image_places(input_ids.numpy(), visual.image_start_id, visual.n_queries)
        shown = int(places.sum()) // visual.n_queries
        if shown != given:
            raise ValueError(
                f"{shown} images stand among the tokens, but `pixel_values` holds {given}; give each its pixels."
            )
        return paddle.to_tensor(places)

    def _with_idle_tower(self, embeds: paddle.Tensor) -> paddle.Tensor:
        """The embeddings float[B, L, hidden], plus a zero through which the tower's parameters get gradients of zero.

        Ranks that train together must all run the tower, whether their batches show images or not, and those that
        evaluate together too, where parameters are in pieces. An image of one patch is the least that reaches every
        parameter.
        """
        patch = self.config.visual.patch_size
        idle = self.transformer.visual(paddle.zeros([1, 3, patch, patch], dtype=embeds.dtype))
        embeds, idle = Meeting.apply(embeds, idle)
        return embeds + (idle.mean() * 0).astype(embeds.dtype)
