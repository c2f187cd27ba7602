"""Images and videos that stand in a record as data: URLs: `data:image/png;base64,iVBORw0...`."""

from __future__ import annotations

import base64
import binascii

from paddlemix.media.fetch import MAX_BYTES, FetchError

_SCHEME = "data:"
_SHOWN_CHARACTERS = 80  # of a data: URL
_LONGEST_PATH = 1000
_EXPECTED = "data:image/png;base64,... or the like"


def is_data_url(path: str) -> bool:
    """Tell whether `path` holds the bytes themselves."""
    return path[: len(_SCHEME)].lower() == _SCHEME


def shown(path: str) -> str:
    """Shorten a path for messages: a data: URL, and whatever is too long for a path, to its beginning."""
    most = _SHOWN_CHARACTERS if is_data_url(path) else _LONGEST_PATH
    return path if len(path) <= most else f"{path[:most]}..."


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
    head, comma, body = url.partition(",")
    if not comma or not head.lower().endswith(";base64"):
        raise FetchError(f"{shown(url)} is not in base64; expected {_EXPECTED}.")
    if len(body) * 3 // 4 > most:
        raise FetchError(f"{shown(url)} is larger than {most // 2**20} MB.")
    try:
        return base64.b64decode("".join(body.split()), validate=True)
    except (binascii.Error, ValueError) as error:  # ValueError: characters beyond ASCII
        raise FetchError(f"{shown(url)} is broken or cut off: {error}; expected {_EXPECTED}.") from error


def data_url_of(content: bytes | str) -> str | None:
    """Make a data: URL of an image's bytes, or of their base64; None of what is neither."""
    if isinstance(content, str):
        return (
            f"data:image/*;base64,{content}"
            if len(content) > 64 and content.startswith(("iVBOR", "/9j/", "R0lGOD", "UklGR", "Qk"))
            else None
        )
    return f"data:image/*;base64,{base64.b64encode(content).decode()}"
