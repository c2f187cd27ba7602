import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from paddlemix.media import images as image_module
from paddlemix.media.images import ImageError, image_size, open_image, upright
from paddlemix.media.opening import ImageOpening

EXIF_ORIENTATION = 0x0112


def exif(orientation):
    values = Image.Exif()
    values[EXIF_ORIENTATION] = orientation
    return values


def chunk(kind, content=b""):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_of_size(width, height):
    """A PNG whose header tells a size, with about as many bytes as that takes at least, none of them pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(b"\0") + bytes(width * height * 3 // 1030))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND")


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
        (b"", "is empty: it has no bytes."),
        (b"<html>no image</html>", "is an HTML page"),
        (bytes(range(256)), "is in no format that is read"),
        (png_of_size(12000, 12000), "at most 89478485 are read. Raise `image_pixel_limit` (IMAGE_PIXEL_LIMIT)"),
        (png_of_size(30000, 30000), "far more than 89478485 pixels, the most that are read. Raise `image_pixel_limit`"),
        (png_of_size(201, 1), "is 201 x 1; sides may differ by a factor of 200"),
        (png_of_size(1, 2001), "is 1 x 2001; sides may differ by a factor of 200"),
    ],
    ids=["missing", "zero bytes", "page", "no image", "large", "bomb", "wide", "tall"],
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
    def fail(*_):
        raise RuntimeError("missing or empty image item")

    path = save_image(60, 40)
    monkeypatch.setattr(image_module, "_upright", fail)
    with pytest.raises(ImageError, match="is broken or cut off: missing or empty image item.$"):
        open_image(path)


def test_a_folder_is_no_image(tmp_path):
    with pytest.raises(ImageError, match="is a folder; expected a file.$"):
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


class TestPixelLimit:
    @pytest.fixture(autouse=True)
    def pillows_own_bound(self, monkeypatch):
        """Left behind as it was found."""
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)

    @pytest.mark.parametrize("read", [open_image, image_size])
    def test_a_lower_one_refuses_what_is_usually_read(self, save_image, read):
        path = save_image(40, 30)
        with pytest.raises(ImageError, match=r"has 40 x 30 pixels; at most 1199 are read\. Raise `image_pixel_limit`"):
            read(path, ImageOpening(pixel_limit=1199))
        assert read(path, ImageOpening(pixel_limit=1200))

    def test_one_that_was_given_open_is_held_to_it_too(self):
        with pytest.raises(ImageError, match=r"^image that was given has 4 x 3 pixels; at most 11 are read"):
            upright(Image.new("RGB", (4, 3)), ImageOpening(pixel_limit=11))

    def test_a_higher_one_reads_what_pillow_takes_for_a_bomb_and_leaves_others_refused(self, tmp_path):
        path = tmp_path / "large.png"
        path.write_bytes(png_of_size(20000, 20000))
        assert image_size(str(path), ImageOpening(pixel_limit=400_000_000)) == (20000, 20000)
        with pytest.raises(ImageError, match="has 20000 x 20000 pixels; at most 89478485 are read"):
            image_size(str(path))
        with pytest.raises(ImageError, match="at most 399999999 are read"):
            image_size(str(path), ImageOpening(pixel_limit=399_999_999))

    def test_a_bound_of_pillows_that_a_user_has_lifted_stays_lifted(self, save_image, monkeypatch):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
        assert image_size(save_image(40, 30), ImageOpening(pixel_limit=10**9)) == (40, 30)
        assert Image.MAX_IMAGE_PIXELS is None

    @pytest.mark.parametrize("limit", [0, -1, 1.5, "1000", True])
    def test_a_value_that_makes_no_sense_is_refused(self, limit):
        with pytest.raises(ValueError, match=r"^`image_pixel_limit` \(IMAGE_PIXEL_LIMIT\) is .*; expected"):
            ImageOpening(pixel_limit=limit)


class TestModes:
    """Kinds of images that were read rightly before and must go on to be."""

    def expected(self, path):
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))

    @pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "CMYK", "LAB"])
    def test_each_is_what_pillow_makes_of_it(self, tmp_path, mode):
        colours = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8))
        path = str(tmp_path / "a.tiff")
        colours.convert(mode).save(path)
        with Image.open(path) as stored:
            assert stored.mode == mode
        np.testing.assert_array_equal(np.asarray(open_image(path)), self.expected(path))

    @pytest.mark.parametrize("ink", [(0, 0, 0, 0), (0, 255, 255, 0), (0, 0, 0, 255)])
    def test_a_jpeg_of_four_inks_has_its_colours_and_not_their_opposites(self, tmp_path, ink):
        path = str(tmp_path / "a.jpg")
        Image.new("CMYK", (16, 16), ink).save(path, quality=95)
        wanted = {(0, 0, 0, 0): (255, 255, 255), (0, 255, 255, 0): (255, 0, 0), (0, 0, 0, 255): (0, 0, 0)}[ink]
        assert np.abs(np.asarray(open_image(path)).astype(int) - wanted).max() < 12

    def test_inks_that_a_jpeg_holds_as_brightness_and_colour_are_read(self, tmp_path):
        """Adobe's YCCK: red is stored as the brightness and colour of cyan, and these inverted once more."""
        path = tmp_path / "a.jpg"
        Image.new("CMYK", (16, 16), (255 - 179, 255 - 171, 255 - 1, 0)).save(path, quality=100, subsampling=0)
        body = bytearray(path.read_bytes())
        transform = body.index(b"Adobe") + 11
        assert body[transform] == 0
        body[transform] = 2
        path.write_bytes(body)
        assert np.abs(np.asarray(open_image(str(path))).astype(int) - (255, 0, 0)).max() < 12

    @pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tiff"])
    def test_of_a_moving_image_the_first_frame_is_read(self, tmp_path, suffix):
        path = str(tmp_path / f"moving.{suffix}")
        frames = [Image.new("RGB", (20, 10), colour) for colour in ("red", "blue", "lime")]
        options = {"lossless": True} if suffix == "webp" else {}
        frames[0].save(path, save_all=True, append_images=frames[1:], **options)
        image = open_image(path)
        assert image.mode == "RGB" and image.size == image_size(path) == (20, 10)
        assert image.getcolors() == [(200, (255, 0, 0))]

    @pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tiff"])
    def test_one_that_was_turned_is_not_turned_again(self, save_image, suffix):
        image = open_image(save_image(40, 30, f"a.{suffix}", exif=exif(6)))
        np.testing.assert_array_equal(np.asarray(upright(image)), np.asarray(image))

    @pytest.mark.parametrize("orientation", [3, 6, 8])
    @pytest.mark.parametrize("mode", ["L", "P", "RGB", "RGBA", "CMYK"])
    def test_an_uncompressed_tiff_is_turned_upright_in_each_mode(self, tmp_path, mode, orientation):
        colours = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)).convert(mode)
        plain, turned = str(tmp_path / "plain.tiff"), str(tmp_path / "turned.tiff")
        colours.save(plain)
        colours.save(turned, exif=exif(orientation))
        expected = np.rot90(np.asarray(open_image(plain)), {3: 2, 6: -1, 8: 1}[orientation])
        np.testing.assert_array_equal(np.asarray(open_image(turned)), expected)

    @pytest.mark.parametrize("kind", [np.uint16, np.float32])
    def test_one_of_more_than_8_bits_is_turned_upright(self, tmp_path, kind):
        values = (np.linspace(0, 65535, 48) / (1 if kind is np.uint16 else 65535)).astype(kind).reshape(8, 6)
        path = str(tmp_path / "a.tiff")
        Image.fromarray(values).save(path, exif=exif(6))
        expected = np.rot90(np.rint(values / (257 if kind is np.uint16 else 1 / 255)), -1)
        np.testing.assert_array_equal(np.asarray(open_image(path))[..., 0], expected)

    def test_one_in_rgb_is_not_copied(self, save_image, monkeypatch):
        monkeypatch.setattr(Image.Image, "copy", lambda _: pytest.fail("copied"))
        assert open_image(save_image(40, 30, "a.jpg")).mode == open_image(save_image(40, 30, "a.png")).mode == "RGB"
        given = Image.new("RGB", (40, 30))
        assert upright(given) is given

    def test_an_image_in_rgb_can_be_used_behind_its_closed_file(self, save_image, tmp_path):
        path = save_image(40, 30, "a.jpg")
        image = open_image(path)
        os.remove(path)
        image.save(tmp_path / "copy.png")
        assert np.array_equal(np.asarray(open_image(str(tmp_path / "copy.png"))), np.asarray(image))


def assert_is_a_sentence(message, path):
    assert message.startswith(f"image {path} ")
    assert message.endswith(".")
    assert "\n" not in message
    assert "0x" not in message.replace(str(path), "")
