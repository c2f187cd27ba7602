from __future__ import annotations

import json
import logging
import shutil

import pytest

from paddlemix import processors
from paddlemix.names import PREPROCESSOR_FILE, PROCESSOR_FILE, VIDEO_PREPROCESSOR_FILE
from paddlemix.processors.preprocessor import CLIP_MEAN, pixel_bounds, stored_settings
from tests.references import FIXTURES

SAVED = sorted((FIXTURES / "published_configs").glob("*/processors/*"))
CLASSES = {"qwen2_vl": processors.Qwen2VLProcessor, "qwen2_5_vl": processors.Qwen25VLProcessor}
FILES = (PREPROCESSOR_FILE, VIDEO_PREPROCESSOR_FILE, PROCESSOR_FILE)


@pytest.fixture
def folder(tmp_path, processor_reference):
    """A checkpoint's folder with a tokenizer and no settings."""
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(processor_reference / name, tmp_path / name)
    return tmp_path


def write(folder, name, values):
    (folder / name).write_text(json.dumps(values))


def read(folder):
    return processors.Qwen2VLProcessor.from_pretrained(folder)


@pytest.mark.parametrize("saved", SAVED, ids=lambda path: f"{path.parts[-3]}-{path.name}")
def test_settings_that_a_release_saved_are_those_that_were_chosen(saved, folder):
    for path in saved.iterdir():
        shutil.copyfile(path, folder / path.name)
    processor = CLASSES[saved.name].from_pretrained(folder)
    still, moving = processor.image_processor, processor.video_processor
    assert (still.min_pixels, still.max_pixels) == (4 * 28 * 28, 640 * 28 * 28)
    assert (still.image_mean, still.image_std) == (CLIP_MEAN, (0.3, 0.3, 0.25))
    if saved.parts[-3] not in ("4.45", "4.49"):
        assert (moving.min_pixels, moving.max_pixels) == (8 * 28 * 28, 99 * 28 * 28)
        assert (moving.fps, moving.min_frames, moving.max_frames) == (1.5, 6, 96)


def test_settings_of_every_release_are_there():
    assert len(SAVED) == 11 and (FIXTURES / "published_configs/5.24/processors/qwen2_vl" / PROCESSOR_FILE).is_file()


def test_processor_config_json_counts_where_files_differ_and_a_warning_says_so(folder, caplog):
    write(folder, PREPROCESSOR_FILE, {"max_pixels": 7 * 28 * 28, "patch_size": 14})
    write(folder, PROCESSOR_FILE, {"image_processor": {"size": {"longest_edge": 9 * 28 * 28, "shortest_edge": 784}}})
    assert read(folder).image_processor.max_pixels == 9 * 28 * 28
    (said,) = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert f"{PREPROCESSOR_FILE} differ in `max_pixels`; {PROCESSOR_FILE} counts" in said


def test_files_that_agree_in_other_spellings_are_no_difference(folder, caplog):
    write(folder, PREPROCESSOR_FILE, {"max_pixels": 7056, "min_pixels": 784})
    write(folder, PROCESSOR_FILE, {"image_processor": {"size": {"longest_edge": 7056, "shortest_edge": 784}}})
    assert read(folder).image_processor.max_pixels == 7056
    assert not [record for record in caplog.records if record.levelno == logging.WARNING]


def test_a_processor_config_json_without_settings_leaves_the_other_files_to_say_them(folder):
    write(folder, PROCESSOR_FILE, {"processor_class": "Qwen2VLProcessor"})
    write(folder, PREPROCESSOR_FILE, {"max_pixels": 7056})
    assert read(folder).image_processor.max_pixels == 7056


def test_what_is_saved_counts_whatever_was_in_the_folder(folder):
    stale = {"image_processor": {"max_pixels": 7056}, "video_processor": {"fps": 9.0}, "processor_class": "X"}
    write(folder, PROCESSOR_FILE, stale)
    processor = processors.Qwen2VLProcessor.from_pretrained(folder, max_pixels=8 * 784, fps=3.0)
    processor.save_pretrained(folder)
    again = read(folder)
    assert (again.image_processor.max_pixels, again.video_processor.fps) == (8 * 784, 3.0)
    assert json.loads((folder / PROCESSOR_FILE).read_text()) == {"processor_class": "X"}


def test_missing_settings_are_told_once(folder, caplog):
    caplog.set_level(logging.INFO)
    read(folder)
    read(folder)
    said = [record.message for record in caplog.records if "defaults hold" in record.message]
    assert len(said) == 2
    assert f"no {PREPROCESSOR_FILE}, and no {PROCESSOR_FILE} with `image_processor`" in said[0]
    assert f"no {VIDEO_PREPROCESSOR_FILE}, and no {PROCESSOR_FILE} with `video_processor`" in said[1]


@pytest.mark.parametrize("file", [PREPROCESSOR_FILE, VIDEO_PREPROCESSOR_FILE])
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"do_resize": False}, "`do_resize` is false; only true is built in"),
        ({"do_normalize": False}, "`do_normalize` is false"),
        ({"do_rescale": False}, "`do_rescale` is false"),
        ({"do_convert_rgb": False}, "`do_convert_rgb` is false"),
        ({"do_center_crop": True}, "`do_center_crop` is true"),
        ({"resample": 2}, "`resample` is 2; only 3 is built in"),
        ({"rescale_factor": 1 / 127.5}, "only 1/255 is built in"),
        ({"size": {"height": 224, "width": 224}}, "expected the areas `shortest_edge` and `longest_edge`"),
        ({"size": 224}, "`size` is 224"),
        ({"max_pixels": "1003520"}, '`max_pixels` is "1003520"; expected a whole number from 1 to'),
        ({"image_mean": [0.5]}, "`image_mean` is [0.5]; expected three numbers"),
        ({"image_std": [0.5, 0.5, 0]}, "`image_std` is [0.5, 0.5, 0]"),
    ],
)
def test_what_is_not_computed_is_refused_by_file_and_name(folder, file, nested, values, said):
    key = {PREPROCESSOR_FILE: "image_processor", VIDEO_PREPROCESSOR_FILE: "video_processor"}[file]
    write(folder, PROCESSOR_FILE if nested else file, {key: values} if nested else values)
    with pytest.raises(ValueError) as caught:
        read(folder)
    place = f"{folder / PROCESSOR_FILE}: `{key}`" if nested else str(folder / file)
    assert str(caught.value).startswith(f"{place}: ") and said in str(caught.value)


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_named_with_its_line(folder, name):
    (folder / name).write_text('{\n"max_pixels": }')
    with pytest.raises(ValueError, match=f"{name}:2: not valid JSON"):
        read(folder)


def test_settings_that_are_no_object_are_refused(tmp_path):
    write(tmp_path, PROCESSOR_FILE, {"image_processor": "Qwen2VLImageProcessor"})
    with pytest.raises(ValueError, match='`image_processor` is "Qwen2VLImageProcessor"; expected an object'):
        stored_settings(tmp_path, PREPROCESSOR_FILE)


def test_areas_are_read_under_all_of_their_names():
    wanted = {"min_pixels": 784, "max_pixels": 7056}
    assert pixel_bounds({"size": {"min_pixels": 784, "max_pixels": 7056}}) == wanted
    assert pixel_bounds({"size": {"shortest_edge": 784, "longest_edge": 7056}, "min_pixels": None}) == wanted
    assert pixel_bounds({**wanted, "size": {"shortest_edge": 1, "longest_edge": 2}}) == wanted


def test_a_budget_of_all_frames_that_transformers_5_was_told_holds(folder):
    told = {"cap_pixels_per_frame": True, "max_video_tokens": 1000}
    write(folder, PROCESSOR_FILE, {"video_processor": told})
    assert read(folder).video_processor.total_pixels == 900 * 28 * 28
    write(folder, PROCESSOR_FILE, {"video_processor": {**told, "cap_pixels_per_frame": False}})
    assert read(folder).video_processor.total_pixels == 24576 * 28 * 28
