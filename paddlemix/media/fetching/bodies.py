"""The body of an answer, as large as it may be and no larger."""

from __future__ import annotations

import zlib

import httpcore

from paddlemix.media.fetching.connecting import Deadline

_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS
_PLAIN, _PACKED = ("", "identity"), ("gzip", "x-gzip", "deflate")

_GOES_ON = "could not be fetched: something follows the end of its packed body."


class UnusableBody(ValueError):
    """A body that is not taken; the message goes on from the address."""


def header(response: httpcore.Response, name: bytes) -> str:
    """Return the values of a header, in small letters given, joined by commas."""
    return ", ".join(value.decode("utf-8", "replace").strip() for key, value in response.headers if key.lower() == name)


def read_body(response: httpcore.Response, most: int, deadline: Deadline) -> bytes:
    """Read a body, unpacked where it is packed once.

    Args:
        response: open, as a stream.
        most: bytes, of what is sent and of what it holds.
        deadline: of the request.

    Returns:
        The body.

    Raises:
        UnusableBody: it is larger, or packed otherwise or several times, or what packs it is broken or goes on behind
            its end.
        httpcore.TimeoutException: it does not end in time.
    """
    too_large = UnusableBody(f"is larger than {most // 2**20} MB.")
    coding, length = header(response, b"content-encoding").lower(), header(response, b"content-length")
    if coding not in (*_PLAIN, *_PACKED):
        raise UnusableBody(f"could not be fetched: its body is packed as {coding[:80]!r}; expected it as it is.")
    if length.isdecimal() and int(length) > most:
        raise too_large
    unpacker = zlib.decompressobj(_GZIP_OR_ZLIB) if coding in _PACKED else None
    body, taken = bytearray(), 0
    for chunk in response.iter_stream():
        deadline.left()
        taken += len(chunk)
        body += chunk if unpacker is None else _unpacked(unpacker, chunk, most + 1 - len(body))
        if max(taken, len(body)) > most:
            raise too_large
    if unpacker is not None and unpacker.unused_data:
        raise UnusableBody(_GOES_ON)
    if unpacker is not None and not unpacker.eof:
        raise UnusableBody(f"could not be fetched: its body, packed as {coding}, is cut off.")
    return bytes(body)


def _unpacked(unpacker: zlib._Decompress, chunk: bytes, most: int) -> bytes:
    if unpacker.eof:
        raise UnusableBody(_GOES_ON)
    try:
        return unpacker.decompress(chunk, most)
    except zlib.error as error:
        raise UnusableBody(f"could not be fetched: its body is packed badly: {error}.") from error
