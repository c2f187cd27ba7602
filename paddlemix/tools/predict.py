"""What every family's run_predict.py does: asks about images, prints the answer as it is written, draws its boxes."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import PIL.Image

from paddlemix.contract import Processor, ShownSize
from paddlemix.conversation import Image, Text, Video
from paddlemix.generation.dialogue import Asked
from paddlemix.printable import printable
from paddlemix.tools.answering import AskedModel, add_model_flags
from paddlemix.tools.generation_flags import parse_bool
from paddlemix.visualization.answers import answer_boxes, save_drawn
from paddlemix.visualization.draw import Labelled, LabelledPoint

DEFAULT_PROMPT = "Generate the caption in English with grounding:"
ABOUT_IMAGES = """\
Of several images each is introduced to the model as "Picture 1: ", "Picture 2: " and so on. A box is drawn on the
image that the answer mentioned last before it ("Picture 2"), and on the last image where it has mentioned none.
"""
IMAGE_FILE, NUMBERED_FILE = "pred.jpg", "pred_{}.jpg"


@dataclass(frozen=True)
class Script:
    """What a family's run_predict.py has of its own.

    Attributes:
        description: the text of --help.
        default_model: the model where none is named; None makes naming one a duty.
        takes_videos: whether there is an --input_video.
        needs_media: whether an image or a video has to be shown.
    """

    description: str
    default_model: str | None = None
    takes_videos: bool = False
    needs_media: bool = False


def parse_arguments(script: Script) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=script.description,
        epilog=ABOUT_IMAGES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_model_flags(parser, script.default_model)
    _add_media(parser, script)
    parser.add_argument("--prompt", default=DEFAULT_PROMPT, help=f"the question (default: {DEFAULT_PROMPT})")
    parser.add_argument(
        "--visual",
        type=parse_bool,
        default=True,
        help=f"draw the boxes into {IMAGE_FILE}, or {NUMBERED_FILE.format(1)} and so on (default: True)",
    )
    return parser.parse_args()


def _add_media(parser: argparse.ArgumentParser, script: Script) -> None:
    shown = parser.add_mutually_exclusive_group(required=script.needs_media)
    shown.add_argument("--input_image", nargs="+", default=[], help="one or more files or http(s) addresses")
    if script.takes_videos:
        words = "a file or an http(s) address; several files are the frames of one video"
        shown.add_argument("--input_video", nargs="+", default=[], help=words)
    else:
        parser.set_defaults(input_video=[])


def main(script: Script) -> None:
    """Load, ask, print, draw.

    Args:
        script: which runs.

    Raises:
        OSError: there is no such model, or it cannot be fetched.
        ValueError: an image cannot be read, or a setting makes no sense here.
    """
    args = parse_arguments(script)
    asked = AskedModel.of(args)
    question = asked.dialogue_class.question(asked_parts(args))
    processor = asked.load_processor()
    # Before the model is loaded, which takes long.
    images = [processor.open_image(part.path) for part in question.parts if isinstance(part, Image)]
    dialogue = asked.load(processor)
    raw = print_stream(dialogue.reply([], question))
    print(f"answer: {printable(processor.grounding.strip(raw))}")
    if args.visual and images:
        draw(processor, raw, images, args.output_dir)


def asked_parts(args: argparse.Namespace) -> list[Asked]:
    """Put together what the command line asks: images or a video, then the words."""
    frames = args.input_video
    videos = [Video(frames[0] if len(frames) == 1 else tuple(frames))] if frames else []
    return [*map(Image, args.input_image), *videos, Text(args.prompt)]


def print_stream(pieces: Iterator[str]) -> str:
    """Print an answer while it is being written, tags and all, and return the whole of it."""
    print("raw:    ", end="", flush=True)
    raw = ""
    for piece in pieces:
        print(printable(piece), end="", flush=True)
        raw += piece
    print()
    return raw


def draw(processor: Processor, raw: str, images: Sequence[PIL.Image.Image], folder: Path) -> None:
    """Write each image with its boxes and points."""
    found = answer_boxes(processor.grounding, raw, [ShownSize(image.size) for image in images])
    for number, (image, boxes) in enumerate(zip(images, found, strict=True), 1):
        path = folder / (IMAGE_FILE if len(images) == 1 else NUMBERED_FILE.format(number))
        save_drawn(image, boxes, path)
        print(f"{path}: the image with {counted(boxes)}")


def counted(drawn: Sequence[Labelled]) -> str:
    """Say how many boxes were drawn, and how many points if there are any."""
    points = sum(isinstance(one, LabelledPoint) for one in drawn)
    return f"{len(drawn) - points} boxes" + (f" and {points} points" if points else "")
