"""Chats with a Qwen-VL in a terminal, about images that you show at any turn; boxes are drawn into files.

Example:
    python paddlemix/examples/qwen_vl/chat_demo.py --model_name_or_path qwen-vl/qwen-vl-chat-7b --output_dir output

    you> /image street.jpg
    Picture 1 is shown with your next question.
    you> 框出图中公交车的位置
    <ref>公交车</ref><box>(178,279),(806,884)</box>
    output/chat_1.jpg: the image with the boxes of this answer
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from paddlemix.auto import AutoModelMIX, AutoProcessorMIX
from paddlemix.chat.session import ChatSession, History, Reply
from paddlemix.chat.terminal import HELP, run_terminal
from paddlemix.generation import GenerationConfig
from paddlemix.models.qwen_vl.chat.question import pieces
from paddlemix.peft.folders import find_folders
from paddlemix.tools.precision import DTYPES, usable_dtype
from paddlemix.tools.report_errors import report_errors

DEFAULT_MODEL = "qwen-vl/qwen-vl-chat-7b"


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=HELP, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model_name_or_path",
        default=DEFAULT_MODEL,
        help=f"the folder of a model or an adapter, or owner/name on the hub (default: {DEFAULT_MODEL})",
    )
    parser.add_argument("--lora_path", help="an adapter's folder, where --model_name_or_path is its base")
    parser.add_argument("--dtype", choices=DTYPES, help="precision (default: bfloat16 on a GPU, float32 without one)")
    parser.add_argument("--seed", type=int, default=1234, help="of sampling (default: 1234)")
    parser.add_argument("--max_new_tokens", type=int, help="longest answer (default: generation_config.json's, or 512)")
    parser.add_argument(
        "--output_dir", type=Path, default=Path("output"), help="for the drawn images (default: output)"
    )
    return parser.parse_args()


def main() -> None:
    """Load, talk."""
    args = parse_arguments()
    dtype = usable_dtype(args.dtype)
    generation = GenerationConfig.from_pretrained(
        find_folders(args.model_name_or_path, args.lora_path).generation,
        max_new_tokens=args.max_new_tokens,
        seed=args.seed,
    )
    processor = AutoProcessorMIX.from_pretrained(args.model_name_or_path, lora_path=args.lora_path)
    model = AutoModelMIX.from_pretrained(args.model_name_or_path, dtype=dtype, lora_path=args.lora_path)
    with closing(ChatSession(reply_of(model, processor, generation), processor, args.output_dir)) as session:
        run_terminal(session)


def reply_of(model: Any, processor: Any, generation: GenerationConfig) -> Reply:
    """How the model answers a query after a history, piece by piece."""
    settings = {"generation_config": generation, "image_processor": processor.image_processor}

    def reply(query: str, history: History) -> Iterator[str]:
        return pieces(model.chat_stream(processor.tokenizer, query, history, **settings))

    return reply


if __name__ == "__main__":
    with report_errors():
        main()
