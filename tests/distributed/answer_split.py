"""Two ranks share each model: answer_split.py CASE ..., a folder with `checkpoint/` and `batch.npz` each.

The first rank writes into `split.npz` the logits, the loss, the tokens that follow, and how many parameters are split.
"""

from __future__ import annotations

import sys
from pathlib import Path

import paddlemix  # isort: skip - before Paddle, which it prepares for
import numpy as np
import paddle
from paddle.distributed import fleet

from paddlemix.auto import AutoModelMIX
from paddlemix.contract import Model
from paddlemix.weights.share import share_of

del paddlemix

NEW_TOKENS = 5


def outputs_of(model: Model, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Compute logits and loss of a batch, and the tokens that a greedy answer to it has.

    Args:
        model: in evaluation mode.
        batch: inputs and labels of one row.

    Returns:
        Arrays by name.
    """
    inputs = {name: paddle.to_tensor(array) for name, array in batch.items()}
    with paddle.no_grad():
        output = model(**inputs)
    assert output.logits is not None and output.loss is not None
    prompt = {name: one for name, one in inputs.items() if name not in ("labels", "position_ids")}
    tokens = model.generate(**prompt, do_sample=False, max_new_tokens=NEW_TOKENS, min_new_tokens=NEW_TOKENS)
    return {"logits": output.logits.numpy(), "loss": output.loss.numpy(), "tokens": tokens.numpy()}


def main(folders: list[Path]) -> None:
    """Answer each case, both ranks together."""
    strategy = fleet.DistributedStrategy()
    strategy.hybrid_configs = {"mp_degree": 2}
    fleet.init(is_collective=True, strategy=strategy)
    for folder in folders:
        model = AutoModelMIX.from_pretrained(folder / "checkpoint", tensor_parallel_degree=2)
        with np.load(folder / "batch.npz") as stored:
            outputs = outputs_of(model, dict(stored))
        outputs["split"] = np.array(sum(share_of(one) is not None for one in model.parameters()))
        if paddle.distributed.get_rank() == 0:
            np.savez(folder / "split.npz", **outputs)


if __name__ == "__main__":
    main([Path(word) for word in sys.argv[1:]])
