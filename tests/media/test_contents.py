"""A file that is no image says what it is."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
import zipfile
from importlib.util import find_spec

import numpy as np
import pytest
from PIL import Image

from paddlemix.media.images import ImageError, image_size, open_image
from paddlemix.media.unreadable.contents import HEAD_BYTES, what_it_is

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 12345\n"


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.jpg", b"x")
    return file.getvalue()


def tarred() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a.jpg"))
    return file.getvalue()


def boxed(brand: bytes) -> bytes:
    return b"\0\0\0\x18ftyp" + brand + bytes(40)


KINDS = {
    "lfs": (LFS, "is a Git LFS pointer in place of the file itself; run `git lfs pull`"),
    "heic": (boxed(b"heic"), "is a HEIC image, .*; pip install pillow-heif"),
    "html": (b"\xef\xbb\xbf\n<!DOCTYPE html><html><body>Log in</body></html>", "is an HTML page"),
    "html with a comment": (b"<!-- saved -->\n<HTML lang=de>", "is an HTML page"),
    "svg": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "is an SVG drawing, which has no pixels"),
    "svg with a head": (b'<?xml version="1.0"?>\n<!-- a --><svg/>', "is an SVG drawing"),
    "xml": (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "is an XML text"),
    "json": (b'{"error": "rate limit"}', "is a JSON text"),
    "json list": (b"[[1, 2], [3, 4]]", "is a JSON text"),
    "long json": (json.dumps({"error": "图" * 2000}, ensure_ascii=False).encode(), "is a JSON text"),
    "pdf": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3", "is a PDF document; render its pages"),
    "zip": (zipped(), "is a ZIP archive or an Office document; unpack it"),
    "gzip": (gzip.compress(b"x"), "is a gzip archive"),
    "tar": (tarred(), "is a tar archive"),
    "openssl": (b"Salted__12345678\x80\x81", "is a file that OpenSSL encrypted; decrypt it"),
    "dicom": (bytes(128) + b"DICM\x02\x00", "is a DICOM file"),
    "mp4": (boxed(b"isom"), "is a video and no image; name it where the record format has its videos"),
    "mov": (boxed(b"qt  "), "is a video"),
    "mkv": (b"\x1aE\xdf\xa3\x9fB\x86\x81\x01", "is a video"),
    "avi": (b"RIFF\0\0\0\0AVI LIST", "is a video"),
    "ts": ((b"G" + bytes(187)) * 4, "is a video"),
    "zeros": (bytes(4096), "is filled with zero bytes; it may be a placeholder of a cloud drive"),
    "empty": (b"", "is empty: it has no bytes"),
    "text": (b"tabby cat on a mat\n", "is a text, which begins with 'tabby cat on a mat'"),
    "chinese": ("一只猫。\n".encode() * 400, "is a text, which begins with '一只猫"),
    "noise": (bytes(range(256)), "is in no format that is read"),
}


@pytest.mark.skipif(bool(find_spec("pillow_heif")), reason="pillow-heif is installed")
def test_without_its_decoder_a_heic_image_names_the_package(tmp_path):
    assert "pip install pillow-heif" in refusal(open_image, tmp_path, *KINDS["heic"])


@pytest.mark.parametrize("read", [open_image, image_size])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "heic"])
def test_what_a_file_is_that_is_no_image_is_told_in_one_sentence(tmp_path, read, kind):
    refusal(read, tmp_path, *KINDS[kind])


def refusal(read, folder, content, told) -> str:
    path = folder / "a.jpg"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=told) as caught:
        read(str(path))
    message = str(caught.value)
    assert message.startswith(f"image {path} is ") and message.endswith(".") and "\n" not in message
    return message


def test_a_sparse_placeholder_is_told(tmp_path):
    path = tmp_path / "a.jpg"
    path.touch()
    os.truncate(path, 10**7)
    with pytest.raises(ImageError, match="is filled with zero bytes"):
        open_image(str(path))


def test_images_and_videos_are_taken_for_nothing_else():
    for suffix in ("png", "jpeg", "gif", "webp", "bmp", "tiff", "ppm"):
        file = io.BytesIO()
        Image.new("RGB", (40, 40)).save(file, suffix)
        assert what_it_is(file.getvalue()[:HEAD_BYTES], "video") is None, suffix
        if suffix != "ppm":  # whose head is text; Pillow is asked before
            assert what_it_is(file.getvalue()[:HEAD_BYTES], "image") is None, suffix
    for kind in ("mp4", "mov", "mkv", "avi", "ts", "text", "xml", "noise"):
        assert what_it_is(KINDS[kind][0][:HEAD_BYTES], "video") is None, kind
    for kind in ("lfs", "html", "svg", "json", "pdf", "zip", "gzip", "zeros", "empty"):
        assert what_it_is(KINDS[kind][0][:HEAD_BYTES], "video"), kind


def test_bytes_of_any_kind_are_judged_without_an_exception():
    rng = np.random.default_rng(0)
    for start in (b"", b"<", b"{", b"[", b"<?xml ", b"\xef\xbb\xbf", "图".encode()):
        for length in (0, 1, 30, HEAD_BYTES - len(start)):
            for expected in ("image", "video"):
                content = what_it_is(start + rng.bytes(length), expected)
                assert content is None or str(content).endswith(".")


def test_a_heic_image_is_read_upright_where_its_decoder_is_installed(tmp_path):
    heif = pytest.importorskip("pillow_heif", reason="pillow-heif reads HEIC")
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = Image.linear_gradient("L").resize((64, 32)).convert("RGB")
    path = str(tmp_path / "a.heic")
    heif.from_pillow(picture).save(path, quality=-1, exif=exif.tobytes())
    assert open_image(path).size == image_size(path) == (32, 64)
    turned = np.asarray(picture.transpose(Image.Transpose.ROTATE_270)).astype(int)
    assert np.abs(np.asarray(open_image(path)) - turned).mean() < 4
