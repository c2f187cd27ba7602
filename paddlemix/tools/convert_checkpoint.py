"""Converts what PaddleMIX and PaddleNLP saved into what is read here, by transformers and by PEFT.

A model becomes safetensors with the published names, config.json and the files of its tokenizer; an adapter (a folder
with lora_config.json) becomes one of PEFT's. Parts of several ranks are put together, and unified checkpoints and
pickled .pdparams are read; nothing in a pickle is run. What is missing, unexpected or of another shape is told before
anything is written.

Examples:
    python paddlemix/tools/convert_checkpoint.py output/qwen2_vl_sft --output checkpoints/model
    python paddlemix/tools/convert_checkpoint.py output/lora --output checkpoints/adapter \\
        --base Qwen/Qwen2-VL-2B-Instruct
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tqdm import tqdm

from paddlemix.conversion.adapter import ConvertedAdapter
from paddlemix.conversion.lora_config import LORA_CONFIG_FILE
from paddlemix.conversion.model import ConvertedModel
from paddlemix.conversion.parts import ADAPTER_STEMS, has_parts
from paddlemix.files import new_folder
from paddlemix.hub import local_folder
from paddlemix.tools.report_errors import report_errors
from paddlemix.weights.dtypes import PARAMETER_DTYPES


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", metavar="SOURCE", type=Path, help="the folder to convert")
    parser.add_argument("--output", required=True, type=Path, help="the folder to write; must not be there")
    words = (
        "the model whose config.json describes the source, a folder or owner/name on the hub; of an adapter the one "
    )
    parser.add_argument("--base", help=words + "that it was trained on (default: the source's own config.json)")
    parser.add_argument("--dtype", choices=PARAMETER_DTYPES, help="what is stored (default: as the source)")
    words = "how matrices lie in the source, [in, out] or [out, in], where the word in its files is wrong or missing"
    parser.add_argument("--order", choices=["paddle", "torch"], help=words)
    return parser.parse_args()


def main() -> None:
    """Look into the source, then write.

    Raises:
        OSError: there is no such source or base, a part is missing, or `--output` is there already.
        ValueError: the source does not fit its config.json, or cannot be converted.
    """
    args = parse_arguments()
    target = args.output.expanduser()
    with new_folder(target) as staged:
        found = look_into(args)
        with tqdm(total=found.bytes, desc="converting", unit="B", unit_scale=True, disable=None) as bar:
            found.write(staged, bar.update)
    print(f"{target}: the converted {'adapter' if isinstance(found, ConvertedAdapter) else 'model'}")


def look_into(args: argparse.Namespace) -> ConvertedModel | ConvertedAdapter:
    """Find out what the source holds.

    Args:
        args: the command line.

    Returns:
        What is to be written.

    Raises:
        OSError: there is no such source or base, or a part is missing.
        ValueError: the source does not fit its config.json, or cannot be converted.
    """
    source = args.source.expanduser()
    if not source.is_dir():
        raise NotADirectoryError(f"{source} is no folder; give the one that holds the weights to convert.")
    if (source / LORA_CONFIG_FILE).is_file() or has_parts(source, ADAPTER_STEMS):
        return ConvertedAdapter(source, args.base, dtype=args.dtype, order=args.order)
    described_by = local_folder(args.base) if args.base else source
    return ConvertedModel(source, described_by, dtype=args.dtype, order=args.order)


if __name__ == "__main__":
    with report_errors():
        main()
