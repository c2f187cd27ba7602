"""Which images are opened at all: kinds by their first bytes, each read as Pillow alone reads it."""

import os
import socket
import stat
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from paddlemix.media.data_url import decode_data_url
from paddlemix.media.fetch import FetchError
from paddlemix.media.guard.formats import HEAD_BYTES, kind_of
from paddlemix.media.images import ImageError, image_size, open_image
from paddlemix.media.video import VideoError, open_video

from .bounded import refusal_of

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n%%EndComments\nshowpage\n%%EOF\n"
FITS = b"".join(
    card.ljust(80)
    for card in (b"SIMPLE  = T", b"BITPIX  = 8", b"NAXIS   = 2", b"NAXIS1  = 64", b"NAXIS2  = 64", b"END")
).ljust(2880) + bytes(64 * 64)
WMF = bytes.fromhex("d7cdc69a00000000000064006400480000000000") + b"\0\0\x01\0\x09\0\0\x03" + bytes(32)
GRIB = b"GRIB\0\0\0\x01" + bytes(64)
QOI = b"qoif\0\0\0\x40\0\0\0\x40\x03\0" + b"\xfd" * 64 + bytes(7) + b"\x01"
STRANGE = {"EPS": EPS, "FITS": FITS, "WMF": WMF, "GRIB": GRIB, "QOI": QOI}
SAVED = ("ICO", "PCX", "SGI", "DDS", "ICNS", "JPEG2000", "IM", "MSP", "TGA", "BLP", "PDF", "XBM")

ORDINARY = [
    ("JPEG", "RGB", {}),
    ("JPEG", "RGB", {"progressive": True}),
    ("JPEG", "L", {}),
    ("JPEG", "CMYK", {}),
    ("PNG", "RGB", {}),
    ("PNG", "L", {}),
    ("PNG", "1", {}),
    ("PNG", "P", {}),
    ("GIF", "P", {}),
    ("GIF", "L", {}),
    ("BMP", "RGB", {}),
    ("BMP", "P", {}),
    ("BMP", "1", {}),
    ("PPM", "RGB", {}),
    ("PPM", "L", {}),
    ("PPM", "1", {}),
    ("WEBP", "RGB", {}),
    ("WEBP", "RGB", {"lossless": True}),
    ("AVIF", "RGB", {}),
    ("MPO", "RGB", {}),
    *(("TIFF", "RGB", {"compression": how}) for how in (None, "tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits")),
    ("TIFF", "RGB", {"tiffinfo": {278: 7}}),
    ("TIFF", "RGB", {"big_tiff": True}),
    ("TIFF", "1", {"compression": "group4"}),
    ("TIFF", "CMYK", {}),
]


def picture(mode="RGB", width=90, height=60):
    grey = np.asarray(Image.linear_gradient("L").resize((width, height)))
    return Image.fromarray(np.stack([grey, grey[:, ::-1], 255 - grey], axis=-1)).convert(mode)


def saved_or_skipped(path, kind, mode="RGB", **options):
    Image.init()
    if kind not in Image.SAVE or (kind == "AVIF" and kind not in Image.OPEN):
        pytest.skip(f"this Pillow does not write {kind}")
    picture(mode).save(path, kind, **options)
    return str(path)


@pytest.mark.parametrize("turn", [1, 6])
@pytest.mark.parametrize(("kind", "mode", "options"), ORDINARY)
def test_ordinary_images_are_read_as_pillow_reads_them(tmp_path, kind, mode, options, turn):
    exif = Image.Exif()
    exif[0x0112] = turn
    with_exif = {"exif": exif} if kind in ("JPEG", "PNG", "WEBP", "MPO", "AVIF") else {}
    path = saved_or_skipped(tmp_path / "named.otherwise", kind, mode, **with_exif, **options)
    assert kind_of(Path(path).read_bytes()[:HEAD_BYTES]) == {"MPO": "JPEG"}.get(kind, kind)
    with Image.open(path) as image:
        expected = ImageOps.exif_transpose(image).convert("RGB")
    assert image_size(path) == expected.size
    assert np.array_equal(np.asarray(open_image(path)), np.asarray(expected))


@pytest.mark.parametrize("look", [image_size, open_image])
@pytest.mark.parametrize("kind", STRANGE)
def test_other_kinds_are_refused_whatever_they_are_called(tmp_path, kind, look):
    path = tmp_path / "photo.jpg"
    path.write_bytes(STRANGE[kind])
    told = refusal_of(lambda: look(str(path)), ImageError)
    assert told.startswith(f"image {path} is ")


@pytest.mark.parametrize("kind", SAVED)
def test_other_kinds_that_pillow_writes_are_refused(tmp_path, kind):
    path = saved_or_skipped(tmp_path / "photo.jpg", kind, {"MSP": "1", "XBM": "1", "BLP": "P"}.get(kind, "RGB"))
    assert f"image {path} is " in refusal_of(lambda: image_size(path), ImageError)


def test_ghostscript_is_never_run(tmp_path, monkeypatch):
    """What takes its place here tells that it was run."""
    mark, program = tmp_path / "was run", tmp_path / "gs"
    program.write_text(f"#!/bin/sh\ntouch '{mark}'\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (tmp_path / "photo.jpg").write_bytes(EPS)
    refusal_of(lambda: open_image(str(tmp_path / "photo.jpg")), ImageError)
    assert not mark.exists()


def test_an_image_that_begins_as_one_kind_and_goes_on_as_another_is_refused(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(b"GIF89a" + EPS)
    assert "image" in refusal_of(lambda: open_image(str(path)), ImageError)


class TestRegularFiles:
    """Nobody is waited for, and nothing that acts when it is opened is opened."""

    @pytest.fixture(params=["pipe", "link to a pipe", "socket", "device", "folder"])
    def place(self, request, tmp_path, monkeypatch):
        """A path, and what is told of what stands there."""
        path, kind = tmp_path / "a.jpg", request.param
        if kind == "socket":
            monkeypatch.chdir(tmp_path)  # the address of a socket has a hundred letters at most
            with socket.socket(socket.AF_UNIX) as end:
                end.bind(path.name)
                yield path, "is a socket; expected a file."
        elif kind == "device":
            path.symlink_to("/dev/zero")
            yield path, "is a device; expected a file."
        elif kind == "folder":
            path.mkdir()
            yield path, "is a folder; expected a file."
        else:
            pipe = path if kind == "pipe" else tmp_path / "pipe"
            os.mkfifo(pipe)
            if kind != "pipe":
                path.symlink_to(pipe)
            yield path, "is a named pipe; expected a file."

    @pytest.mark.parametrize("look", [image_size, open_image])
    def test_other_files_are_no_images(self, place, look):
        path, told = place
        assert refusal_of(lambda: look(str(path)), ImageError) == f"image {path} {told}"

    def test_other_files_are_no_videos(self, place):
        path, told = place
        refused = refusal_of(lambda: open_video(str(path)).__enter__(), VideoError)
        # A folder is a video, of the images in it.
        assert refused == f"video {path} {told}" or (path.is_dir() and "image" in refused)

    def test_a_link_to_a_regular_file_is_read(self, tmp_path):
        picture().save(tmp_path / "a.png")
        (tmp_path / "b").symlink_to(tmp_path / "a.png")
        assert image_size(str(tmp_path / "b")) == (90, 60)


@pytest.mark.parametrize("look", [image_size, open_image])
def test_a_long_data_url_is_refused_by_its_length(look):
    url = "data:image/png;base64," + "A" * (1 << 30)
    assert "is larger than 20 MB" in refusal_of(lambda: look(url), ImageError)


def test_a_long_video_in_a_data_url_is_refused_likewise():
    url = "data:video/mp4;base64," + "A" * (1 << 29)
    assert "is larger than 256 MB" in refusal_of(lambda: open_video(url).__enter__(), VideoError)


def test_a_data_url_without_a_comma_is_not_searched():
    url = "data:image/png;base64;" + "A" * (1 << 28) + ","
    assert "is not in base64" in refusal_of(lambda: decode_data_url(url), FetchError)
