"""Fetching images and videos from http(s) addresses, with bounds on time, size and where the address may lead.

Private, loopback and link-local addresses are refused, also behind redirects, unless PADDLEMIX_ALLOW_INNER_ADDRESSES=1
says that the records are one's own and their images stand on a server inside.
"""

from __future__ import annotations

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address

import httpx
from httpx_secure import httpx_ssrf_protection

MAX_BYTES = 20 * 1024 * 1024
MAX_SECONDS = 10.0
MAX_REDIRECTS = 3
# Seconds before asking again where a server is busy or the connection broke; all within the time there is.
PAUSES = (0.5, 1.5)
# Addresses that one process asks at a time; each worker is a process of its own.
MAX_AT_ONCE = 8
ALLOW_INNER_VARIABLE = "PADDLEMIX_ALLOW_INNER_ADDRESSES"

_turns = threading.BoundedSemaphore(MAX_AT_ONCE)


class FetchError(ValueError):
    """An address that gave nothing; the message names it."""


def is_address(path: str) -> bool:
    """Tell whether `path` is an http(s) address and not a file."""
    return path[:8].lower().startswith(("http://", "https://"))  # of a data: URL the whole would be copied


def fetch(address: str, *, max_bytes: int | None = None, max_seconds: float | None = None) -> bytes:
    """Get what stands at `address`, asking again where the server is busy or the connection breaks.

    Args:
        address: http(s).
        max_bytes: largest body; None means 20 MB.
        max_seconds: for the whole body; None means 10 s. A server that is silent for 10 s is given up in any case.

    Returns:
        The body.

    Raises:
        FetchError: no answer in time, a larger body, more than 3 redirects, a refused address, or an error status.
    """
    bounds = max_bytes or MAX_BYTES, max_seconds or MAX_SECONDS
    # A thread of its own: the caller may be inside an event loop already, as in a notebook.
    with _turns, ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(asyncio.run, _fetch(address, *bounds)).result()


async def _fetch(address: str, max_bytes: int, max_seconds: float) -> bytes:
    try:
        async with _client() as client:
            return await asyncio.wait_for(_read_patiently(client, address, max_bytes), max_seconds)
    except FetchError:
        raise
    except httpx.TimeoutException as error:  # of a single read
        raise FetchError(f"{address} took longer than {MAX_SECONDS:g} s.") from error
    except asyncio.TimeoutError as error:
        raise FetchError(f"{address} took longer than {max_seconds:g} s.") from error
    except httpx.HTTPStatusError as error:
        raise FetchError(f"{address} could not be fetched: the answer was {error.response.status_code}.") from error
    except Exception as error:  # httpx's own, and whatever sockets and resolvers make of an odd address.
        raise FetchError(
            f"{address} could not be fetched: {type(error).__name__}: {error}".rstrip(".: ") + "."
        ) from error


def _client() -> httpx.AsyncClient:
    # Proxies named in the environment are ignored: one would look up the address itself, behind the protection.
    allows_inner = os.environ.get(ALLOW_INNER_VARIABLE) == "1"
    client = httpx.AsyncClient(
        verify=httpx.create_ssl_context(),
        trust_env=False,
        timeout=MAX_SECONDS,
        follow_redirects=True,
        max_redirects=MAX_REDIRECTS,
        event_hooks={"request": [] if allows_inner else [_refuse_inner_host]},
    )
    return client if allows_inner else httpx_ssrf_protection(client)


async def _refuse_inner_host(request: httpx.Request) -> None:
    """Refuse a host written as an inner address, also behind a redirect.

    httpx-secure 1, the newest for Python 3.10, lets IPv6 addresses and 0.0.0.0 pass.
    """
    try:
        host = ip_address(request.url.host)
    except ValueError:  # a name
        return
    if not (getattr(host, "ipv4_mapped", None) or host).is_global:
        raise FetchError(f"{request.url} could not be fetched: {host} is not globally reachable.")


async def _read_patiently(client: httpx.AsyncClient, address: str, max_bytes: int) -> bytes:
    for pause in PAUSES:
        try:
            return await _read(client, address, max_bytes)
        except (httpx.TransportError, httpx.HTTPStatusError) as error:
            if not _may_pass(error):
                raise
        await asyncio.sleep(pause)
    return await _read(client, address, max_bytes)


def _may_pass(error: httpx.TransportError | httpx.HTTPStatusError) -> bool:
    """Tell whether to ask again may help; a server that was silent for all the time will not answer in more."""
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code == 429 or error.response.status_code >= 500
    return not isinstance(error, (httpx.TimeoutException, httpx.UnsupportedProtocol))


async def _read(client: httpx.AsyncClient, address: str, max_bytes: int) -> bytes:
    body = bytearray()
    async with client.stream("GET", address) as response:
        response.raise_for_status()
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > max_bytes:
                raise FetchError(f"{address} is larger than {max_bytes // 2**20} MB.")
    return bytes(body)
