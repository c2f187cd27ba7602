"""What records ask of their images and videos: bounds hold where they are read, and counts before ids are made."""

import json
import time
import tracemalloc

import numpy as np
import pytest

from paddlemix.conversation import Conversation, Image, ImageSettings, OverlongError, RecordId, Text, Turn, Video
from paddlemix.datasets.loading.load import load_set
from paddlemix.datasets.spec import DatasetSpec

GOOD = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}


@pytest.fixture
def load(tmp_path, make_processor, save_image):
    """Load a set of a record that shows an image or a video as it asks, and of one that is good."""
    save_image(64, 64, "a.png")
    video = [save_image(64, 64, "b.png")] * 8

    def load(kind, asked, **bounds):
        shown = {"type": kind, kind: "a.png" if kind == "image" else video, **asked}
        turns = [{"role": "user", "content": [shown, {"type": "text", "text": "q"}]}, GOOD["messages"][1]]
        path = tmp_path / "r.jsonl"
        path.write_text(json.dumps({"messages": turns}) + "\n" + json.dumps(GOOD))
        processor = make_processor(**bounds)
        start = time.process_time()
        tracemalloc.start()
        loaded = load_set(DatasetSpec(name="openai", data_files=str(path)), processor)
        memory = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert time.process_time() - start < 1 and memory < 10e6
        assert len(loaded.conversations) + len(loaded.errors) == 2
        return loaded

    return load


@pytest.mark.parametrize("kind", ["image", "video"])
@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"min_pixels": 10**10}, "`min_pixels` of `content[0]` of `messages[0]` is the number 10000000000"),
        ({"min_pixels": 10**11, "max_pixels": 10**11}, "from 1 to 12,845,056"),
        ({"min_pixels": 12_845_057}, "from 1 to 12,845,056"),
        ({"min_pixels": 5000, "max_pixels": 4000}, "is 5000 and `max_pixels` 4000"),
        ({"max_pixels": 10**13}, "is the number 10000000000000"),
        ({"min_pixels": -1}, "a whole number above 0"),
        ({"min_pixels": 1e5}, "a whole number above 0"),
        ({"min_pixels": 12_845_056}, "tokens, but `max_length` is 2048"),
        ({"resized_width": 9000, "resized_height": 9000}, "tokens, but `max_length` is 2048"),
        ({"resized_width": 10**9, "resized_height": 10**9}, "`resized_height` of `content[0]`"),
        ({"resized_width": 10}, "set both or none"),
    ],
)
def test_a_size_that_no_record_asks_for_is_told_with_the_record(load, kind, asked, words):
    (error,) = load(kind, asked).errors
    assert error.source.index == 0 and words in error.problem


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"fps": 1e-300}, "from 0.0001 to 1,000,000"),
        ({"fps": 1e11}, "from 0.0001 to 1,000,000"),
        ({"sample_fps": 5e-324}, "`sample_fps` of"),
        ({"start": 5, "end": 1}, "is 5 and `end` 1"),
        ({"video_start": 1, "video_end": 1}, "is 1 and `end` 1"),
        ({"start": 1e11}, "from 0 to 1,000,000,000"),
        ({"min_frames": 10, "max_frames": 4}, "is 10 and `max_frames` 4"),
        ({"nframes": 10**13}, "`nframes` of"),
    ],
)
def test_frames_that_no_record_asks_for_are_told_with_the_record(load, asked, words):
    (error,) = load("video", asked).errors
    assert error.source.index == 0 and words in error.problem


def test_bounds_that_a_part_and_the_object_in_it_give_together_are_held_to(tmp_path, make_processor, save_image):
    shown = {"type": "image", "min_pixels": 5000, "image": {"path": save_image(64, 64), "max_pixels": 4000}}
    turns = [{"role": "user", "content": [shown]}, GOOD["messages"][1]]
    path = tmp_path / "r.jsonl"
    path.write_text(json.dumps({"messages": turns}))
    (error,) = load_set(DatasetSpec(name="openai", data_files=str(path)), make_processor()).errors
    assert "is 5000 and `max_pixels` 4000" in error.problem


@pytest.mark.parametrize("truncate_text", [False, True])
@pytest.mark.parametrize("medium", ["image", "video"])
def test_what_a_program_asks_for_is_counted_before_ids_or_patches_are_made(
    make_processor, save_image, truncate_text, medium
):
    settings = ImageSettings(min_pixels=10**10, max_pixels=10**10)
    path = save_image(64, 64)
    shown = Image(path, settings) if medium == "image" else Video((path,) * 2000)
    turns = Turn("user", (shown, Text("q"))), Turn("assistant", (Text("a"),))
    conversation = Conversation(turns, RecordId("r.jsonl", 3))
    processor = make_processor(truncate_text=truncate_text)
    for make in (processor.measure, processor.encode):
        tracemalloc.start()
        with pytest.raises(OverlongError, match=r"r\.jsonl, record 3: [0-9]+ tokens, but `max_length` is 2048"):
            make(conversation)
        memory = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert memory < 10e6


def test_a_sample_that_fits_is_what_it_was(make_processor, save_image):
    path = save_image(64, 64)
    turns = Turn("user", (Image(path), Text("q"))), Turn("assistant", (Text("a " * 3000),))
    processor = make_processor(truncate_text=True)
    conversation = Conversation(turns, RecordId("r.jsonl", 3))
    sample = processor.encode(conversation)
    assert len(sample.input_ids) == processor.measure(conversation).tokens == 2048
    assert np.isfinite(sample.media["pixel_values"]).all()
