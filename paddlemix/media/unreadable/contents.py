"""What bytes are that were taken for an image or a video and are none."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal, NamedTuple

HEAD_BYTES = 1024
"""How much of a file's beginning tells what it is."""

Expected = Literal["image", "video"]

_SHOWN_CHARACTERS = 40  # of a text
_CONTROL = re.compile("[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f\x7f]")
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_AVIF_BRANDS = (b"avif", b"avis")


class Content(NamedTuple):
    """What bytes are.

    Attributes:
        kind: a noun with its article.
        remedy: what to do, as the end of a sentence; "" where nothing is to be said.
    """

    kind: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"is {self.kind}" + (f"; {self.remedy}" if self.remedy else "") + "."


class _Beginning(NamedTuple):
    """Bytes that files of a kind have at a place."""

    magic: bytes
    content: Content
    place: int = 0


_ARCHIVE = "unpack it and name the file inside"
_ENCRYPTED = "decrypt it first"
_DOCUMENTS = (
    _Beginning(
        b"version https://git-lfs",
        Content("a Git LFS pointer in place of the file itself", "run `git lfs pull` where it was cloned"),
    ),
    _Beginning(b"%PDF", Content("a PDF document", "render its pages to images first")),
    _Beginning(b"PK\x03\x04", Content("a ZIP archive or an Office document", _ARCHIVE)),
    _Beginning(b"\x1f\x8b", Content("a gzip archive", _ARCHIVE)),
    _Beginning(b"BZh", Content("a bzip2 archive", _ARCHIVE)),
    _Beginning(b"\xfd7zXZ", Content("an xz archive", _ARCHIVE)),
    _Beginning(b"\x28\xb5\x2f\xfd", Content("a Zstandard archive", _ARCHIVE)),
    _Beginning(b"7z\xbc\xaf\x27\x1c", Content("a 7z archive", _ARCHIVE)),
    _Beginning(b"Rar!", Content("a RAR archive", _ARCHIVE)),
    _Beginning(b"ustar", Content("a tar archive", _ARCHIVE), place=257),
    _Beginning(b"Salted__", Content("a file that OpenSSL encrypted", _ENCRYPTED)),
    _Beginning(b"-----BEGIN PGP", Content("a file that PGP encrypted", _ENCRYPTED)),
    _Beginning(b"age-encryption.org", Content("a file that age encrypted", _ENCRYPTED)),
    _Beginning(b"DICM", Content("a DICOM file", "convert it to a PNG of 16 bits"), place=128),
    _Beginning(b"\x93NUMPY", Content("a NumPy array", "convert it to an image")),
    _Beginning(b"\x89HDF", Content("an HDF5 file", "convert what it holds to images")),
)
_JPEG_XL = Content("a JPEG XL image, which Pillow does not read", "convert it to JPEG or PNG")
_VIDEO = Content("a video and no image", "name it where the record format has its videos")
_VIDEO_BEGINNINGS = (b"\x1aE\xdf\xa3", b"FLV\x01", b"OggS", b"\x00\x00\x01\xba", b"\x30\x26\xb2\x75\x8e\x66\xcf\x11")


def what_it_is(head: bytes, expected: Expected) -> Content | None:
    """Recognise what is neither image nor video, and, where an image is expected, what Pillow does not read.

    Args:
        head: the first `HEAD_BYTES` bytes, or all there are.
        expected: what it was taken for.

    Returns:
        What it is; None where that cannot be told, or where it may be what was expected.
    """
    if not head:
        return Content("empty: it has no bytes")
    for beginning in _DOCUMENTS:
        if head.startswith(beginning.magic, beginning.place):
            return beginning.content
    if not head.strip(b"\0"):
        return Content(
            "filled with zero bytes", "it may be a placeholder of a cloud drive or a broken copy; copy it again"
        )
    return next(filter(None, (look(head) for look in _LOOKS[expected])), None)


def is_heic(head: bytes) -> bool:
    """Tell whether bytes begin as HEIC and HEIF images do, the format of telephones' cameras."""
    return _brand(head) in _HEIC_BRANDS


def _brand(head: bytes) -> bytes:
    return head[8:12] if head[4:8] == b"ftyp" else b""


def _image_unread(head: bytes) -> Content | None:
    if is_heic(head):
        return Content("a HEIC image, which Pillow reads with another package alone", "pip install pillow-heif")
    if _brand(head) in _AVIF_BRANDS:
        return Content("an AVIF image, which Pillow reads from 11.3 on", "pip install --upgrade pillow")
    return _JPEG_XL if head.startswith((b"\xff\x0a", b"\x00\x00\x00\x0cJXL ")) else None


def _video(head: bytes) -> Content | None:
    is_video = _brand(head) or head.startswith(_VIDEO_BEGINNINGS) or (head[:4] == b"RIFF" and head[8:12] == b"AVI ")
    is_stream = head[:377:188] == b"GGG"  # the beginnings of MPEG-TS's packets
    return _VIDEO if is_video or is_stream else None


def _markup(head: bytes) -> Content | None:
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if not text.startswith(b"<"):
        return None
    if b"<svg" in text:
        return Content("an SVG drawing, which has no pixels", "convert it to PNG")
    if text.startswith((b"<!doctype html", b"<html")) or b"<html" in text:
        return Content("an HTML page, such as an error or a login page")
    return None


def _xml(head: bytes) -> Content | None:
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    is_xml = re.match(rb"<(\?xml|[A-Za-z][\w:.-]*[\s/>])", text)
    return Content("an XML text, such as the error message of a server") if is_xml else None


def _json(head: bytes) -> Content | None:
    text = _as_text(head)
    is_json = text is not None and re.match(r'\{\s*("|\}|$)|\[\s*(["{\[\]\d]|$)', text)
    return Content("a JSON text, such as the error message of a server") if is_json else None


def _text(head: bytes) -> Content | None:
    text = _as_text(head)
    if not text:
        return None
    return Content(f"a text, which begins with {text[:_SHOWN_CHARACTERS]!r}")


def _as_text(head: bytes) -> str | None:
    """Decode bytes that are text, without white space at its ends; None where they are none."""
    try:
        text = head.removeprefix(b"\xef\xbb\xbf").decode("utf-8")
    except UnicodeDecodeError as error:
        if len(head) < HEAD_BYTES or error.start < len(head) - 4:
            return None
        text = head[: error.start].decode("utf-8")  # the head ends inside a character
    return None if _CONTROL.search(text) else text.strip()


# Where a video is expected, texts and XML are left to the decoders, which know playlists.
_LOOKS: dict[Expected, tuple[Callable[[bytes], Content | None], ...]] = {
    "image": (_image_unread, _video, _markup, _xml, _json, _text),
    "video": (_markup, _json),
}
