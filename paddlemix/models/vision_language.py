"""What every vision-language model of the zoo does alike: a tower's features stand among a decoder's tokens.

The forward pass is `embed -> blocks -> head`, written once. A family says which inputs are its own, where positions
come from, what its tower makes of what a batch shows, and where that belongs.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import paddle
from paddle import nn

from paddlemix.contract import LayerCache, Processor
from paddlemix.handover import Arrays, HostCopies, Layout
from paddlemix.models.base import MixModelOutput, MixPretrainedModel
from paddlemix.models.decoder import Decoder, Entering, Rotaries
from paddlemix.models.layers.borrowing import Borrowing
from paddlemix.models.layers.linear import Linear
from paddlemix.models.layers.loss import Targets, find_targets, next_token_loss
from paddlemix.models.layers.mask import check_pack_inputs, known_mask, visible_tokens
from paddlemix.models.layers.tensor_parallel import embedding_logits
from paddlemix.models.layers.vision_tokens import Meeting, place_vision
from paddlemix.ops import CausalSegments

if TYPE_CHECKING:
    from paddlemix.generation.dialogue import History, Query

# Names in a layout: int64[N], places of vision tokens, counted over rows; int32[n + 1], where a pack's samples end.
VISION_PLACES, SAMPLES = "vision.places", "samples"


@dataclass(frozen=True)
class Inputs:
    """A forward pass's inputs, as a family's hooks get them.

    Attributes:
        shape: rows and tokens of the batch.
        input_ids: int64[B, L]; None where embeddings were given.
        attention_mask: int64 or bool[B, past + L], 0 on padding; None where nothing is padded.
        position_ids: int64[B, L] or int64[3, B, L]; None where the family is to find them.
        caches: one a layer; empty where nothing is cached.
        own: the family's own inputs that were given, by name.
        layout: what is known of the batch.
    """

    shape: tuple[int, int]
    input_ids: paddle.Tensor | None
    attention_mask: paddle.Tensor | np.ndarray | None
    position_ids: paddle.Tensor | None
    caches: Sequence[LayerCache]
    own: Mapping[str, paddle.Tensor]
    layout: Layout

    @property
    def past(self) -> int:
        """How many tokens the caches hold."""
        return self.caches[0].length if self.caches else 0


@dataclass(frozen=True)
class Turned:
    """Where tokens stand.

    Attributes:
        rotaries: by which queries and keys turn.
        state: what the model wants back with the next tokens, by input; an attribute of the family's output each.
    """

    rotaries: Rotaries
    state: Mapping[str, paddle.Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Vision:
    """What a batch shows.

    Attributes:
        features: float[N, hidden], what the tower makes of all of it.
        places: int64[N], which of the batch's tokens, counted over rows, they take the places of.
        deep: by block, float[N, hidden] that enters behind it (DeepStack).
    """

    features: paddle.Tensor
    places: paddle.Tensor
    deep: Mapping[int, paddle.Tensor] = field(default_factory=dict)


class VisionLanguageModel(MixPretrainedModel):
    """Tower, decoder and head.

    A family sets `own_inputs` and the hooks `decoder`, `tower`, `lay_out_own`, `turn`, `look` and `look_at_nothing`,
    builds tower and decoder in its `__init__`, and calls `add_head` last.

    Args:
        config: of the family's `config_class`.

    Attributes:
        own_inputs: the inputs of `forward` that only this family has, and what each is.
        output_class: what `forward` returns; its fields beside those of `MixModelOutput` are the names in
            `Turned.state`.
    """

    own_inputs: ClassVar[Mapping[str, str]] = {}
    output_class: ClassVar[type[MixModelOutput]] = MixModelOutput

    @property
    def decoder(self) -> Decoder:
        """The language model."""
        raise NotImplementedError

    @property
    def tower(self) -> nn.Layer:
        """What sees; its `recompute` says whether training computes its blocks' activations twice."""
        raise NotImplementedError

    @classmethod
    def lay_out(cls, config: Any, batch: Arrays, past: int = 0) -> dict[str, np.ndarray]:
        """Find out what the host must know of a batch before it is computed; data workers do so ahead.

        Args:
            config: of the model.
            batch: the inputs of `forward`. Only what is looked up is copied from a card.
            past: how many tokens caches hold.

        Returns:
            Arrays of a `Layout`, by name.

        Raises:
            ValueError: a label is no token, or the vision tokens are not those that the images and videos make.
        """
        laid = cls.lay_out_own(config, batch, past)
        if "labels" in batch:
            laid |= find_targets(batch["labels"], batch.get("loss_weights"), config.vocab_size)
        if "cu_seqlens" in batch:
            laid[SAMPLES] = batch["cu_seqlens"]
        return laid

    @classmethod
    def lay_out_own(cls, config: Any, batch: Arrays, past: int) -> dict[str, np.ndarray]:
        """Find out what `turn`, `look` and the tower must know.

        Args:
            config: of the model.
            batch: as of `lay_out`.
            past: likewise.

        Returns:
            Arrays of a `Layout`, by name.

        Raises:
            ValueError: as `lay_out`.
        """
        raise NotImplementedError

    def turn(self, inputs: Inputs) -> Turned:
        """Find out where the batch's tokens stand.

        Args:
            inputs: of the forward pass.

        Returns:
            Cosines and sines, and what positions go on from.

        Raises:
            ValueError: the tokens are not those that images and videos make.
        """
        raise NotImplementedError

    def look(self, inputs: Inputs) -> Vision | None:
        """Let the tower see what the batch shows.

        Args:
            inputs: of the forward pass.

        Returns:
            Features and their places; None where nothing is shown.

        Raises:
            ValueError: what is shown is not what the tokens speak of.
        """
        raise NotImplementedError

    def look_at_nothing(self) -> paddle.Tensor:
        """Run the tower on the least that reaches every one of its parameters, and return its features."""
        raise NotImplementedError

    def add_head(self) -> None:
        """Make the head, which a tied model has not."""
        if not self.config.tie_word_embeddings:
            self.lm_head = Linear(self.config.hidden_size, self.config.vocab_size, bias_attr=False)
        self.with_head = Borrowing(self.head.weight)

    @property
    def head(self) -> nn.Layer:
        """What gives logits: a linear layer, or the embedding whose weight it shares."""
        return self.decoder.embedding if self.config.tie_word_embeddings else self.lm_head

    @property
    def input_names(self) -> Collection[str]:
        """The names that `forward` takes."""
        return {*_common_inputs(), *self.own_inputs}

    def get_input_embeddings(self) -> nn.Layer:
        """Return the token embedding; Trainer and LoRA ask for it."""
        return self.decoder.embedding

    def set_recompute(self, *, vision: bool, language: bool) -> None:
        """Choose which blocks' activations training computes twice and does not keep."""
        self.tower.recompute, self.decoder.recompute = vision, language

    def chat(
        self,
        processor: Processor,
        query: Query,
        history: Sequence[tuple[Query, str]] | None = None,
        **settings: Any,
    ) -> tuple[str, History]:
        """Answer a query after a history.

        Args:
            processor: of the model's family.
            query: words, or a list of `{"image": path}`, `{"video": path}` and `{"text": words}`.
            history: as the last call gave it back; stays as it is.
            **settings: see `paddlemix.chat.calls.dialogue_with`.

        Returns:
            The raw answer, tags and all, and the history with this query and its answer.

        Raises:
            TypeError: a name is none of the settings.
            ValueError: a setting makes no sense, an image or a video cannot be read, or the query is malformed.
        """
        from paddlemix.chat.calls import inference  # here: a chat opens images, which no model does

        return inference(self, processor, query, history, **settings)

    def chat_stream(
        self,
        processor: Processor,
        query: Query,
        history: Sequence[tuple[Query, str]] | None = None,
        **settings: Any,
    ) -> Iterator[str]:
        """Answer a query while the answer is being written.

        Args:
            processor: as `chat` takes it.
            query: as `chat` takes it.
            history: as `chat` takes it.
            **settings: as `chat` takes them.

        Returns:
            The answer so far, again and again.

        Raises:
            TypeError: a name is none of the settings.
            ValueError: as `chat`.
        """
        from paddlemix.chat.calls import inference_stream  # here: a chat opens images, which no model does

        return (answer for answer, _ in inference_stream(self, processor, query, history, **settings))

    def forward(
        self,
        input_ids: paddle.Tensor | None = None,
        attention_mask: paddle.Tensor | np.ndarray | None = None,
        position_ids: paddle.Tensor | None = None,
        past_key_values: list[LayerCache] | None = None,
        inputs_embeds: paddle.Tensor | None = None,
        labels: paddle.Tensor | None = None,
        last_logits_only: bool = False,
        cu_seqlens: paddle.Tensor | None = None,
        loss_weights: paddle.Tensor | None = None,
        layout: Layout | None = None,
        **own: paddle.Tensor | None,
    ) -> MixModelOutput:
        """Run the model.

        Args:
            input_ids: int64[B, L].
            attention_mask: int64 or bool[B, past + L], 0 on padding, on either side. The host has to know it: one on a
                card is copied from it, and waited for; an array is not.
            position_ids: int64[B, L], or int64[3, B, L] of a family with M-RoPE; laid out from the tokens, and from
                what they show, where not given.
            past_key_values: one cache a layer, filled further in place.
            inputs_embeds: float[B, L, hidden] in place of the embeddings of `input_ids`.
            labels: int64[B, L], the token itself at each place (the shift is done here), -100 where none is asked.
            last_logits_only: compute the logits of the last place alone.
            cu_seqlens: int32[n + 1], where the n samples of a pack begin and end; the pack is the one row of the
                batch, its `position_ids` restart at every sample, whose first token `labels` leaves out.
            loss_weights: float32[B, L], by which the loss of each place's label is multiplied before all are summed;
                the mean is taken where not given.
            layout: of `lay_out`, of this batch; found from the other inputs where not given, for which a card is waited
                for.
            **own: the family's `own_inputs`, such as pixel_values; None is an input not given.

        Returns:
            Loss, logits and cache, and what the family's output has beside them.

        Raises:
            TypeError: an input is none of the family's.
            ValueError: the vision tokens are not those that the images and videos make, or `cu_seqlens` comes without
                `position_ids`, with padding or with a cache.
        """
        self._check_names(own)
        if cu_seqlens is not None:
            check_pack_inputs(position_ids, attention_mask, past_key_values)
        caches = past_key_values or []
        tokens: Any = inputs_embeds if input_ids is None else input_ids
        rows, length = tokens.shape[:2]
        given = {name: tensor for name, tensor in own.items() if tensor is not None}
        attention_mask = known_mask(attention_mask)
        past = caches[0].length if caches else 0
        if layout is None:
            layout = self._layout_of(
                past,
                input_ids=input_ids,
                attention_mask=attention_mask,
                position_ids=position_ids,
                labels=labels,
                cu_seqlens=cu_seqlens,
                loss_weights=loss_weights,
                **given,
            )
        inputs = Inputs((rows, length), input_ids, attention_mask, position_ids, caches, given, layout)
        turned = self.turn(inputs)
        embeds = self.decoder.embed(input_ids) if inputs_embeds is None else inputs_embeds
        embeds, entering = self._with_vision(embeds, self.look(inputs), trains=labels is not None)
        samples = None if cu_seqlens is None else CausalSegments(cu_seqlens, layout.array(SAMPLES))
        mask = visible_tokens(length, past + length, attention_mask, samples)
        layers: Sequence[LayerCache | None] = caches or [None] * self.decoder.shape.layers
        hidden = self.decoder(embeds, turned.rotaries, mask, layers, entering)
        loss = None if labels is None else self.with_head(next_token_loss, hidden, Targets.of(layout), self.head)
        is_lean = loss is not None and self.training
        asked = hidden[:, -1:] if last_logits_only else hidden
        logits = None if is_lean else self.with_head(self._logits, asked)
        return self.output_class(loss, logits, past_key_values, **turned.state)

    def _layout_of(self, past: int, **inputs: paddle.Tensor | None) -> Layout:
        return Layout(self.lay_out(self.config, HostCopies(inputs), past))

    def _with_vision(
        self, embeds: paddle.Tensor, vision: Vision | None, *, trains: bool
    ) -> tuple[paddle.Tensor, Entering | None]:
        """Put features in their places among float[B, L, hidden], and tell what enters behind blocks."""
        if vision is None:
            return (self._with_idle_tower(embeds) if trains else embeds), None
        embeds, features = Meeting.apply(embeds, vision.features)
        embeds = place_vision(embeds, vision.places, features)
        return embeds, Entering(vision.places, vision.deep) if vision.deep else None

    def _with_idle_tower(self, embeds: paddle.Tensor) -> paddle.Tensor:
        """Add a zero to float[B, L, hidden] through which the tower's parameters get gradients of zero.

        Ranks that train together must all run the tower, whether their batches show images or not: gradients are
        summed over ranks parameter by parameter, and parameters that are in pieces, frozen ones too, are put together
        by all ranks, in evaluation as well.
        """
        embeds, idle = Meeting.apply(embeds, self.look_at_nothing())
        return embeds + (idle.mean() * 0).astype(embeds.dtype)

    def _logits(self, hidden: paddle.Tensor) -> paddle.Tensor:
        if self.config.tie_word_embeddings:
            return embedding_logits(hidden, self.decoder.embedding)
        return self.lm_head(hidden)

    def _check_names(self, own: Mapping[str, Any]) -> None:
        unknown = sorted(own.keys() - self.own_inputs.keys())
        if unknown:
            raise TypeError(
                f"{type(self).__name__} got {', '.join(unknown)}; expected its inputs "
                f"{', '.join((*_common_inputs(), *self.own_inputs))}."
            )


@cache
def _common_inputs() -> tuple[str, ...]:
    """Name the inputs that every family's `forward` has."""
    parameters = inspect.signature(VisionLanguageModel.forward).parameters.values()
    return tuple(one.name for one in parameters if one.kind is one.POSITIONAL_OR_KEYWORD and one.name != "self")
