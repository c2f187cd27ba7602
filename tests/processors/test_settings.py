import logging

import pytest

from paddlemix.conversation import VideoSettings
from paddlemix.models.qwen2_vl.processing import Qwen2VLProcessor
from paddlemix.processors.settings import VARIABLES, given_settings, log_once

ALL = [variable for variables in VARIABLES.values() for variable in variables]


@pytest.fixture
def folder(make_processor, tmp_path, monkeypatch):
    """A checkpoint with settings of its own, and an environment that has none."""
    for variable in ALL:
        monkeypatch.delenv(variable, raising=False)
    make_processor(min_pixels=1000, max_pixels=2000).save_pretrained(tmp_path)
    return tmp_path


def bounds(folder, **arguments):
    images = Qwen2VLProcessor.from_pretrained(folder, **arguments).image_processor
    return images.min_pixels, images.max_pixels


def test_an_argument_takes_precedence_over_the_environment_and_that_over_the_checkpoint(folder, monkeypatch):
    assert bounds(folder) == (1000, 2000)
    monkeypatch.setenv("MAX_PIXELS", "3000")
    monkeypatch.setenv("MIN_PIXELS", "500")
    assert bounds(folder) == (500, 3000)
    assert bounds(folder, max_pixels=4000) == (500, 4000)
    assert bounds(folder, max_pixels=None) == (500, 3000)


def test_the_same_holds_for_videos(folder, monkeypatch):
    def videos(**arguments):
        return Qwen2VLProcessor.from_pretrained(folder, **arguments).video_processor

    assert (videos().fps, videos().nframes) == (2.0, None)
    monkeypatch.setenv("NFRAMES", "8")
    assert videos().nframes == 8
    assert (videos(fps=0.5).nframes, videos(fps=0.5).fps) == (None, 0.5)
    assert videos(nframes=6).nframes == 6
    Qwen2VLProcessor.from_pretrained(folder, nframes=6).save_pretrained(folder)
    monkeypatch.delenv("NFRAMES")
    assert videos().nframes == 6
    monkeypatch.setenv("FPS", "4")
    assert (videos().nframes, videos().fps) == (None, 4)


@pytest.mark.parametrize("variable", ALL)
def test_every_variable_sets_its_value_and_is_named_as_its_source(variable):
    ((name, _),) = ((name, variables) for name, variables in VARIABLES.items() if variable in variables)
    given = given_settings({}, {variable: " 77 "})
    values = {**given.images, **{f"video_{key}": value for key, value in vars(given.video).items()}}
    assert values[name if name in given.images or name.startswith("video_") else f"video_{name}"] == 77
    assert given.sources[name] == variable


def test_a_rate_may_be_a_fraction_and_numbers_must_be_whole():
    assert given_settings({}, {"FPS": "0.5"}).video.fps == 0.5
    with pytest.raises(ValueError, match=r"^NFRAMES is 0\.5; expected a whole number above 0\.$"):
        given_settings({}, {"NFRAMES": "0.5"})


@pytest.mark.parametrize("value", ["many", "0", "-4", "1e400", "nan", "1 2"])
@pytest.mark.parametrize("variable", ALL)
def test_a_bad_value_is_refused_with_the_variables_name(variable, value):
    with pytest.raises(ValueError, match=rf"^{variable} is .*; expected a (whole )?number above 0\.$"):
        given_settings({}, {variable: value})


@pytest.mark.parametrize("value", ["100", True, 0, -1, 1.5])
def test_a_bad_argument_is_refused_with_its_name(value):
    with pytest.raises(ValueError, match=r"^`max_pixels` is .*; expected a whole number above 0\.$"):
        given_settings({"max_pixels": value}, {})


def test_an_argument_that_is_nothing_is_refused_with_the_nearest_one(folder):
    with pytest.raises(TypeError, match="`max_pixel` is nothing .* Did you mean `max_pixels`?"):
        Qwen2VLProcessor.from_pretrained(folder, max_pixel=1)


def test_blank_variables_are_not_set():
    assert given_settings({}, {"MAX_PIXELS": "", "FPS": " "}) == given_settings({}, {})


def test_two_ways_of_choosing_frames_are_refused():
    with pytest.raises(ValueError, match=r"^NFRAMES and FPS are both set"):
        given_settings({}, {"NFRAMES": "8", "FPS": "1"})
    with pytest.raises(ValueError, match=r"^`nframes` and `fps` are both set"):
        given_settings({"nframes": 8, "fps": 1}, {})
    assert given_settings({"fps": 1}, {"NFRAMES": "8"}).video == VideoSettings(fps=1)


def test_the_images_variable_lowers_videos_too_and_never_raises_them():
    def frame_pixels(arguments, environment, most=602112):
        return given_settings(arguments, environment, max_frame_pixels=most).video.max_pixels

    assert frame_pixels({}, {"MAX_PIXELS": "100352"}) == 100352
    assert frame_pixels({}, {"MAX_PIXELS": "9999999"}) == 602112
    assert frame_pixels({}, {"MAX_PIXELS": "100352", "VIDEO_MAX_PIXELS": "700000"}) == 700000
    assert frame_pixels({"max_pixels": 100352}, {}) is None
    assert frame_pixels({}, {"MAX_PIXELS": "100352"}, most=None) is None


def test_crossing_bounds_of_images_are_told(folder, monkeypatch):
    monkeypatch.setenv("MIN_PIXELS", "2001")
    with pytest.raises(ValueError, match=r"`min_pixels` \(MIN_PIXELS\) is 2001, more than .* 2000"):
        Qwen2VLProcessor.from_pretrained(folder)


def test_a_given_size_replaces_the_images_own(folder, monkeypatch):
    monkeypatch.setenv("RESIZED_HEIGHT", "29")
    with pytest.raises(ValueError, match="set both or none"):
        Qwen2VLProcessor.from_pretrained(folder)
    monkeypatch.setenv("RESIZED_WIDTH", "57")
    images = Qwen2VLProcessor.from_pretrained(folder).image_processor
    assert images.resized(500, 10) == images.resized(3, 900) == (56, 28)
    Qwen2VLProcessor.from_pretrained(folder).save_pretrained(folder)
    monkeypatch.undo()
    assert Qwen2VLProcessor.from_pretrained(folder).image_processor == images


def test_what_is_in_effect_is_logged_once_with_tokens_and_sources(folder, monkeypatch, caplog):
    monkeypatch.setenv("MAX_PIXELS", "78400")
    monkeypatch.setenv("NFRAMES", "12")
    log_once.cache_clear()
    with caplog.at_level(logging.INFO, logger="paddlemix"):
        for _ in range(3):
            Qwen2VLProcessor.from_pretrained(folder, min_pixels=3136)
    (record,) = caplog.records
    assert record.getMessage() == (
        "images: 3136 to 78400 pixels, 4 to 100 tokens each; videos: 12 frames, 78400 to 78400 pixels a frame, "
        "19267584 pixels a video; max_pixels from MAX_PIXELS; nframes from NFRAMES; video_max_pixels from MAX_PIXELS"
    )


def test_a_size_factor_is_ignored_with_a_warning(caplog):
    given_settings({}, {"SIZE_FACTOR": "8"})
    assert "SIZE_FACTOR is ignored" in caplog.text
