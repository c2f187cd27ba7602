"""Fetching images and videos from http(s) addresses, with bounds on time, size and where the address may lead.

Inner addresses (private, loopback, link-local and the like) are refused before anything is connected to, also behind
redirects, unless PADDLEMIX_ALLOW_INNER_ADDRESSES=1 says that the records are one's own and their images stand on a
server inside.
"""

from __future__ import annotations

import os
import ssl
import threading
import time
from functools import cache

import httpcore
import httpx

from paddlemix.media.fetching.addresses import Refused, UnknownName, numbers_of, parsed
from paddlemix.media.fetching.bodies import UnusableBody, header, read_body
from paddlemix.media.fetching.connecting import CheckedNumbers, Deadline
from paddlemix.printable import in_one_line

MAX_BYTES = 20 * 1024 * 1024
MAX_SECONDS = 10.0
MAX_REDIRECTS = 3
# Seconds before asking again where a server is busy or the connection broke; all within the time there is.
PAUSES = (0.5, 1.5)
# Addresses that one process asks at a time; each worker is a process of its own.
MAX_AT_ONCE = 8
ALLOW_INNER_VARIABLE = "PADDLEMIX_ALLOW_INNER_ADDRESSES"

_PORTS = {"http": 80, "https": 443}
_REDIRECTS = (301, 302, 303, 307, 308)
_SHOWN_CHARACTERS = 1000
# Packed bodies are not asked for; servers that send them nevertheless are read, see `read_body`.
_HEADERS = (
    (b"User-Agent", b"paddlemix"), (b"Accept", b"*/*"), (b"Accept-Encoding", b"identity"), (b"Connection", b"close"),
)  # fmt: skip

_turns = threading.BoundedSemaphore(MAX_AT_ONCE)


class FetchError(ValueError):
    """An address that gave nothing; the message names it."""

    def __init__(self, message: str) -> None:
        super().__init__(in_one_line(message))


class _Status(Exception):
    """An answer that is no body."""

    def __init__(self, status: int) -> None:
        super().__init__(f"the answer was {status}")
        self.status = status


def is_address(path: str) -> bool:
    """Tell whether `path` is an http(s) address and not a file."""
    return path[:8].lower().startswith(("http://", "https://"))  # of a data: URL the whole would be copied


def fetch(address: str, *, max_bytes: int | None = None, max_seconds: float | None = None) -> bytes:
    """Get what stands at `address`, asking again where the server is busy or the connection breaks.

    Proxies that the environment names are not used: one would look up the host itself, behind the checks.

    Args:
        address: http(s).
        max_bytes: largest body; None means 20 MB.
        max_seconds: for all of it; None means 10 s. A server that is silent for 10 s is given up in any case.

    Returns:
        The body.

    Raises:
        FetchError: no answer in time, a larger body, more than 3 redirects, a refused address, or an error status.
    """
    name = address if len(address) <= _SHOWN_CHARACTERS else f"{address[:_SHOWN_CHARACTERS]}..."
    with _turns:
        deadline = Deadline(max_seconds or MAX_SECONDS, MAX_SECONDS)
        try:
            return _read_patiently(address, max_bytes or MAX_BYTES, deadline)
        except (httpcore.TimeoutException, TimeoutError) as error:
            raise FetchError(f"{name} took longer than {deadline.missed:g} s.") from error
        except UnusableBody as error:
            raise FetchError(f"{name} {error}") from error
        except (Refused, _Status) as error:
            raise FetchError(f"{name} could not be fetched: {str(error).rstrip('.')}.") from error
        except Exception as error:  # httpcore's own, and whatever sockets make of an odd answer
            problem = f"{type(error).__name__}: {error}".rstrip(".: ")
            raise FetchError(f"{name} could not be fetched: {problem}.") from error


def _read_patiently(address: str, most: int, deadline: Deadline) -> bytes:
    for pause in PAUSES:
        try:
            return _follow(address, most, deadline)
        except (httpcore.NetworkError, httpcore.ProtocolError, _Status, UnknownName) as error:
            if isinstance(error, _Status) and error.status != 429 and error.status < 500:
                raise
        time.sleep(min(pause, deadline.left()))
    return _follow(address, most, deadline)


def _follow(address: str, most: int, deadline: Deadline) -> bytes:
    """Ask an address, and those that answers send on to, each of which is checked as the first was."""
    allows_inner = os.environ.get(ALLOW_INNER_VARIABLE) == "1"
    url = parsed(address)
    for _ in range(MAX_REDIRECTS + 1):
        found = _ask(url, most, deadline, allows_inner=allows_inner)
        if isinstance(found, bytes):
            return found
        try:
            place = str(url.join(found))
        except (httpx.InvalidURL, ValueError) as error:
            raise Refused(f"it leads to a malformed address: {error}") from error
        try:
            url = parsed(place)
        except Refused as error:
            raise Refused(f"it leads to {place[:_SHOWN_CHARACTERS]}, but {error}") from error
    raise Refused(f"there are more than {MAX_REDIRECTS} redirects")


def _ask(url: httpx.URL, most: int, deadline: Deadline, *, allows_inner: bool) -> bytes | str:
    """Ask one address: its body, or the place that it sends on to, whose own body is not read."""
    port = _PORTS[url.scheme] if url.port is None else url.port
    host = url.raw_host.removesuffix(b".")
    numbers = numbers_of(host.decode("ascii"), port, deadline.left(), allow_inner=allows_inner)
    target = httpcore.URL(scheme=url.scheme, host=host, port=port, target=url.raw_path)
    with (
        httpcore.HTTPConnection(
            target.origin,
            ssl_context=_certificates() if url.scheme == "https" else None,
            network_backend=CheckedNumbers(numbers, deadline),
        ) as connection,
        connection.stream("GET", target, headers=[(b"Host", url.netloc), *_HEADERS]) as response,
    ):
        place = header(response, b"location")
        if response.status in _REDIRECTS and place:
            return place
        if not 200 <= response.status < 300:
            raise _Status(response.status)
        return read_body(response, most, deadline)


@cache
def _certificates() -> ssl.SSLContext:
    return httpx.create_ssl_context()
