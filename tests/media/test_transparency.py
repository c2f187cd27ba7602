"""Black letters on a transparent ground are seen on white, however transparency is written."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from paddlemix.media.images import open_image, upright
from paddlemix.media.video import open_video
from paddlemix.visualization.draw import draw_boxes

CASES = Path(__file__).parents[3] / "shared" / "cases" / "A30"
SIZE = (24, 16)


def soft_letters() -> Image.Image:
    """RGBA of noise with every opacity from 0 to 255."""
    values = np.random.default_rng(0).integers(0, 256, (*SIZE[::-1], 4), dtype=np.uint8)
    return Image.fromarray(values)


def published(rgba: Image.Image) -> np.ndarray:
    """The rule of qwen-vl-utils."""
    ground = Image.new("RGB", rgba.size, (255, 255, 255))
    ground.paste(rgba, mask=rgba.split()[3])
    return np.asarray(ground)


def opened(image: Image.Image, suffix: str, folder: Path, **options: object) -> np.ndarray:
    path = str(folder / f"a.{suffix}")
    image.save(path, **options)
    return np.asarray(open_image(path))


def chunk(kind: bytes, content: bytes = b"") -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(row: bytes, *, width: int, bits: int, colour: int, transparent: bytes) -> bytes:
    """One row of pixels, with one transparent value."""
    head = struct.pack(">IIBBBBB", width, 1, bits, colour, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(b"\0" + row))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"tRNS", transparent) + pixels + chunk(b"IEND")


@pytest.mark.parametrize("suffix", ["png", "webp", "tiff"])
def test_opacity_is_mixed_with_white_as_the_published_processor_mixes_it(tmp_path, suffix):
    image = soft_letters()
    options = {"lossless": True, "exact": True} if suffix == "webp" else {}
    found = opened(image, suffix, tmp_path, **options)
    np.testing.assert_array_equal(found, published(image))
    assert not np.array_equal(found, np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "La", "RGBa"])
def test_an_open_image_of_each_mode_is_laid_on_white(mode):
    image = soft_letters().convert("LA").convert("RGBA")
    by_way_of = {"La": "LA", "PA": "P"}.get(mode)
    shown = image.convert(by_way_of).convert(mode) if by_way_of else image.convert(mode)
    back = shown.convert("LA").convert("RGBA") if mode == "La" else shown.convert("RGBA")
    np.testing.assert_array_equal(np.asarray(upright(shown)), published(back))


def test_a_palette_with_opacities_is_laid_on_white(tmp_path):
    image = soft_letters().convert("RGB").quantize(16)
    path = tmp_path / "a.png"
    image.save(path, transparency=bytes(range(0, 256, 16)))
    with Image.open(path) as stored:
        assert stored.mode == "P" and isinstance(stored.info["transparency"], bytes)
        np.testing.assert_array_equal(np.asarray(open_image(str(path))), published(stored.convert("RGBA")))


@pytest.mark.parametrize("suffix", ["gif", "png"])
def test_a_transparent_colour_of_a_palette_is_white(tmp_path, suffix):
    image = Image.new("P", SIZE, 1)
    image.putpalette([0, 0, 0, 10, 10, 10])
    image.paste(0, (4, 4, 12, 12))
    found = opened(image, suffix, tmp_path, transparency=0)
    assert (found[5, 5] == 255).all() and (found[0, 0] == 10).all()


@pytest.mark.parametrize(
    ("bits", "row", "levels", "key"),
    [
        (1, bytes([0b01000000]), [0, 255], 1),
        (2, bytes([0b00011011]), [0, 85, 170, 255], 1),
        (4, bytes([0x01, 0x8F]), [0, 17, 136, 255], 8),
        (8, bytes([0, 1, 128, 255]), [0, 1, 128, 255], 1),
        (16, struct.pack(">4H", 0, 257, 300, 65535), [0, 1, 1, 255], 257),
    ],
)
def test_a_transparent_grey_level_of_any_depth_is_white_and_no_other_is(tmp_path, bits, row, levels, key):
    path = tmp_path / "a.png"
    width = len(levels)
    path.write_bytes(png(row, width=width, bits=bits, colour=0, transparent=struct.pack(">H", key)))
    place = {1: 1, 2: 1, 4: 2, 8: 1, 16: 1}[bits]
    levels[place] = 255
    assert np.asarray(open_image(str(path)))[0, :, 0].tolist() == levels


@pytest.mark.parametrize(("bits", "key"), [(8, (1, 2, 3)), (16, (0x1234, 0x5678, 0x9ABC))])
def test_a_transparent_colour_is_white(tmp_path, bits, key):
    letter = {8: "B", 16: "H"}[bits]
    row = struct.pack(f">6{letter}", *key, 0, 0, 0)
    path = tmp_path / "a.png"
    path.write_bytes(png(row, width=2, bits=bits, colour=2, transparent=struct.pack(">3H", *key)))
    assert np.asarray(open_image(str(path)))[0].tolist() == [[255] * 3, [0] * 3]


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_opacity_that_hides_nothing_changes_nothing(tmp_path, mode):
    image = soft_letters().convert("RGB").convert(mode)
    np.testing.assert_array_equal(opened(image, "png", tmp_path), np.asarray(image.convert("RGB")))


def test_a_turned_transparent_image_is_upright_and_on_white(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    image = soft_letters()
    np.testing.assert_array_equal(opened(image, "png", tmp_path, exif=exif), np.rot90(published(image), -1))


def test_frames_of_a_video_are_laid_on_white(tmp_path):
    path = str(tmp_path / "a.png")
    soft_letters().save(path)
    with open_video((path, path)) as video:
        np.testing.assert_array_equal(next(video.read([0])), published(soft_letters()))


def test_boxes_are_drawn_on_white_and_the_image_stays_as_it_is():
    image = Image.new("RGBA", (80, 80), (0, 0, 0, 0))
    assert draw_boxes(image, []).getpixel((40, 40)) == (255, 255, 255)
    opaque = Image.new("RGB", (80, 80))
    assert draw_boxes(opaque, []) is not opaque


def test_an_image_given_to_the_call_of_a_processor_is_laid_on_white(make_processor, tmp_path):
    processor = make_processor(min_pixels=784, max_pixels=784 * 4)
    text = "<|vision_start|><|image_pad|><|vision_end|>"
    image = soft_letters()
    image.save(tmp_path / "a.png")
    given = [image, str(tmp_path / "a.png"), Image.fromarray(published(image))]
    calls = [processor(text=text, images=[one], return_tensors="np")["pixel_values"] for one in given]
    np.testing.assert_array_equal(calls[0], calls[2])
    np.testing.assert_array_equal(calls[1], calls[2])


@pytest.mark.parametrize("name", ["rgba.png", "la.png", "palette.png", "palette.gif", "rgba.webp"])
def test_letters_that_users_have_sent_are_visible(name):
    if not (CASES / name).is_file():
        pytest.skip(f"{name} is not at {CASES}")
    pixels = np.asarray(open_image(str(CASES / name)))
    assert pixels.max() == 255 and pixels.min() <= 10 and pixels.mean() > 200


def test_an_image_in_bytes_is_laid_on_white_too():
    from paddlemix.media.data_url import data_url_of

    file = io.BytesIO()
    soft_letters().save(file, "PNG")
    url = data_url_of(file.getvalue())
    np.testing.assert_array_equal(np.asarray(open_image(url)), published(soft_letters()))
