"""Writes an adapter again, with the names that other versions of transformers look for.

Adapters of this project have the names of transformers 4.52 and later. Older versions need those of the published
checkpoints; and what they wrote is read by some later versions alone.

Example:
    python paddlemix/tools/rename_adapter.py --lora_path checkpoints/adapter --output_path checkpoints/older \\
        --transformers before_4.52
"""

from __future__ import annotations

import argparse
from pathlib import Path

from paddlemix.files import new_folder
from paddlemix.models.config_file import make_config, read_config
from paddlemix.models.registry import find_family
from paddlemix.peft.folders import find_folders
from paddlemix.peft.renaming import rename_adapter
from paddlemix.tools.report_errors import report_errors

VERSIONS = {"before_4.52": False, "since_4.52": True}


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lora_path", required=True, help="the adapter's folder")
    words = "the adapter's base, of which config.json is read (default: what the adapter names)"
    parser.add_argument("--model_name_or_path", help=words)
    parser.add_argument("--output_path", required=True, type=Path, help="the folder to write; must not be there")
    parser.add_argument("--transformers", required=True, choices=list(VERSIONS), help="who is to read it")
    return parser.parse_args()


def main() -> None:
    """Find the adapter and its family, and write it again.

    Raises:
        OSError: there is no such base or adapter, or `--output_path` is there already.
        ValueError: the adapter is damaged, or `--lora_path` is none.
    """
    args = parse_arguments()
    folders = find_folders(
        *([args.model_name_or_path, args.lora_path] if args.model_name_or_path else [args.lora_path])
    )
    if folders.adapter is None:
        raise ValueError(f"`lora_path` {args.lora_path} holds no adapter_config.json; give the folder of an adapter.")
    family = find_family(folders.model)
    layout = family.model_class.weight_layout(
        make_config(family.config_class, folders.model, read_config(folders.model))
    )
    with new_folder(args.output_path.expanduser()) as staged:
        rename_adapter(folders.adapter, staged, layout, in_memory=VERSIONS[args.transformers])
    print(f"{args.output_path}: the adapter for transformers {args.transformers.replace('_', ' ')}")


if __name__ == "__main__":
    with report_errors():
        main()
