"""Writes a page with the first records of each set of a config as the model will see them, and what it answers to them.

Examples:
    python paddlemix/tools/preview_data.py paddlemix/config/demo/qwen2_vl_shapes.json --output preview.html
    python paddlemix/tools/preview_data.py paddlemix/config/demo/qwen2_vl_shapes.json --answers \\
        --model_name_or_path output/demo/model
    python paddlemix/tools/preview_data.py paddlemix/config/demo/qwen2_vl_shapes_lora.json --answers \\
        --lora_path output/demo/adapter
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

from paddlemix.configuration.arguments import DatasetArguments
from paddlemix.configuration.file import load_config
from paddlemix.contract import Model, Processor
from paddlemix.conversation import Conversation
from paddlemix.datasets.loading.load import LoadedSet, load_set
from paddlemix.datasets.spec import DatasetSpec
from paddlemix.evaluation.predict import question_of
from paddlemix.files import replacing
from paddlemix.generation import greedy_config
from paddlemix.generation.answer import answer
from paddlemix.tools.generation_flags import add_generation_flags, errors_name_flags, generation_settings
from paddlemix.tools.precision import usable_dtype
from paddlemix.tools.report_errors import report_errors
from paddlemix.training.finetune import Run
from paddlemix.visualization.preview import view_problem, view_record
from paddlemix.visualization.preview_page import SetView, preview_page


def parse_arguments(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Read the command line, and the words of it that override keys of the config."""
    # Without abbreviations, which would take keys of the config for flags.
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("config", help="a fine-tuning config; behind it, `--key value` overrides a key")
    parser.add_argument("--output", type=Path, default=Path("preview.html"), help="the page (default: preview.html)")
    parser.add_argument("--records", type=int, default=8, help="records of each set (default: 8)")
    parser.add_argument(
        "--answers", action="store_true", help="let the config's model answer, next to the right answer"
    )
    # `--seed` is a key of the config.
    add_generation_flags(
        parser,
        otherwise="With --answers; what is not given is greedy, and ends where the model's generation_config.json says",
        defaults={"max_new_tokens": 128},
        left_out=("seed",),
    )
    return parser.parse_known_args(arguments)


def main(arguments: list[str]) -> None:
    """Read the config, load the first records, write the page."""
    args, overrides = parse_arguments(arguments)
    if args.records < 1:
        raise ValueError(f"--records is {args.records}; expected 1 or more")
    # A config for GPUs is looked at on a laptop too: nothing is trained here.
    config = load_config(args.config, overrides, has_gpu=True)
    run = Run.of(config)
    answers = answering(run, args) if args.answers else None
    page = preview_page(args.config, list(view_sets(config.data.dataset, run.processor, args.records, answers)))
    with replacing(args.output) as beside:
        beside.write_text(page, encoding="utf-8", errors="backslashreplace")
    print(f"{args.output}: {len(page) / 2**20:.1f} MB")


def answering(run: Run, args: argparse.Namespace) -> Callable[[Conversation], str]:
    """Load the model that a run begins with, to let it answer to records.

    Args:
        run: of the config.
        args: the command line.

    Returns:
        A function that gives the raw answer in place of a record's last.
    """
    start = run.load_start(usable_dtype(None), seed=run.config.training["seed"])
    model: Model = start
    if run.chain.continued is not None:
        from paddlemix.peft.lora_model import MixLoRAModel  # takes a second, so only once it is needed

        model = MixLoRAModel.from_pretrained(start, run.chain.continued)
    with errors_name_flags():
        settings = greedy_config(model, **generation_settings(args))
    return lambda conversation: answer(model, run.processor, [question_of(conversation)], settings)[0]


def view_sets(
    dataset: DatasetArguments,
    processor: Processor,
    records: int,
    answers: Callable[[Conversation], str] | None = None,
) -> Iterator[SetView]:
    """View the first records of each set.

    Args:
        dataset: the sets.
        processor: the family's.
        records: how many of each.
        answers: gives a model's raw answer in place of a record's last; None asks no model.

    Yields:
        The sets in their order, those to train on first; records that cannot be used stand behind the others.
    """
    for kind, items in (("train", dataset.train), ("eval", dataset.eval)):
        for item in items:
            spec = DatasetSpec(**{**asdict(item), "max_samples": min(item.max_samples or records, records)})
            loaded = load_set(spec, processor)
            views = [view_record(conversation, processor, answers) for conversation in loaded.conversations]
            problems = [view_problem(error) for error in loaded.errors]
            yield SetView(set_title(kind, loaded), (*views, *problems))


def set_title(kind: str, loaded: LoadedSet) -> str:
    """Write a set's place, format and files."""
    recognised = ", recognised" if loaded.is_recognised else ""
    return f"{kind}: {loaded.spec.name}{recognised} ({', '.join(loaded.spec.files)})"


if __name__ == "__main__":
    with report_errors():
        main(sys.argv[1:])
