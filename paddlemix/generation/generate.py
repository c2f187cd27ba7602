"""Writing answers token by token."""

from __future__ import annotations

from typing import Any

import numpy as np
import paddle

from paddlemix.generation.cache import KVCache
from paddlemix.generation.sampling import GenerationConfig, choose_tokens


@paddle.no_grad()
def generate(
    model: Any, batch: dict[str, np.ndarray], config: GenerationConfig, *, end_token_ids: tuple[int, ...]
) -> list[list[int]]:
    """Continue each row of a batch until an end token.

    Args:
        model: in evaluation mode; its `config.num_hidden_layers` says how many caches it wants.
        batch: input_ids and attention_mask int64[B, L], padded on the left; pictures as the model takes them.
        config: how to choose, and when to stop.
        end_token_ids: tokens that end an answer.

    Returns:
        The new tokens of each row, without its end token.
    """
    inputs = {name: paddle.to_tensor(array) for name, array in batch.items() if name not in ("labels", "position_ids")}
    rows, length = batch["input_ids"].shape
    caches = [KVCache(length + config.max_new_tokens) for _ in range(model.config.num_hidden_layers)]
    generator = np.random.default_rng(config.seed)
    answers: list[list[int]] = [[] for _ in range(rows)]
    is_open = np.ones(rows, dtype=bool)

    output = model(**inputs, past_key_values=caches, last_logits_only=True)
    for step in range(config.max_new_tokens):
        tokens = choose_tokens(output.logits[:, -1].astype("float32").numpy(), config, generator)
        is_open &= ~np.isin(tokens, end_token_ids)
        for row in np.flatnonzero(is_open):
            answers[row].append(int(tokens[row]))
        if not is_open.any() or step + 1 == config.max_new_tokens:
            break
        # Rows that have ended go on with whatever was chosen; nothing reads it.
        inputs["attention_mask"] = paddle.concat(
            [inputs["attention_mask"], paddle.ones([rows, 1], dtype="int64")], axis=1
        )
        output = model(
            input_ids=paddle.to_tensor(tokens[:, None]),
            attention_mask=inputs["attention_mask"],
            past_key_values=caches,
            rope_deltas=output.rope_deltas,
            last_logits_only=True,
        )
    return answers
