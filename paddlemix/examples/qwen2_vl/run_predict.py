"""Asks a model about pictures or a video, prints its answer as it is written, and draws the boxes it names.

Of several pictures each is introduced to the model as "Picture 1: ", "Picture 2: " and so on. A box is drawn on the
picture that the answer mentioned last before it ("Picture 2"), and on the last picture where it has mentioned none.

Examples:
    python paddlemix/examples/qwen2_vl/run_predict.py --model_name_or_path output/demo/model \\
        --input_image picture.jpg --prompt "Find the red circle." --dtype float32 --output_dir output
    python paddlemix/examples/qwen2_vl/run_predict.py --model_name_or_path Qwen2-VL-2B-Instruct \\
        --input_image before.jpg after.jpg --prompt "What has changed?"
    FPS=1 python paddlemix/examples/qwen2_vl/run_predict.py --model_name_or_path Qwen2-VL-2B-Instruct \\
        --input_video clip.mp4 --prompt "What happens?"
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from paddlemix.auto import AutoModelMIX, AutoProcessorMIX
from paddlemix.conversation import Conversation, Part, Picture, RecordId, Text, Turn, Video
from paddlemix.evaluation.predict import stream_answer
from paddlemix.files import replacing
from paddlemix.generation import GenerationConfig
from paddlemix.hub import local_folder
from paddlemix.processors.picture import open_picture
from paddlemix.tools.report_errors import report_errors
from paddlemix.trainer.config_file import gpu_is_usable
from paddlemix.visualization.draw import LabelledBox, draw_boxes

DEFAULT_PROMPT = "Generate the caption in English with grounding:"
PICTURE_FILE, NUMBERED_FILE = "pred.jpg", "pred_{}.jpg"


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_name_or_path", required=True, help="a model's folder, or owner/name on the hub")
    shown = parser.add_mutually_exclusive_group(required=True)
    shown.add_argument("--input_image", nargs="+", help="one or more files or http(s) addresses")
    shown.add_argument(
        "--input_video", nargs="+", help="a file or an http(s) address; several files are the frames of one video"
    )
    parser.add_argument("--prompt", default=DEFAULT_PROMPT, help=f"the question (default: {DEFAULT_PROMPT})")
    parser.add_argument(
        "--dtype",
        choices=["bfloat16", "float16", "float32"],
        help="precision (default: bfloat16 on a GPU, float32 without one)",
    )
    parser.add_argument("--seed", type=int, default=1234, help="of sampling (default: 1234)")
    parser.add_argument(
        "--temperature",
        type=float,
        help="0 takes the likeliest token, above 0 the answer is sampled (default: generation_config.json's, or 0)",
    )
    parser.add_argument("--max_new_tokens", type=int, help="longest answer (default: generation_config.json's, or 512)")
    parser.add_argument(
        "--output_dir", type=Path, default=Path("output"), help="for the drawn pictures (default: output)"
    )
    parser.add_argument(
        "--visual",
        type=parse_bool,
        default=True,
        help=f"draw the boxes into {PICTURE_FILE}, or {NUMBERED_FILE.format(1)} and so on (default: True)",
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
    generation = GenerationConfig.from_pretrained(
        local_folder(args.model_name_or_path),
        max_new_tokens=args.max_new_tokens,
        temperature=args.temperature,
        seed=args.seed,
    )
    pictures = [open_picture(path) for path in args.input_image or ()]
    processor = AutoProcessorMIX.from_pretrained(args.model_name_or_path)
    model = AutoModelMIX.from_pretrained(args.model_name_or_path, dtype=dtype)

    turn = Turn("user", (*shown_parts(args.input_image or (), args.input_video or ()), Text(args.prompt)))
    question = Conversation((turn,), RecordId("the prompt", 0))
    raw = print_stream(stream_answer(model, processor, question, generation))
    print(f"answer: {processor.strip_tags(raw)}")
    if args.visual and pictures:
        draw(processor, raw, pictures, args.output_dir)


def shown_parts(images: Sequence[str], video: Sequence[str]) -> Iterator[Part]:
    """The pictures, numbered where there are several, or the video."""
    for number, path in enumerate(images, 1):
        if len(images) > 1:
            yield Text(f"Picture {number}: ")
        yield Picture(path)
    if video:
        yield Video(video[0] if len(video) == 1 else tuple(video))


def print_stream(pieces: Iterator[str]) -> str:
    """Print an answer while it is being written, tags and all; the whole of it."""
    print("raw:    ", end="", flush=True)
    raw = ""
    for piece in pieces:
        print(piece, end="", flush=True)
        raw += piece
    print()
    return raw


def draw(processor: Any, raw: str, pictures: Sequence[Image.Image], folder: Path) -> None:
    """Write each picture with its boxes."""
    found = processor.boxes_by_picture(raw, [picture.size for picture in pictures])
    for number, (picture, grounded) in enumerate(zip(pictures, found, strict=True), 1):
        boxes = [LabelledBox(one.label, one.box) for one in grounded]
        path = folder / (PICTURE_FILE if len(pictures) == 1 else NUMBERED_FILE.format(number))
        with replacing(path) as staged:
            draw_boxes(picture, boxes).save(staged, quality=95)
        print(f"{path}: the picture with {len(boxes)} boxes")


if __name__ == "__main__":
    with report_errors():
        main()
