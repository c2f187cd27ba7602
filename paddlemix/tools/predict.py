"""What every family's run_predict.py does: asks about images, prints the answer as it is written, draws its boxes."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import PIL.Image

from paddlemix.auto import AutoModelMIX, AutoProcessorMIX
from paddlemix.conversation import Conversation, Image, Part, RecordId, Text, Turn, Video
from paddlemix.evaluation.predict import stream_answer
from paddlemix.generation import GenerationConfig
from paddlemix.media.images import open_image
from paddlemix.peft.folders import find_folders, warn_of_another_base
from paddlemix.tools.precision import DTYPES, usable_dtype
from paddlemix.visualization.answers import answer_boxes, save_drawn

DEFAULT_PROMPT = "Generate the caption in English with grounding:"
ABOUT_IMAGES = """\
Of several images each is introduced to the model as "Picture 1: ", "Picture 2: " and so on. A box is drawn on the
image that the answer mentioned last before it ("Picture 2"), and on the last image where it has mentioned none.
"""
IMAGE_FILE, NUMBERED_FILE = "pred.jpg", "pred_{}.jpg"


class Question(Protocol):
    """What is asked of a model.

    Attributes:
        images: the paths or addresses of its images, in their order.
    """

    images: list[str]

    def answer(self, model: Any, processor: Any, config: GenerationConfig) -> Iterator[str]:
        """Pieces of the raw answer, tags and all, while it is being written."""
        ...


class ConversationQuestion:
    """A question in the neutral form, which every family reads; of several images each is numbered.

    Args:
        images: paths or addresses.
        video: a file, or the files of a video's frames, or nothing.
        prompt: what is asked.

    Attributes:
        images: `images`.
    """

    images: list[str]

    def __init__(self, images: Sequence[str], video: Sequence[str], prompt: str) -> None:
        self.images = list(images)
        turn = Turn("user", (*_shown_parts(images, video), Text(prompt)))
        self._conversation = Conversation((turn,), RecordId("the prompt", 0))

    def answer(self, model: Any, processor: Any, config: GenerationConfig) -> Iterator[str]:
        """Pieces of the raw answer, tags and all, while it is being written."""
        return stream_answer(model, processor, self._conversation, config)


def _shown_parts(images: Sequence[str], video: Sequence[str]) -> Iterator[Part]:
    for number, path in enumerate(images, 1):
        if len(images) > 1:
            yield Text(f"Picture {number}: ")
        yield Image(path)
    if video:
        yield Video(video[0] if len(video) == 1 else tuple(video))


@dataclass(frozen=True)
class Script:
    """What a family's run_predict.py has of its own.

    Attributes:
        description: the text of --help.
        default_model: the model where none is named; None makes naming one a duty.
        takes_videos: whether there is an --input_video.
        needs_media: whether an image or a video has to be shown.
        question: makes a question of images, a video's files and a prompt.
    """

    description: str
    default_model: str | None = None
    takes_videos: bool = False
    needs_media: bool = False
    question: Callable[[Sequence[str], Sequence[str], str], Question] = ConversationQuestion


def parse_arguments(script: Script) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=script.description,
        epilog=ABOUT_IMAGES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    named = f" (default: {script.default_model})" if script.default_model else ""
    parser.add_argument(
        "--model_name_or_path",
        default=script.default_model,
        required=script.default_model is None,
        help=f"the folder of a model or an adapter, or owner/name on the hub{named}",
    )
    parser.add_argument("--lora_path", help="an adapter's folder, where --model_name_or_path is its base")
    _add_media(parser, script)
    parser.add_argument("--prompt", default=DEFAULT_PROMPT, help=f"the question (default: {DEFAULT_PROMPT})")
    parser.add_argument("--dtype", choices=DTYPES, help="precision (default: bfloat16 on a GPU, float32 without one)")
    parser.add_argument("--seed", type=int, default=1234, help="of sampling (default: 1234)")
    parser.add_argument(
        "--temperature",
        type=float,
        help="0 takes the likeliest token, above 0 the answer is sampled (default: generation_config.json's, or 0)",
    )
    parser.add_argument("--max_new_tokens", type=int, help="longest answer (default: generation_config.json's, or 512)")
    parser.add_argument(
        "--output_dir", type=Path, default=Path("output"), help="for the drawn images (default: output)"
    )
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


def parse_bool(text: str) -> bool:
    """True or False as a command line spells it."""
    values = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.lower() not in values:
        raise argparse.ArgumentTypeError(f"{text!r} is neither True nor False")
    return values[text.lower()]


def main(script: Script) -> None:
    """Load, ask, print, draw.

    Args:
        script: which runs.

    Raises:
        OSError: there is no such model, or it cannot be fetched.
        ValueError: an image cannot be read, or a setting makes no sense here.
    """
    args = parse_arguments(script)
    dtype = usable_dtype(args.dtype)
    folders = find_folders(args.model_name_or_path, args.lora_path)
    if args.lora_path and folders.adapter:
        warn_of_another_base(args.model_name_or_path, folders.adapter)
    generation = GenerationConfig.from_pretrained(
        folders.generation,
        max_new_tokens=args.max_new_tokens,
        temperature=args.temperature,
        seed=args.seed,
    )
    question = script.question(args.input_image, args.input_video, args.prompt)
    images = [open_image(path) for path in question.images]
    processor = AutoProcessorMIX.from_pretrained(args.model_name_or_path, lora_path=args.lora_path)
    model = AutoModelMIX.from_pretrained(args.model_name_or_path, dtype=dtype, lora_path=args.lora_path)

    raw = print_stream(question.answer(model, processor, generation))
    print(f"answer: {processor.grounding.strip(raw)}")
    if args.visual and images:
        draw(processor, raw, images, args.output_dir)


def print_stream(pieces: Iterator[str]) -> str:
    """Print an answer while it is being written, tags and all; the whole of it."""
    print("raw:    ", end="", flush=True)
    raw = ""
    for piece in pieces:
        print(piece, end="", flush=True)
        raw += piece
    print()
    return raw


def draw(processor: Any, raw: str, images: Sequence[PIL.Image.Image], folder: Path) -> None:
    """Write each image with its boxes."""
    for number, (image, boxes) in enumerate(zip(images, answer_boxes(processor, raw, images), strict=True), 1):
        path = folder / (IMAGE_FILE if len(images) == 1 else NUMBERED_FILE.format(number))
        save_drawn(image, boxes, path)
        print(f"{path}: the image with {len(boxes)} boxes")
