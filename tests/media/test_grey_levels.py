"""Grey images of more than 8 bits are brought to 8 by a stated rule, or refused by name."""

from __future__ import annotations

import logging
import struct
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from paddlemix.media.images import ImageError, image_size, open_image, upright
from paddlemix.media.opening import ImageOpening
from paddlemix.media.rgb import grey_levels
from paddlemix.media.video import open_video

from .test_transparency import chunk

CASES = Path(__file__).parents[3] / "shared" / "cases" / "A31"
MIN_MAX = ImageOpening(range="min_max")
SIXTEEN_BITS = np.arange(65536, dtype=np.uint16).reshape(256, 256)


@pytest.fixture(autouse=True)
def nothing_told_yet(monkeypatch):
    monkeypatch.setattr(grey_levels, "_narrow_is_told", threading.Event())


@pytest.fixture
def save(tmp_path):
    def save(values, suffix="tiff"):
        path = str(tmp_path / f"grey.{suffix}")
        Image.fromarray(values).save(path)
        return path

    return save


def levels(path, opening=None):
    pixels = np.asarray(open_image(path, *([opening] if opening else [])))
    assert (pixels == pixels[..., :1]).all()
    return pixels[..., 0]


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_16_bits_are_divided_by_257_and_rounded_to_the_nearest(save, suffix):
    path = save(SIXTEEN_BITS, suffix)
    np.testing.assert_array_equal(levels(path), np.rint(SIXTEEN_BITS / 257))
    assert levels(path).min() == 0 and levels(path).max() == 255


def test_16_bits_with_the_large_end_first_are_the_same():
    image = Image.frombytes("I;16B", (256, 256), SIXTEEN_BITS.astype(">u2").tobytes())
    np.testing.assert_array_equal(np.asarray(upright(image))[..., 0], np.rint(SIXTEEN_BITS / 257))


def test_of_colours_of_16_bits_the_upper_8_are_read(tmp_path):
    row = struct.pack(">6H", 0x00FF, 0x0100, 0x01FF, 0xFF00, 0xFFFF, 0x8080)
    head = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" + row)) + chunk(b"IEND")
    path = tmp_path / "a.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    assert np.asarray(open_image(str(path)))[0].tolist() == [[0, 1, 1], [255, 255, 128]]


def test_floats_of_0_to_1_are_multiplied_by_255(save):
    values = np.linspace(0, 1, 600, dtype=np.float32).reshape(20, 30)
    np.testing.assert_array_equal(levels(save(values)), np.rint(values * 255))


@pytest.mark.parametrize("read", [open_image, image_size])
@pytest.mark.parametrize(
    ("values", "told"),
    [
        (np.array([[-0.5, 0.5]], np.float32), "32-bit floats (mode F) from -0.5 to 0.5; expected 0 to 1"),
        (np.array([[0, 1500]], np.float32), "32-bit floats (mode F) from 0 to 1500; expected 0 to 1"),
        (np.array([[0.25, np.nan]], np.float32), "32-bit floats (mode F) from 0.25 to 0.25; expected 0 to 1"),
        (np.array([[3, 70000]], np.int32), "32-bit integers (mode I) from 3 to 70000; expected 8 or 16 bits"),
    ],
)
def test_an_unknown_range_is_refused_with_mode_values_and_key_before_training(save, read, values, told):
    path = save(values)
    with pytest.raises(ImageError) as caught:
        read(path)
    assert told in str(caught.value) and str(caught.value).startswith(f"image {path} holds ")
    assert '`image_range` to "min_max" (IMAGE_RANGE)' in str(caught.value)


def test_an_open_image_of_unknown_range_is_refused_too():
    with pytest.raises(ImageError, match="^image that was given holds 32-bit integers"):
        upright(Image.fromarray(np.array([[3, 70000]], np.int32)))


@pytest.mark.parametrize("kind", [np.uint16, np.int32, np.float32])
def test_min_max_scales_from_the_least_to_the_greatest_value(save, kind):
    values = np.array([[1000, 1255], [1510, 1001]], kind)
    path = save(values)
    np.testing.assert_array_equal(levels(path, MIN_MAX), [[0, 128], [255, 0]])
    assert image_size(path, MIN_MAX) == (2, 2)


def test_min_max_leaves_images_of_8_bits_alone(save):
    values = np.array([[100, 150]], np.uint8)
    np.testing.assert_array_equal(levels(save(values), MIN_MAX), values)


def test_min_max_shows_one_value_as_black_and_what_is_no_number_as_the_end_it_is_nearest_to(save):
    assert (levels(save(np.full((3, 4), 700, np.uint16)), MIN_MAX) == 0).all()
    values = np.array([[2, np.nan, 4, np.inf, -np.inf]], np.float32)
    assert levels(save(values), MIN_MAX).tolist() == [[0, 0, 255, 255, 0]]
    assert (levels(save(np.full((3, 4), np.nan, np.float32)), MIN_MAX) == 0).all()


def test_an_unknown_rule_is_refused_with_the_key():
    with pytest.raises(ValueError, match=r"^`image_range` \(IMAGE_RANGE\) is 'auto'; expected one of bit_depth"):
        ImageOpening(range="auto")


class TestNarrowRange:
    """12 bits in a file of 16 are seen almost black."""

    def told(self, caplog, *paths, opening=None):
        with caplog.at_level(logging.WARNING, logger="paddlemix"):
            for path in paths:
                levels(path, opening)
        return [record.getMessage() for record in caplog.records]

    def test_it_is_told_once_with_file_bits_and_key(self, save, caplog):
        path = save(SIXTEEN_BITS[:16, :])
        (message,) = self.told(caplog, path, path, save(SIXTEEN_BITS[:8, :], "png"))
        assert message.startswith(f"image {path} uses 12 of its 16 bits (0 to 4095)") and "`image_range`" in message

    def test_it_is_not_told_of_a_wide_range_of_one_value_or_of_min_max(self, save, caplog):
        wide, blank = save(SIXTEEN_BITS), save(np.zeros((3, 4), np.uint16), "png")
        assert self.told(caplog, wide, blank) == []
        assert self.told(caplog, save(SIXTEEN_BITS[:16, :]), opening=MIN_MAX) == []


def test_frames_of_a_video_are_opened_as_images_are(save):
    path = save(np.array([[1000, 1255], [1510, 1001]], np.uint16))
    with open_video((path, path), MIN_MAX) as video:
        assert next(video.read([0]))[..., 0].max() == 255


@pytest.mark.parametrize("name", ["depth16.png", "depth16.tif", "float01.tif", "xray12in16.png", "int32.tif"])
def test_ramps_that_users_have_sent_survive(name):
    if not (CASES / name).is_file():
        pytest.skip(f"{name} is not at {CASES}")
    assert len(np.unique(levels(str(CASES / name), MIN_MAX))) > 200
    if name not in ("int32.tif", "xray12in16.png"):
        assert len(np.unique(levels(str(CASES / name)))) > 200
