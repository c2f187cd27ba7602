"""Asks a model about a picture and draws the boxes it names.

Example:
    python paddlemix/examples/qwen2_vl/run_predict.py --model_name_or_path output/demo/model \\
        --input_image picture.jpg --prompt "Find the red circle." --dtype float32 --output_dir output
"""

from __future__ import annotations

import argparse
from pathlib import Path

from paddlemix.auto import AutoModelMIX, AutoProcessorMIX
from paddlemix.conversation import Conversation, Picture, RecordId, Text, Turn
from paddlemix.evaluation.predict import answer
from paddlemix.files import replacing
from paddlemix.generation import GenerationConfig
from paddlemix.processors.picture import open_picture
from paddlemix.tools.report_errors import report_errors
from paddlemix.trainer.config_file import gpu_is_usable
from paddlemix.visualization.draw import LabelledBox, draw_boxes

DEFAULT_PROMPT = "Generate the caption in English with grounding:"
PICTURE_FILE = "pred.jpg"


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_name_or_path", required=True, help="a model's folder, or owner/name on the hub")
    parser.add_argument("--input_image", required=True, help="a file or an http(s) address")
    parser.add_argument("--prompt", default=DEFAULT_PROMPT, help=f"the question (default: {DEFAULT_PROMPT})")
    parser.add_argument(
        "--dtype",
        choices=["bfloat16", "float16", "float32"],
        help="precision (default: bfloat16 on a GPU, float32 without one)",
    )
    parser.add_argument("--seed", type=int, default=1234, help="of sampling (default: 1234)")
    parser.add_argument("--temperature", type=float, default=0.0, help="above 0 the answer is sampled (default: 0)")
    parser.add_argument("--max_new_tokens", type=int, default=512, help="longest answer (default: 512)")
    parser.add_argument(
        "--output_dir", type=Path, default=Path("output"), help="for the drawn picture (default: output)"
    )
    parser.add_argument(
        "--visual", type=parse_bool, default=True, help=f"draw the boxes into {PICTURE_FILE} (default: True)"
    )
    return parser.parse_args()


def parse_bool(text: str) -> bool:
    """True or False as a command line spells it."""
    values = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.lower() not in values:
        raise argparse.ArgumentTypeError(f"{text!r} is neither True nor False")
    return values[text.lower()]


def main() -> None:
    """Load, ask, print, draw."""
    args = parse_arguments()
    dtype = args.dtype or ("bfloat16" if gpu_is_usable() else "float32")
    generation = GenerationConfig(max_new_tokens=args.max_new_tokens, temperature=args.temperature, seed=args.seed)
    picture = open_picture(args.input_image)
    processor = AutoProcessorMIX.from_pretrained(args.model_name_or_path)
    model = AutoModelMIX.from_pretrained(args.model_name_or_path, dtype=dtype)

    turn = Turn("user", (Picture(args.input_image), Text(args.prompt)))
    [raw] = answer(model, processor, [Conversation((turn,), RecordId("the prompt", 0))], generation)
    print(f"answer: {processor.strip_tags(raw)}")
    print(f"raw:    {raw}")
    if args.visual:
        boxes = [LabelledBox(found.label, found.box) for found in processor.parse_boxes(raw, *picture.size)]
        with replacing(args.output_dir / PICTURE_FILE) as staged:
            draw_boxes(picture, boxes).save(staged, quality=95)
        print(f"{args.output_dir / PICTURE_FILE}: the picture with {len(boxes)} boxes")


if __name__ == "__main__":
    with report_errors():
        main()
