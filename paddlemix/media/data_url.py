"""Images and videos that stand in a record as data: URLs: `data:image/png;base64,iVBORw0...`."""

from __future__ import annotations

import base64
import binascii
import mimetypes
import re

from paddlemix.media.fetch import MAX_BYTES, FetchError
from paddlemix.printable import in_one_line

UNKNOWN_TYPE = "application/octet-stream"
_SCHEME = "data:"
_SHOWN_CHARACTERS = 80  # of a data: URL
_LONGEST_PATH = 1000
_LONGEST_HEAD = 1000  # of a data: URL, up to its comma
_EXPECTED = "data:image/png;base64,... or the like"

# Below this no text is taken for an image: a path may be spelled in the letters of base64, and the smallest images take
# about as many.
_FEWEST_CHARACTERS = 48
_BASE64 = re.compile(r"[A-Za-z0-9+/\s]+={0,2}\s*")
# Bytes, and where they stand in an image of a kind; of WebP and the kin of HEIC what stands before them is a length.
_MAGIC: tuple[tuple[str, tuple[tuple[int, bytes], ...]], ...] = (
    ("image/png", ((0, b"\x89PNG\r\n\x1a\n"),)),
    ("image/jpeg", ((0, b"\xff\xd8\xff"),)),
    ("image/gif", ((0, b"GIF87a"),)),
    ("image/gif", ((0, b"GIF89a"),)),
    ("image/webp", ((0, b"RIFF"), (8, b"WEBP"))),
    ("image/bmp", ((0, b"BM"), (6, b"\0\0\0\0"))),
    ("image/tiff", ((0, b"II*\0"),)),
    ("image/tiff", ((0, b"MM\0*"),)),
    ("image/avif", ((4, b"ftypavif"),)),
    ("image/heic", ((4, b"ftyphei"),)),
    ("image/heic", ((4, b"ftypmif1"),)),
    ("video/x-msvideo", ((0, b"RIFF"), (8, b"AVI "))),
    ("video/webm", ((0, b"\x1aE\xdf\xa3"),)),
    ("video/mp4", ((4, b"ftyp"),)),
)
_MAGIC_BYTES = 12


def is_data_url(path: str) -> bool:
    """Tell whether `path` holds the bytes themselves."""
    return path[: len(_SCHEME)].lower() == _SCHEME


def data_url_of(content: bytes | str) -> str | None:
    """Make a data: URL of an image or a video that stands in a record as it is.

    Args:
        content: its bytes, or their base64 without `data:` before it, as a text of at least 48 characters.

    Returns:
        The URL; None where `content` begins as no image or video does, or is a text that is not base64.
    """
    if isinstance(content, bytes):
        return as_data_url(content) if _kind_of(content) else None
    text = content.strip()
    if len(text) < _FEWEST_CHARACTERS:
        return None
    try:
        head = base64.b64decode("".join(text[: _MAGIC_BYTES * 2].split())[: _MAGIC_BYTES * 4 // 3], validate=True)
    except (binascii.Error, ValueError):  # ValueError: characters beyond ASCII
        return None
    kind = _kind_of(head)
    return f"{_SCHEME}{kind};base64,{''.join(text.split())}" if kind and _BASE64.fullmatch(text) else None


def as_data_url(content: bytes, name: str = "") -> str:
    """Write the bytes of any file as a data: URL.

    Args:
        content: of an image, a video or another file.
        name: of that file, which says what it is where its first bytes do not.

    Returns:
        The URL.
    """
    kind = _kind_of(content) or mimetypes.guess_type(name)[0] or UNKNOWN_TYPE
    return f"{_SCHEME}{kind};base64,{base64.b64encode(content).decode()}"


def _kind_of(head: bytes) -> str | None:
    """Recognise an image or a video by its first bytes."""
    return next(
        (kind for kind, magic in _MAGIC if all(head.startswith(part, place) for place, part in magic)),
        None,
    )


def shown(path: str) -> str:
    """Shorten a path for messages, a data: URL and whatever is too long for a path, and make it printable."""
    most = _SHOWN_CHARACTERS if is_data_url(path) else _LONGEST_PATH
    return in_one_line(path if len(path) <= most else f"{path[:most]}...")


def decode_data_url(url: str, *, max_bytes: int | None = None) -> bytes:
    """Decode the bytes that a data: URL holds.

    Args:
        url: with its bytes in base64; white space in it is ignored.
        max_bytes: the most it may hold; None means 20 MB.

    Returns:
        The bytes.

    Raises:
        FetchError: it holds more, or is not in base64.
    """
    most = max_bytes or MAX_BYTES
    comma = url.find(",", 0, _LONGEST_HEAD)
    if comma < 0 or not url[:comma].lower().endswith(";base64"):
        raise FetchError(f"{shown(url)} is not in base64; expected {_EXPECTED}.")
    if (len(url) - comma - 1) * 3 // 4 > most:  # before anything of it is copied
        raise FetchError(f"{shown(url)} is larger than {most // 2**20} MB.")
    try:
        return base64.b64decode("".join(url[comma + 1 :].split()), validate=True)
    except (binascii.Error, ValueError) as error:  # ValueError: characters beyond ASCII
        raise FetchError(f"{shown(url)} is broken or cut off: {error}; expected {_EXPECTED}.") from error
