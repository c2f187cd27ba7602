import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from paddlemix.media import images as image_module
from paddlemix.media.images import ImageError, image_size, open_image

EXIF_ORIENTATION = 0x0112


def exif(orientation):
    values = Image.Exif()
    values[EXIF_ORIENTATION] = orientation
    return values


def chunk(kind, content=b""):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_of_size(width, height):
    """A PNG whose header tells a size, and that has next to no pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND")


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tiff"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_header_tells_the_size_of_the_upright_image(save_image, suffix, orientation):
    path = save_image(40, 30, f"a.{suffix}", exif=exif(orientation))
    assert open_image(path).size == image_size(path) == ((40, 30) if orientation < 5 else (30, 40))


def test_a_turned_image_is_turned_upright(save_image):
    path = save_image(40, 30, "turned.png", exif=exif(6))
    with Image.open(path) as stored:
        expected = np.asarray(stored.rotate(-90, expand=True))
    assert not np.array_equal(expected, expected[:, ::-1])
    np.testing.assert_array_equal(np.asarray(open_image(path)), expected)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_size_is_known_without_decoding_pixels(save_image, suffix):
    path = save_image(400, 300, f"cut.{suffix}")
    os.truncate(path, os.path.getsize(path) - 40)
    assert image_size(path) == (400, 300)
    with pytest.raises(ImageError):
        open_image(path)


def test_an_orientation_that_follows_a_pngs_pixels_is_seen_from_both_sides(save_image):
    path = save_image(40, 30)
    with open(path, "rb+") as file:
        content = file.read()
        end = content.rindex(struct.pack(">I", 0) + b"IEND")
        file.seek(0)
        file.write(content[:end] + chunk(b"eXIf", exif(6).tobytes()[6:]) + content[end:])
    with Image.open(path) as stored:
        assert "exif" not in stored.info
        assert ImageOps.exif_transpose(stored).size == (30, 40)
    assert image_size(path) == open_image(path).size == (30, 40)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "does not exist"),
        (b"", "is empty or in no format that Pillow reads"),
        (b"<html>no image</html>", "is empty or in no format that Pillow reads"),
        (png_of_size(12000, 12000), "has 12000 x 12000 pixels; at most 89478485 are read"),
        (png_of_size(30000, 30000), "has far more than 89478485 pixels"),
        (png_of_size(201, 1), "is 201 x 1; sides may differ by a factor of 200"),
        (png_of_size(1, 2001), "is 1 x 2001; sides may differ by a factor of 200"),
    ],
    ids=["missing", "zero bytes", "no image", "large", "bomb", "wide", "tall"],
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("read", [open_image, image_size])
def test_an_unusable_image_is_named_with_what_is_wrong(tmp_path, read, content, told):
    path = tmp_path / "图.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ImageError) as error:
        read(str(path))
    assert_is_a_sentence(str(error.value), path)
    assert told in str(error.value)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "gif", "bmp", "tiff", "avif"])
def test_an_image_cut_off_anywhere_is_refused_in_words(save_image, suffix):
    path = save_image(60, 40, f"cut.{suffix}")
    size = os.path.getsize(path)
    for length in (size - 30, size // 2, 30):
        os.truncate(path, length)
        with pytest.raises(ImageError) as error:
            open_image(path)
        assert_is_a_sentence(str(error.value), path)


def test_whatever_a_decoder_raises_becomes_an_image_error(save_image, monkeypatch):
    def fail(_):
        raise RuntimeError("missing or empty image item")

    path = save_image(60, 40)
    monkeypatch.setattr(image_module, "_upright", fail)
    with pytest.raises(ImageError, match="is broken or cut off: missing or empty image item.$"):
        open_image(path)


def test_a_folder_is_no_image(tmp_path):
    with pytest.raises(ImageError, match="cannot be opened"):
        image_size(str(tmp_path))


def test_sides_that_differ_by_a_factor_of_200_are_read(save_image):
    assert open_image(save_image(200, 1)).size == (200, 1)


def test_reading_leaves_no_file_open(save_image):
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("the system does not list open files")
    paths = [save_image(30, 20, name) for name in ("a.png", "b.gif", "c.tiff")]
    for path in paths:
        image_size(path), open_image(path)
    opened = {os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")}
    assert opened.isdisjoint(map(os.path.realpath, paths))


def assert_is_a_sentence(message, path):
    assert message.startswith(f"image {path} ")
    assert message.endswith(".")
    assert "\n" not in message
    assert "0x" not in message.replace(str(path), "")
