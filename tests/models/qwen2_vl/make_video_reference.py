"""Makes tests/fixtures/qwen2_vl_video/: what transformers and qwen-vl-utils make of videos for Qwen2-VL and Qwen2.5-VL.

Run it in an environment with transformers 4.57.6, torch 2.13.0 (CPU, on a processor with fused multiply-add),
torchvision 0.28.0, qwen-vl-utils 0.0.14 and scipy:

    python tests/models/qwen2_vl/make_video_reference.py

It also checks that transformers reads the video settings that paddlemix saves. The tests read the folder and need none
of these packages. Every run writes the same files.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock
from zlib import crc32

import numpy as np
import torch
from PIL import Image
from qwen_vl_utils import vision_process
from transformers import (
    AutoTokenizer,
    AutoVideoProcessor,
    PretrainedConfig,
    PreTrainedModel,
    ProcessorMixin,
    Qwen2_5_VLConfig,
    Qwen2_5_VLModel,
    Qwen2_5_VLProcessor,
    Qwen2VLConfig,
    Qwen2VLImageProcessor,
    Qwen2VLModel,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
)

ROOT = Path(__file__).parents[3]
FIXTURES = ROOT / "tests" / "fixtures"
FIXTURE, TOKENIZER = FIXTURES / "qwen2_vl_video", FIXTURES / "qwen2_vl_processor"
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "models")]

import reference_families  # noqa: E402, F401  # takes a fault out of Qwen2_5_VLModel's positions
from reference_numbers import LAYOUT  # noqa: E402

from paddlemix.models.qwen2_vl.chat_template import TEMPLATE  # noqa: E402
from paddlemix.models.qwen2_vl.videos import Qwen2VLVideoProcessor as OurVideoProcessor  # noqa: E402

BOUNDS = {"min_pixels": 28 * 28, "max_pixels": 2 * 28 * 28}
IMAGE_BOUNDS = {"min_pixels": 56 * 56, "max_pixels": 1280 * 28 * 28}
# Frames a second of the prompt's two videos: patches last 2/3 s and 8/3 s.
RATES = [3.0, 0.75]
TOTAL_PIXELS = 24576 * 28 * 28
# Frames, height and width: an even count, an odd one, one frame; sizes that shrink, grow and stay.
SHAPES = {"even": (4, 47, 61), "odd": (5, 61, 47), "one": (1, 33, 90), "grown": (2, 9, 5), "kept": (3, 28, 56)}
SETTINGS = (
    {},
    {"fps": 0.5},
    {"fps": 24},
    {"fps": 1, "min_frames": 7, "max_frames": 21},
    {"nframes": 5},
    {"nframes": 16, "max_pixels": 150_000},
    {"min_pixels": 40_000, "total_pixels": 600_000},
)
# Stretches of videos, some of which begin behind the end or end before they begin; and sizes that are asked for.
STRETCHES = (
    {"start": 0.5},
    {"end": 1.7, "fps": 4},
    {"start": 0.3, "end": 5.05, "nframes": 4},
    {"start": 100, "end": 10_000, "max_frames": 30},
    {"start": 2, "end": 1},
)
RESIZED = (
    {"resized_height": 280, "resized_width": 420},
    {"resized_height": 20, "resized_width": 30, "max_pixels": 784},
    {"resized_height": 5000, "resized_width": 4000, "max_pixels": 600_000},
)
IMAGE_SETTINGS = (
    *RESIZED,
    {"min_pixels": 50_176, "max_pixels": 50_176},
    {"max_pixels": 100_352},
    {"min_pixels": 1_500_000, "max_pixels": 3_000_000},
)
LENGTHS = ((2, 25.0), (3, 30.0), (9, 2.0), (60, 30000 / 1001), (301, 24.0), (4000, 59.94), (100_000, 30.0))
SIZES = ((48, 64), (1080, 1920), (1280, 720), (333, 1001))


def frames(name: str) -> np.ndarray:
    """uint8[T, H, W, 3]: smooth colours with edges, which every resize moves."""
    count, height, width = SHAPES[name]
    t, y, x = np.indices((count, height, width))
    return np.stack([(5 * x + 3 * y + 40 * t), (7 * y + 90 * t), (x * y // 3 + 20 * t)], axis=-1).astype(np.uint8)


def processed() -> dict[str, np.ndarray]:
    """Frames, pixel_values_videos and video_grid_thw of each shape."""
    arrays = {}
    for name in SHAPES:
        values = Qwen2VLVideoProcessor(**BOUNDS)(videos=[frames(name)], return_tensors="pt")
        arrays[f"{name}/frames"] = frames(name)
        arrays[f"{name}/pixel_values_videos"] = values["pixel_values_videos"].numpy()
        arrays[f"{name}/video_grid_thw"] = values["video_grid_thw"].numpy()
    return arrays


def chosen() -> Iterator[dict[str, Any]]:
    """Which frames of videos of several lengths and sizes are shown, how large, and how many a second.

    In place of that is the name of what is refused: "stretch", or "count".
    """
    cases = [*product((*SETTINGS, *STRETCHES), LENGTHS, SIZES), *product(RESIZED, LENGTHS[2:4], SIZES)]
    for settings, (total, rate), (height, width) in cases:
        row = {"settings": settings, "total": total, "rate": rate, "height": height, "width": width}
        yield {**row, **shown(settings, total, rate, (height, width))}


def shown(settings: dict[str, float], total: int, rate: float, shape: tuple[int, int]) -> dict[str, Any]:
    """What is shown of one video, or the name of what is refused."""
    seen = SimpleNamespace(indices=[], size=None, refused="")

    def read(ele: dict[str, Any]) -> Any:
        # As qwen-vl-utils' readers by decord and torchcodec do.
        seen.refused = "stretch"
        first, last, frames = vision_process.calculate_video_frame_range(ele, total, rate)
        seen.refused = "count"
        count = vision_process.smart_nframes(ele, total_frames=frames, video_fps=rate)
        seen.refused = ""
        seen.indices = torch.linspace(first, last, count).round().long().tolist()
        return torch.zeros(1).expand(count, 3, *shape), {}, count / frames * rate

    def resize(video: torch.Tensor, size: list[int], **_: Any) -> torch.Tensor:
        seen.size = size
        return video[:1]

    named = {{"start": "video_start", "end": "video_end"}.get(name, name): value for name, value in settings.items()}
    functional = SimpleNamespace(functional=SimpleNamespace(resize=resize))
    readers = mock.patch.dict(vision_process.VIDEO_READER_BACKENDS, torchvision=read, decord=read, torchcodec=read)
    with readers, mock.patch.object(vision_process, "transforms", functional):
        try:
            asked = {"video": "a.mp4", "total_pixels": TOTAL_PIXELS, **named}
            _, sampled = vision_process.fetch_video(asked, return_video_sample_fps=True)
        except ValueError:
            return {"refused": seen.refused}
    return {"shown": {"frames": summary(seen.indices), "size": seen.size, "sampled": sampled}}


def sized() -> Iterator[dict[str, Any]]:
    """In which size images with settings of their own are seen."""
    for settings, (height, width) in product(IMAGE_SETTINGS, SIZES):
        image = vision_process.fetch_image({"image": Image.new("RGB", (width, height)), **settings})
        yield {"settings": settings, "height": height, "width": width, "seen": [image.height, image.width]}


def summary(indices: list[int]) -> list[int]:
    """How many indices there are, and their checksum."""
    return [len(indices), crc32(np.array(indices, dtype="<i8").tobytes())]


def prompt(
    processor_class: type[ProcessorMixin],
    config_class: type[PretrainedConfig],
    model_class: type[PreTrainedModel],
    **options: Any,
) -> dict[str, np.ndarray]:
    """What the whole processor and the model's positions are for a prompt with a video, an image and a video."""
    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER)
    images, videos = Qwen2VLImageProcessor(**IMAGE_BOUNDS), Qwen2VLVideoProcessor(**BOUNDS)
    processor = processor_class(images, tokenizer, videos, chat_template=TEMPLATE)
    content = [{"type": "video"}, {"type": "image"}, {"type": "text", "text": "有几只猫?"}, {"type": "video"}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    values = processor(
        text=[text],
        images=[Image.open(TOKENIZER / "rgb.png")],
        videos=[frames("odd"), frames("one")],
        return_tensors="pt",
        **options,
    )
    config = config_class(
        vision_start_token_id=tokenizer.convert_tokens_to_ids("<|vision_start|>"),
        image_token_id=processor.image_token_id,
        video_token_id=processor.video_token_id,
        vision_config={"tokens_per_second": 2},
    )
    layout = {name: values[name] for name in LAYOUT if name in values}
    positions, _ = model_class.get_rope_index(SimpleNamespace(config=config), **layout)
    return {name: value.numpy() for name, value in {**values, "position_ids": positions}.items()}


def check_video_processor() -> None:
    """Assert that transformers reads the settings that ours saves."""
    ours = OurVideoProcessor(nframes=8, **BOUNDS)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "video_preprocessor_config.json").write_text(json.dumps(ours.to_published()))
        theirs = AutoVideoProcessor.from_pretrained(folder)
    assert isinstance(theirs, Qwen2VLVideoProcessor)
    size = {"shortest_edge": ours.min_pixels, "longest_edge": ours.max_pixels}
    assert (dict(theirs.size), theirs.num_frames, theirs.fps) == (size, 8, None)


def main() -> None:
    """Write all files of the fixture."""
    FIXTURE.mkdir(parents=True, exist_ok=True)
    for number, frame in enumerate(frames("odd")):
        Image.fromarray(frame).save(FIXTURE / f"odd_{number}.png")
    Image.fromarray(frames("one")[0]).save(FIXTURE / "one_0.png")
    np.savez_compressed(FIXTURE / "videos.npz", **processed())
    np.savez_compressed(FIXTURE / "prompt.npz", **prompt(Qwen2VLProcessor, Qwen2VLConfig, Qwen2VLModel))
    timed = prompt(Qwen2_5_VLProcessor, Qwen2_5_VLConfig, Qwen2_5_VLModel, fps=RATES)
    np.savez_compressed(FIXTURE / "timed_prompt.npz", **timed)
    for name, rows in (("chosen.json", chosen()), ("sized.json", sized())):
        lines = ",\n".join(json.dumps(row) for row in rows)
        (FIXTURE / name).write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    check_video_processor()


if __name__ == "__main__":
    main()
