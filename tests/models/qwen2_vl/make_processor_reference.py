"""Makes tests/fixtures/qwen2_vl_processor/: images, and what transformers' Qwen2-VL preprocessing makes of them.

Run it in an environment with transformers 4.57.6, torch 2.13.0 (CPU) and pillow 12.3.0, with the chat_template.json of
a published Qwen2-VL-*-Instruct checkpoint (only the strings it renders are kept):

    python tests/models/qwen2_vl/make_processor_reference.py --chat_template chat_template.json

It also checks that transformers reads what paddlemix's tokenizer and image processor save. The tests read the folder
and need neither package. Every run writes the same files.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from transformers import AutoImageProcessor, AutoTokenizer, Qwen2VLImageProcessor
from transformers.image_utils import load_image
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize
from transformers.utils.chat_template_utils import render_jinja_template

ROOT = Path(__file__).parents[3]
FIXTURE = ROOT / "tests" / "fixtures" / "qwen2_vl_processor"
sys.path.insert(0, str(ROOT))

from paddlemix.models.qwen2_vl.images import Qwen2VLImageProcessor as OurImageProcessor  # noqa: E402
from paddlemix.models.qwen2_vl.tokenizer import Qwen2Tokenizer, add_control_tokens  # noqa: E402
from paddlemix.processors.qwen_byte_pairs import untrained_tokenizer  # noqa: E402

EXIF_ORIENTATION = 0x0112
SIDES = (1, 5, 13, 14, 15, 27, 28, 41, 42, 56, 83, 100, 223, 480, 641, 1079, 1920, 4032)
BOUNDS = ((56 * 56, 1280 * 28 * 28), (56 * 56, 12845056), (256 * 28 * 28, 512 * 28 * 28), (4 * 28 * 28, 5 * 28 * 28))
# Bounds that shrink, keep and grow the images below.
IMAGE_BOUNDS = {"default": (56 * 56, 1280 * 28 * 28), "small": (28 * 28, 2 * 28 * 28)}
CORPUS = [
    "Find the red circle.",
    "The cat sat on the mat, and looked at the image.",
    "图中有一只猫和一辆红色的巴士。",
] * 3
TEXTS = [
    "",
    "Find the red circle.",
    " leading and trailing ",
    "\n\nlines\r\n\tand tabs",
    "图中有一只猫，在红色的巴士上。",
    "e\u0301 cafe\u0301",
    "1234 + 56 = 1290; don't I'LL",
    "🐈‍⬛ \ufeff \x00",
]


def images() -> Iterator[tuple[str, Image.Image, dict[str, Any]]]:
    """File name, image and how it is saved; every mode and orientation that changes what is read."""
    noise = np.random.default_rng(0).integers(0, 256, (75, 61, 4), dtype=np.uint8)
    colours = Image.fromarray(np.ascontiguousarray(noise[:47, :, :3]))
    yield "rgb.png", colours, {}
    yield "rgba.png", Image.fromarray(noise[:, :50]), {}
    yield "grey.png", Image.fromarray(noise[:33, :, 0]), {}
    yield "grey_alpha.png", Image.merge("LA", [Image.fromarray(noise[:40, :, i]) for i in (0, 3)]), {}
    yield "grey16.png", Image.fromarray(noise[:30, :30, 0].astype(np.uint16) * 3), {}
    yield "bilevel.png", Image.fromarray(noise[:70, :, 1]).convert("1"), {}
    yield "palette.png", colours.quantize(16), {"transparency": 3}
    yield "cmyk.jpg", colours.convert("CMYK"), {}
    yield "tiny.png", colours.crop((0, 0, 3, 2)), {}
    yield "narrow.png", colours.crop((0, 0, 61, 2)), {}
    for orientation, suffix in ((3, "jpg"), (5, "png"), (6, "jpg"), (8, "webp")):
        exif = Image.Exif()
        exif[EXIF_ORIENTATION] = orientation
        yield f"turned_{orientation}.{suffix}", colours, {"exif": exif}


def save_images() -> list[str]:
    """Write the images; their file names."""
    names = []
    for name, image, options in images():
        image.save(FIXTURE / name, **options)
        names.append(name)
    return names


def processed(names: list[str]) -> dict[str, np.ndarray]:
    """pixel_values and image_grid_thw of each image within each bounds."""
    arrays = {}
    for (label, (low, high)), name in product(IMAGE_BOUNDS.items(), names):
        processor = Qwen2VLImageProcessor(min_pixels=low, max_pixels=high)
        values = processor(images=load_image(str(FIXTURE / name)), return_tensors="np")
        arrays[f"{label}/{name}/pixel_values"] = values["pixel_values"].astype(np.float32, casting="no")
        arrays[f"{label}/{name}/image_grid_thw"] = values["image_grid_thw"]
    return arrays


def resizes() -> list[list[int]]:
    """Height, width, the two bounds, and the new height and width, of every pair of SIDES up to an aspect of 200."""
    rows = []
    for height, width, (low, high) in product(SIDES, SIDES, BOUNDS):
        if max(height, width) <= 200 * min(height, width):
            rows.append([height, width, low, high, *smart_resize(height, width, 28, low, high)])
    return rows


def chats() -> Iterator[list[dict[str, Any]]]:
    """Messages in the forms that the template tells apart."""
    image, clip = {"type": "image"}, {"type": "video"}
    question = {"role": "user", "content": [image, {"type": "text", "text": "这是什么？"}]}
    answer = {"role": "assistant", "content": [{"type": "text", "text": "A cat."}]}
    system = {"role": "system", "content": "Be brief."}
    yield [question]
    yield [system, question]
    yield [{"role": "system", "content": [{"type": "text", "text": "请简短。"}]}, question, answer]
    yield [question, answer, {"role": "user", "content": "Where?"}, {"role": "assistant", "content": "There.\n"}]
    yield [
        {"role": "user", "content": [image, image, {"type": "text", "text": "Compare."}, image]},
        answer,
        question,
    ]
    yield [{"role": "user", "content": [clip, image, clip, {"type": "text", "text": "Play."}]}]
    yield [{"role": "user", "content": [{"image": "a.jpg"}, {"image_url": "b.jpg"}, {"video": "c.mp4"}, {"text": "?"}]}]
    yield [{"role": "user", "content": []}, {"role": "assistant", "content": ""}]
    yield [question, answer, system, question]


def rendered(template: str) -> list[dict[str, Any]]:
    """Each chat with each option, and the string that the template makes of it."""
    # The published template reads `type`, which jinja2 takes as undefined where it is missing.
    rows = []
    for messages, prompt, numbers in product(chats(), (False, True), (False, True)):
        options = {"add_generation_prompt": prompt, "add_vision_id": numbers}
        ((text,), _) = render_jinja_template([messages], chat_template=template, **options)
        rows.append({"messages": messages, **options, "text": text})
    return rows


def small_tokenizer() -> Qwen2Tokenizer:
    """Qwen2's kind of tokenizer with a vocabulary of a few hundred."""
    backend = untrained_tokenizer(BPE())
    alphabet = ByteLevel.alphabet()
    backend.train_from_iterator(CORPUS, BpeTrainer(vocab_size=320, initial_alphabet=alphabet, show_progress=False))
    add_control_tokens(backend)
    return Qwen2Tokenizer(backend)


def tokenized(template: str, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """What transformers' tokenizer, loaded from our files, makes of texts and of a prompt with images."""
    tokenizer = small_tokenizer()
    tokenizer.save_pretrained(FIXTURE)
    theirs = AutoTokenizer.from_pretrained(FIXTURE)
    assert (theirs.pad_token_id, theirs.eos_token_id) == (tokenizer.pad_token_id, tokenizer.eos_token_id)
    names = ["rgb.png", "turned_6.jpg", "narrow.png"]
    counts = [int(arrays[f"default/{name}/image_grid_thw"].prod()) // 4 for name in names]
    content = [{"type": "image"}, {"type": "image"}, {"type": "text", "text": "有几只猫?"}, {"type": "image"}]
    messages = [{"role": "user", "content": content}, {"role": "assistant", "content": "Two 猫."}]
    ((text,), _) = render_jinja_template([messages], chat_template=template)
    before, *rest = text.split("<|image_pad|>")
    text = before + "".join("<|image_pad|>" * count + part for count, part in zip(counts, rest, strict=True))
    texts = [{"text": text, "ids": theirs(text).input_ids} for text in TEXTS]
    return {"texts": texts, "prompt": {"pictures": names, "messages": messages, "input_ids": theirs(text).input_ids}}


def check_image_processor() -> None:
    """Assert that transformers reads the settings that ours saves."""
    ours = OurImageProcessor(min_pixels=4 * 28 * 28, max_pixels=9 * 28 * 28)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "preprocessor_config.json").write_text(json.dumps(ours.to_published()))
        theirs = AutoImageProcessor.from_pretrained(folder, use_fast=False)
    assert OurImageProcessor.from_published(theirs.to_dict()) == ours


def write(name: str, rows: list[Any] | dict[str, Any]) -> None:
    """A JSON file of the fixture, a row a line."""
    text = json.dumps(rows, ensure_ascii=False)
    if isinstance(rows, list):
        text = "[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n]"
    (FIXTURE / name).write_text(text + "\n", encoding="utf-8")


def main() -> None:
    """Write all files of the fixture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chat_template", type=Path, required=True, help="a published checkpoint's chat_template.json")
    template = json.loads(parser.parse_args().chat_template.read_text("utf-8"))["chat_template"]
    FIXTURE.mkdir(parents=True, exist_ok=True)
    arrays = processed(save_images())
    np.savez_compressed(FIXTURE / "pictures.npz", **arrays)
    write("resizes.json", resizes())
    write("chats.json", rendered(template))
    write("tokens.json", tokenized(template, arrays))
    check_image_processor()


if __name__ == "__main__":
    main()
