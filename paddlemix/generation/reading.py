"""A model that reads a batch's prompts once, and then only what is new."""

from __future__ import annotations

from typing import Any

import numpy as np
import paddle

from paddlemix.contract import Model
from paddlemix.generation.cache import KVCaches
from paddlemix.handover import HostCopies, handed_over, with_layout
from paddlemix.ops import flushed_denormals

# What only the model reads, pixels and grids, may be Paddle's tensors already.
Batch = dict[str, Any]

# Labels and positions are a collator's for training; the model lays positions out itself, and says where they end.
_NOT_FED = ("labels", "position_ids", "attention_mask")


class CachedReader:
    """Feeds a model token by token.

    Args:
        model: in evaluation mode; its `config.num_hidden_layers` says how many caches it wants.
        batch: input_ids int64[B, L]; attention_mask int64[B, L], padding on the left; images as the model takes them.
        max_new_tokens: how many tokens a row may grow by.

    Raises:
        ValueError: a row is padded on the right.
    """

    def __init__(self, model: Model, batch: Batch, max_new_tokens: int) -> None:
        self._model = model
        ids = batch["input_ids"]
        mask = batch.get("attention_mask", np.ones(ids.shape, dtype=np.int64))
        if not mask[:, -1].all():
            raise ValueError("a row of the batch ends with padding; its answer begins at the end: pad on the left.")
        self._prompts = [row[is_token == 1] for row, is_token in zip(ids, mask, strict=True)]
        # Where nothing is padded the model needs no mask, and attention is spared adding one.
        self._mask = None if mask.all() else np.pad(mask, ((0, 0), (0, max_new_tokens)), constant_values=1)
        self._caches = KVCaches(model.config.num_hidden_layers, ids.shape[1] + max_new_tokens)
        self._inputs = {name: array for name, array in batch.items() if name not in _NOT_FED}
        self._wanted_back: dict[str, paddle.Tensor] = {}

    @property
    def prompts(self) -> list[np.ndarray]:
        """The rows' own tokens, int64[l] each, without padding."""
        return self._prompts

    def read_prompts(self) -> paddle.Tensor:
        """Read the batch and return the last place's logits, float32[B, V]."""
        return self._forward(**self._inputs)

    def read(self, tokens: np.ndarray | paddle.Tensor) -> paddle.Tensor:
        """Read one more token a row, int64[B], and return its place's logits, float32[B, V]."""
        return self._forward(tokens[:, None])

    def keep(self, rows: np.ndarray) -> None:
        """Go on with these rows, int64[N], in this order; a row may be kept several times."""
        if self._mask is not None:
            self._mask = self._mask[rows]
        places = paddle.to_tensor(rows)
        self._caches.keep(places)
        self._wanted_back = {name: one.index_select(places) for name, one in self._wanted_back.items()}

    @paddle.no_grad()
    @flushed_denormals()
    def _forward(self, input_ids: np.ndarray | paddle.Tensor, **inputs: Any) -> paddle.Tensor:
        past = self._caches[0].length
        batch = {"input_ids": input_ids, **inputs}
        # An array: where padding stands is known without waiting for a card.
        mask = None if self._mask is None else self._mask[:, : past + input_ids.shape[1]]
        laid = self._model.lay_out(self._model.config, HostCopies({**batch, "attention_mask": mask}), past)
        arrays = {name: one for name, one in batch.items() if isinstance(one, np.ndarray)}
        output = self._model(
            **{name: one for name, one in batch.items() if name not in arrays},
            **handed_over(with_layout(arrays, laid)),
            attention_mask=mask,
            past_key_values=self._caches,
            last_logits_only=True,
            **self._wanted_back,
        )
        assert output.logits is not None, "no labels were given"
        self._wanted_back = output.next_inputs()
        return output.logits[:, -1].astype("float32")
