"""Every family's processor is what the other rooms ask for, and is there without Paddle."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest

from paddlemix.contract import Grounding, PlaceSizes, Processor, Sample, SampleSize, ShownSize, Tokenizer
from paddlemix.conversation import Box, Conversation, Image, RecordId, Reference, Text, Turn
from paddlemix.models.qwen_vl.images import QwenVLImageProcessor
from paddlemix.models.qwen_vl.processing import QwenVLProcessor
from paddlemix.names import IGNORED_LABEL


def shown_sizes(sizes):
    return [ShownSize(size) for size in sizes]


def members(protocol) -> set[str]:
    """What a Protocol asks for: methods, properties and attributes."""
    names = {*dir(protocol), *(name for one in protocol.__mro__ for name in getattr(one, "__annotations__", {}))}
    return {name for name in names if not name.startswith("_")}


@pytest.fixture(params=["qwen2_vl", "qwen_vl"])
def processor(request, make_processor, qwen_tokenizer) -> Processor:
    if request.param == "qwen2_vl":
        return make_processor()
    return QwenVLProcessor(qwen_tokenizer, QwenVLImageProcessor(28))


def test_every_family_does_all_that_is_asked_of_a_processor(processor, save_image, tmp_path):
    box = Box(10, 10, 50, 40)
    asked = Turn("user", (Image(save_image(100, 80)), Text("Find "), Reference("猫"), Text(".")))
    said = Turn("assistant", (Reference("猫"), box))
    source = RecordId("a.json", 0)
    question, record = Conversation((asked,), source), Conversation((asked, said), source)
    again = Conversation((asked, said, asked, said), source)

    sample, prompt, size = processor.encode(record), processor.encode_prompt(question), processor.measure(record)
    assert isinstance(sample, Sample) and isinstance(prompt, Sample) and isinstance(size, SampleSize)
    length = len(prompt.input_ids)
    np.testing.assert_array_equal(sample.input_ids[:length], prompt.input_ids)
    assert size.tokens == len(sample.input_ids) > length and size.images == 1
    assert size.target_tokens == np.count_nonzero(sample.labels[1:] != IGNORED_LABEL) > 0
    assert sample.media.keys() == prompt.media.keys() >= {"pixel_values"}
    assert processor.image_size(again, 1) == (100, 80)
    assert [one.original for one in processor.place_sizes(again).images] == [(100, 80)] * 2
    path = record.images[0].path
    assert processor.open_image(path).size == (100, 80)
    with processor.open_video((path, path)) as video:
        assert [frame.shape for frame in video.read([0, 1])] == [(80, 100, 3)] * 2

    answer = sample.input_ids[length:]
    raw = processor.decode(answer)
    assert [raw] == processor.batch_decode([answer])
    skipped = processor.decode(answer, skip_control_tokens=True)
    assert skipped.strip() == "猫(100,125),(500,500)"
    assert processor.decode(answer, skip_special_tokens=True) == skipped
    assert processor.batch_decode([answer], skip_special_tokens=True) == [skipped]
    ((found,),) = processor.grounding.parse(raw, shown_sizes([(100, 80)]))
    assert (found.label, found.box) == ("猫", box.in_pixels(100, 80))
    on_one = shown_sizes([(100, 80)])
    assert processor.grounding.parse_points(raw, on_one) == processor.grounding.parse_quads(raw, on_one) == [[]]
    written = processor.grounding.write(said, PlaceSizes.of_images([(100, 80)]))
    assert "".join(piece.text for piece in written) == raw[: raw.index("<|im_end|>")]
    assert processor.grounding.strip(raw).startswith(skipped.strip())

    tokenizer = processor.tokenizer
    end = tokenizer.token_id("<|im_end|>")
    assert end in (*processor.stop_token_ids, tokenizer.eos_token_id) and end in answer
    assert processor.end_of_turn == "<|im_end|>"
    assert tokenizer.decode([tokenizer.pad_token_id]) == "<|endoftext|>"
    assert tokenizer.decode([tokenizer.pad_token_id], skip_control_tokens=True) == ""
    assert tokenizer.settings["tokenizer_class"]
    assert tokenizer.size > max(end, tokenizer.pad_token_id, int(sample.input_ids.max()))
    assert tokenizer.add_tokens([]) == {}
    for choice in ("text", "read"):
        tokenizer.choose_added_tokens(choice)
        processor.choose_added_tokens(choice)
        assert processor.encode(record).input_ids.tolist() == sample.input_ids.tolist()
    (tmp_path / "tokenizer").mkdir()
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    assert "tokenizer_config.json" in os.listdir(tmp_path / "tokenizer")

    processor.save_pretrained(tmp_path / "model")
    loaded = type(processor).from_pretrained(tmp_path / "model")
    assert loaded.fingerprint() == processor.fingerprint()
    assert type(processor).from_pretrained(tmp_path / "model", max_length=9).fingerprint() != loaded.fingerprint()


def test_the_test_above_leaves_nothing_out():
    with open(__file__, encoding="utf-8") as file:
        body = file.read()
    assert members(Processor) > {"encode", "measure", "fingerprint", "grounding", "stop_token_ids"}
    for name in members(Processor) | members(Grounding) | members(Tokenizer):
        assert f".{name}" in body, name


# What a data worker imports, and has no second for.
LOADS = """
import sys
from importlib import import_module
from pkgutil import walk_packages
import paddlemix.media, paddlemix.processors, paddlemix.visualization
for package in (paddlemix.media, paddlemix.processors, paddlemix.visualization):
    for module in walk_packages(package.__path__, package.__name__ + "."):
        if module.name not in {"paddlemix.media.video_pyav", "paddlemix.media.video_opencv"}:
            import_module(module.name)
classes = [getattr(paddlemix.processors, name) for name in paddlemix.processors.__all__]
assert len(classes) > 2 and all(one.__module__ in sys.modules for one in classes)
print(*sorted(name for name in sys.modules if name.split(".")[0] in ("paddle", "paddlenlp")))
print(*sorted(name for name in sys.modules if name.startswith("paddlemix.")))
"""


def test_processors_of_images_load_no_paddle():
    assert find_spec("paddle") is not None
    done = subprocess.run([sys.executable, "-c", LOADS], check=True, capture_output=True, text=True)
    paddle, ours = done.stdout.splitlines()
    assert paddle == ""
    families = {f"paddlemix.models.{family}.processing" for family in ("qwen2_vl", "qwen_vl")}
    assert families | {"paddlemix.processors.base", "paddlemix.media.records"} <= set(ours.split())
