"""Estimates the memory that a fine-tuning config takes on each card; nothing is loaded, fetched or trained.

Counted from the shapes: weights, gradients, the optimizer's states, and the activations of one forward and backward
pass whose rows have `max_length` tokens. Other keys of the config may follow as --key value.

Examples:
    python paddlemix/tools/estimate_memory.py paddlemix/config/qwen_vl/sft_argument.json
    python paddlemix/tools/estimate_memory.py config.json --cards 8 --sharding stage2 --recompute true --json
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace

from paddlemix.configuration.file import load_config
from paddlemix.configuration.rules import weights_dtype
from paddlemix.tools.report_errors import report_errors


def parse_arguments() -> tuple[argparse.Namespace, list[str]]:
    """Read the command line, and the config's keys on it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("config", metavar="CONFIG.json", help="a fine-tuning config")
    parser.add_argument("--cards", type=int, help="how many there are (default: as few as the degrees ask for)")
    parser.add_argument(
        "--image_share", type=float, default=0.5, help="share of the tokens that stand for images (default: 0.5)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON, sizes in bytes")
    return parser.parse_known_args()


def main() -> None:
    """Read the config, build the model without its memory, count."""
    args, flags = parse_arguments()
    # Half precision is no mistake here: what is estimated need not run on this machine.
    config = load_config(args.config, flags, has_gpu=True)

    # Slow to import, so a config's mistakes are told before.
    from paddlenlp.utils.log import logger

    from paddlemix.estimate.setup import Setup
    from paddlemix.estimate.shapes import coded_base, model_to_train
    from paddlemix.estimate.table import as_json, as_text
    from paddlemix.estimate.total import estimate

    logger.set_level("WARNING")
    setup = Setup.of(config, cards=args.cards, image_share=args.image_share)
    model, family = model_to_train(
        config.model, dtype=weights_dtype(config.precision), chat_template=config.data.chat_template
    )
    setup = replace(setup, coded=coded_base(config.model, model))
    found, name = estimate(model, family, setup), config.model.model_name_or_path
    if args.json:
        print(json.dumps(as_json(name, found, setup), indent=2))
    else:
        sys.stdout.write(as_text(name, found, setup))


if __name__ == "__main__":
    with report_errors():
        main()
