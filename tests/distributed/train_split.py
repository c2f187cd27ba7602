"""Trains as the tool does, one config after the other, on ranks that share models: train_split.py CONFIG ...

Each rank writes what it holds at the end into its `rank-<rank>.json`: digests of its parameters, by whether they are
split, what the model then answers, and by how many ranks models, optimizer states and data are shared.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import paddlemix  # isort: skip - before Paddle, which it prepares for
import paddle

from paddlemix.tools import supervised_finetune
from paddlemix.weights.share import share_of

del paddlemix

PROMPT = list(range(5, 15))
NEW_TOKENS = 6


def answer(model: Any) -> list[int]:
    """The tokens that a model writes behind the prompt."""
    model.eval()
    prompt = paddle.to_tensor([PROMPT])
    return model.generate(prompt, do_sample=False, max_new_tokens=NEW_TOKENS, min_new_tokens=NEW_TOKENS)[0].tolist()


def save_results(trainer: Any, metrics: dict[str, float]) -> None:
    """Do what the tool does, and note what this rank holds."""
    save_as_the_tool(trainer, metrics)
    groups = [trainer.hcg.get_model_parallel_group(), trainer.sharding_group, trainer.dp_group]
    sizes = [group.nranks for group in groups]
    held: dict[str, Any] = {"split": {}, "whole": {}, "answer": answer(trainer.model), "groups": sizes}
    for name, parameter in trainer.model.named_parameters():
        kind = "whole" if share_of(parameter) is None else "split"
        held[kind][name] = hashlib.sha256(parameter.numpy().tobytes()).hexdigest()
    file = Path(trainer.args.output_dir) / f"rank-{paddle.distributed.get_rank()}.json"
    file.write_text(json.dumps(held), "utf-8")


if __name__ == "__main__":
    from train_cases import forget_groups  # beside this file, where a script looks

    save_as_the_tool, supervised_finetune.save_results = supervised_finetune.save_results, save_results
    for config in sys.argv[1:]:
        forget_groups()
        supervised_finetune.main([config])
