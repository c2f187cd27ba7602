"""Writing answers token by token."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import paddle

from paddlemix.generation.cache import KVCache
from paddlemix.generation.config import GenerationConfig
from paddlemix.generation.sampling import TokenChooser

# What only the model reads, pixels and grids, may be Paddle's tensors already.
Batch = dict[str, Any]

# Labels and positions are a collator's for training; the model lays positions out itself, and says where they end.
_NOT_FED = ("labels", "position_ids", "attention_mask")


class TokenStream:
    """The answers to a batch, token by token; a step of the model runs when its tokens are asked for.

    Iterating gives (row, token), the tokens of one step in the order of their rows, without end tokens.

    Args:
        model: in evaluation mode; its `config.num_hidden_layers` says how many caches it wants.
        batch: input_ids int64[B, L]; attention_mask int64[B, L], padding on the left; pictures as the model takes them.
        config: how to choose, and when to stop; its `stop_strings` are left to those who read the tokens.
        end_token_ids: the tokenizer's own, which end an answer where the config names no others.

    Attributes:
        end_tokens: by row, the end token that its answer closed with; rows that are open or were cut off have none.

    Raises:
        ValueError: a row is padded on the right.
    """

    end_tokens: dict[int, int]

    def __init__(self, model: Any, batch: Batch, config: GenerationConfig, *, end_token_ids: Sequence[int]) -> None:
        self._model, self._config = model, config
        self._end_token_ids = config.end_token_ids(end_token_ids)
        rows, length = batch["input_ids"].shape
        mask = batch.get("attention_mask", np.ones((rows, length), dtype=np.int64))
        if not mask[:, -1].all():
            raise ValueError("a row of the batch ends with padding; its answer begins at the end: pad on the left.")
        self._choosers = [
            TokenChooser(ids[is_token == 1], config, self._end_token_ids)
            for ids, is_token in zip(batch["input_ids"], mask, strict=True)
        ]
        # Where nothing is padded the model needs no mask, and attention is spared adding one.
        self._mask = None if mask.all() else np.pad(mask, ((0, 0), (0, config.max_new_tokens)), constant_values=1)
        self._caches = [KVCache(length + config.max_new_tokens) for _ in range(model.config.num_hidden_layers)]
        self._model_wants: dict[str, paddle.Tensor] = {}
        self._is_open = np.ones(rows, dtype=bool)
        self.end_tokens = {}
        self._tokens = self._run({name: array for name, array in batch.items() if name not in _NOT_FED})

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return self._tokens

    def end(self, row: int) -> None:
        """Ask for no further token of a row; once all have ended nothing runs any more."""
        self._is_open[row] = False

    def _run(self, inputs: Batch) -> Iterator[tuple[int, int]]:
        # Rows that have ended go on with what stands here; nothing reads their logits.
        tokens = np.zeros(len(self._choosers), dtype=np.int64)
        logits = self._forward(**inputs)
        for step in range(self._config.max_new_tokens):
            if step:
                logits = self._forward(tokens[:, None])
            for row in np.flatnonzero(self._is_open).tolist():
                tokens[row] = self._choosers[row].choose(logits[row])
                if tokens[row] in self._end_token_ids:
                    self.end_tokens[row] = int(tokens[row])
                    self.end(row)
                else:
                    yield row, int(tokens[row])
            if not self._is_open.any():
                return

    @paddle.no_grad()
    def _forward(self, input_ids: np.ndarray, **inputs: Any) -> np.ndarray:
        """Feed int64[B, L] to model and caches; the last place's logits float32[B, V]."""
        seen = self._caches[0].length + input_ids.shape[1]
        output = self._model(
            input_ids=paddle.to_tensor(input_ids),
            attention_mask=None if self._mask is None else paddle.to_tensor(self._mask[:, :seen]),
            past_key_values=self._caches,
            last_logits_only=True,
            **self._model_wants,
            **{name: paddle.to_tensor(one) if isinstance(one, np.ndarray) else one for name, one in inputs.items()},
        )
        self._model_wants = output.next_inputs()
        return output.logits[:, -1].astype("float32").numpy()


def generate(
    model: Any,
    batch: Batch,
    config: GenerationConfig,
    *,
    end_token_ids: Sequence[int],
    on_token: Callable[[int, int], bool | None] | None = None,
) -> list[list[int]]:
    """Continue each row of a batch until an end token.

    Args:
        model: as `TokenStream` takes it.
        batch: as `TokenStream` takes it.
        config: how to choose, and when to stop.
        end_token_ids: the tokenizer's own, which end an answer where the config names no others.
        on_token: called with the row and each new token; true ends the row behind that token.

    Returns:
        The new tokens of each row, without its end token.

    Raises:
        ValueError: a row is padded on the right, or the config holds stop strings and nothing reads the tokens.
    """
    if config.stop_strings and on_token is None:
        raise ValueError(
            f"`stop_strings` are {list(config.stop_strings)}, but `generate` sees tokens only: use `stream_text`, or "
            "find them in `on_token`."
        )
    stream = TokenStream(model, batch, config, end_token_ids=end_token_ids)
    answers: list[list[int]] = [[] for _ in batch["input_ids"]]
    for row, token in stream:
        answers[row].append(token)
        if on_token is not None and on_token(row, token):
            stream.end(row)
    return answers
