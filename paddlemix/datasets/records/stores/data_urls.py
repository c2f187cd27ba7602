"""Images and videos that lie in a record file itself, as data: URLs."""

from __future__ import annotations

import base64
import mimetypes

_MAGIC = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF8": "image/gif",
    b"BM": "image/bmp",
    b"II*\x00": "image/tiff",
    b"MM\x00*": "image/tiff",
    b"\x1aE\xdf\xa3": "video/webm",
}
_RIFF = {b"WEBP": "image/webp", b"AVI ": "video/x-msvideo"}
_ISO_IMAGES = {b"avif": "image/avif", b"avis": "image/avif", b"heic": "image/heic", b"mif1": "image/heic"}
UNKNOWN = "application/octet-stream"


def data_url_of(content: bytes, name: str = "") -> str:
    """Write bytes as a data: URL.

    Args:
        content: of an image, a video or another file.
        name: of that file, which says what it is where its first bytes do not.

    Returns:
        The URL.
    """
    kind = _kind_of(content) or mimetypes.guess_type(name)[0] or UNKNOWN
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _kind_of(content: bytes) -> str | None:
    """Tell the kind of a file from its first bytes."""
    if content[:4] == b"RIFF":
        return _RIFF.get(content[8:12])
    if content[4:8] == b"ftyp":
        return _ISO_IMAGES.get(content[8:12], "video/mp4")
    return next((kind for magic, kind in _MAGIC.items() if content.startswith(magic)), None)
