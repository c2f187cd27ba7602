"""Counts what would make the host wait for a card, and what would be copied to it, in real runs; prints it as JSON.

Run it by itself: count_waits.py CASE.json..., each with the path of a config to train by (`config`) or the folder of a
model that answers (`model`), and the records (`records`). Tensors are on the CPU, where asking for a number costs
nothing; what is asked is noted. Batches are handed over as to a card.
"""

from __future__ import annotations

import functools
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import paddlemix  # isort: skip - before Paddle, which it prepares for
import fake_copies
import paddle
from paddlenlp.trainer import TrainerCallback

from paddlemix.auto import AutoModelMIX, AutoProcessorMIX
from paddlemix.configuration import file as config_file
from paddlemix.datasets.collate import PadCollator
from paddlemix.datasets.mix_dataset import DatasetSpec, MixDataset
from paddlemix.generation import GenerationConfig, generate
from paddlemix.training.callbacks import fused_adamw
from paddlemix.training.finetune import Run

del paddlemix

# Of tensors: each gives the host numbers, or a shape that depends on them.
READING = ("numpy", "item", "tolist", "__array__", "__bool__", "__nonzero__", "__int__", "__float__", "__index__")
SHAPING = ("nonzero", "masked_select", "unique", "unique_consecutive")
# Each brings numbers of the host to a card, and waits until it is done with all before.
COPYING = ("set_value", "cpu", "pin_memory")


class Watch:
    """What has been asked for while it is on.

    Attributes:
        is_on: whether what is asked is noted.
        found: kinds, and the function that asked.
    """

    def __init__(self) -> None:
        self.is_on, self.found = False, Counter[tuple[str, str]]()
        self._is_inside = False
        for name in READING:
            self._watch(paddle.Tensor, name, "wait")
        for name in SHAPING:
            self._watch(paddle._C_ops, name, "wait")
        for name in COPYING:
            self._watch(paddle.Tensor, name, "copy")
        self._watch(paddle.Tensor, "cuda", "handed over")
        self._watch(paddle, "to_tensor", "copy")

    def begin(self) -> None:
        """Note what is asked from now on."""
        self.found.clear()
        self.is_on = True

    def end(self) -> list[list[Any]]:
        """Return what was asked, and how often."""
        self.is_on = False
        return [[*key, count] for key, count in sorted(self.found.items())]

    def _watch(self, owner: Any, name: str, kind: str) -> None:
        function = getattr(owner, name)

        @functools.wraps(function)
        def watched(*arguments: Any, **options: Any) -> Any:
            # What one of them calls is not asked for again; what is pinned is read by the card itself.
            if not self.is_on or self._is_inside or options.get("place") is paddle.CUDAPinnedPlace():
                return function(*arguments, **options)
            self.found[kind, _asking()] += 1
            self._is_inside = True
            try:
                return function(*arguments, **options)
            finally:
                self._is_inside = False

        setattr(owner, name, watched)


def _asking() -> str:
    """Name the function that asked, the innermost one of ours, or else of who calls Paddle."""
    frame, names = sys._getframe(2), []
    while frame is not None:
        path = frame.f_code.co_filename
        for package in ("paddlemix", "paddlenlp", "paddle"):
            if f"/{package}/" in path:
                names.append(f"{package}/{path.rpartition(f'/{package}/')[2]}:{frame.f_code.co_name}")
                break
        frame = frame.f_back
    ours = (name for package in ("paddlemix/", "paddlenlp/", "paddle/") for name in names if name.startswith(package))
    return next(ours, "?")


class Steps(TrainerCallback):
    """Watches two optimizer steps, once all is made that is made once.

    Args:
        watch: notes what is asked.
    """

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self.found: list[list[Any]] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **unused: Any) -> None:
        if state.global_step == 1:
            self._watch.begin()
        elif state.global_step == 3:
            self.found = self._watch.end()


def train(watch: Watch, config_path: str) -> list[list[Any]]:
    """Train three optimizer steps, and tell what two of them ask."""
    from paddlemix.training.sft import SFTTrainer

    config = config_file.load_config(config_path, [], has_gpu=False)
    run = Run.of(config)
    dataset, _ = run.load_datasets()
    args = config_file.build_training_arguments(config)
    fused_adamw.takes_adamw = lambda _: False  # as on a card, where Paddle's own kernels step
    model = run.load_model(args)
    run.set_recompute(model)
    trainer = SFTTrainer(model, args, dataset, None, run.processor, sampling=run.sampling)
    steps = Steps(watch)
    trainer.add_callback(steps)
    trainer.train()
    return steps.found


def answer(watch: Watch, folder: str, records: str, tokens: int) -> list[list[Any]]:
    """Read two prompts and write so many tokens behind each, and tell what that asks."""
    model, processor = AutoModelMIX.from_pretrained(folder), AutoProcessorMIX.from_pretrained(folder)
    (conversations,) = MixDataset.load([DatasetSpec("chatml_dataset", records)], processor).conversations_by_set()
    prompts = [processor.encode_prompt(_question(one)) for one in list(conversations[1])[:2]]
    batch = PadCollator(processor.tokenizer.pad_token_id, side="left")(prompts)
    for _ in range(2):  # the second time all is made that is made once
        watch.begin()
        generate(model, batch, GenerationConfig(max_new_tokens=tokens), end_token_ids=())
        found = watch.end()
    return found


def _question(conversation: Any) -> Any:
    return type(conversation)(conversation.turns[:-1], conversation.source)


def main() -> None:
    """Run the cases that the command line names."""
    fake_copies.install(setattr)
    watch, found = Watch(), {}
    for path in sys.argv[1:]:
        case = json.loads(Path(path).read_text("utf-8"))
        name = Path(path).stem
        if "config" in case:
            found[name] = train(watch, case["config"])
        else:
            found[name] = answer(watch, case["model"], case["records"], case["tokens"])
    sys.stdout.write(f"\n{json.dumps(found)}\n")


if __name__ == "__main__":
    main()
