"""Which addresses may be asked: of http(s), in no odd form, and with numbers that everybody reaches.

Sources: the registries of special-purpose IPv4 and IPv6 addresses of RFC 6890 and its successors; RFC 4291 and
RFC 6052 for IPv4 addresses inside IPv6 ones.
"""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

import httpx

Number = IPv4Address | IPv6Address

# Python's own `is_global` differs from release to release, and lets multicast and embedded addresses pass.
_NOT_PUBLIC = [
    IPv4Network(network)
    for network in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24",
        "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3",
        "168.63.129.16/32",  # the host of a virtual machine at Azure, by a number that looks public
    )
]  # fmt: skip
# All that is given out. The rest, such as loopback, link-local, unique local, site-local, multicast, and IPv4 addresses
# in deprecated forms, lies outside of it.
_GIVEN_OUT = IPv6Network("2000::/3")
_NOT_PUBLIC_6 = [
    IPv6Network(network)
    for network in (
        "2001::/23",  # Teredo and what else the IETF keeps for itself
        "2001:db8::/32", "3fff::/20",  # examples
        "2002::/16",  # 6to4
        "2620:4f:8000::/48",
    )
]  # fmt: skip
_MAPPED, _NAT64 = IPv6Network("::ffff:0:0/96"), IPv6Network("64:ff9b::/96")
# The middle of an address whose last 32 bits are an IPv4 address (ISATAP).
_ISATAP = (0x0000_5EFE, 0x0200_5EFE)

_NAME = re.compile(r"[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*")
_LAST_IS_NUMBER = re.compile(r"(?:.*\.)?(?:\d+|0[xX][0-9a-fA-F]*)")
_AUTHORITY = re.compile(r"[A-Za-z]+://([^/?#\\]*)")
# Readers of addresses take "+80" and digits of other scripts for numbers too, and some take numbers modulo 65536.
_HOST_AND_PORT = re.compile(r"(?:[^:]*|\[.*\])(?::[0-9]{0,5})?")
_LONGEST_NAME, _LONGEST = 253, 16384
_USUAL_PORTS, _FIRST_FREE_PORT, _LAST_PORT = (80, 443), 1024, 65535
# Numbers of one name that are tried.
_TRIED = 4


class Refused(ValueError):
    """An address that is not asked; the message goes on from "could not be fetched:"."""


class UnknownName(Refused):
    """A host that has no number at the moment, as far as the resolver says."""


def parsed(address: str) -> httpx.URL:
    """Take an address apart, and refuse those that mean something else to another reader.

    Args:
        address: of http(s).

    Returns:
        Its parts; the host in ASCII.

    Raises:
        Refused: it is malformed, too long or of another scheme, has a user's name, or a host or port that is written
            as none of an image is.
    """
    if len(address) > _LONGEST:
        raise Refused(f"it has {len(address):,} characters, more than {_LONGEST:,}")
    try:
        url = httpx.URL(address)
        host = url.raw_host.decode("ascii")
    except (httpx.InvalidURL, UnicodeError, ValueError, TypeError) as error:
        raise Refused(f"it is malformed: {error}") from error
    if url.scheme not in ("http", "https"):
        raise Refused(f"its scheme is {url.scheme or 'missing'}; expected http or https")
    authority = found[1] if (found := _AUTHORITY.match(address)) else ""
    if url.userinfo or "@" in authority:
        raise Refused("it holds a user's name or password; leave out what stands before the @")
    _check_host(host)
    if not _HOST_AND_PORT.fullmatch(authority) or not 0 <= (url.port or 0) <= _LAST_PORT:
        raise Refused(f"its port is not written as a number from 1 to {_LAST_PORT}")
    return url


def _check_host(host: str) -> None:
    if _number_of(host) is not None:
        return
    name = host.removesuffix(".")
    if not name:
        raise Refused("it names no host")
    if len(name) > _LONGEST_NAME or not _NAME.fullmatch(name):
        raise Refused(f"its host {name[:_LONGEST_NAME]!r} is no name of a host")
    if _LAST_IS_NUMBER.fullmatch(name):
        raise Refused(f"its host {name!r} is a number in an odd form; expected four decimal numbers, as in 8.8.8.8")


def numbers_of(host: str, port: int, seconds: float, *, allow_inner: bool = False) -> list[Number]:
    """Look up the numbers of a host, once; who connects to them, and to nothing else, cannot be led elsewhere.

    Args:
        host: a name or a number, as `parsed` gives it.
        port: to be asked.
        seconds: that the resolver has.
        allow_inner: whether inner numbers, and any port, may be asked.

    Returns:
        The numbers in the order in which to try them, at most 4.

    Raises:
        Refused: a number is not reachable by everybody, or the port is one of other services than the web's; nothing
            was connected to.
        TimeoutError: the resolver takes longer.
    """
    number = _number_of(host)
    numbers = [number] if number is not None else _looked_up(host.removesuffix("."), port, seconds)
    inner = next((one for one in numbers if not is_public(one)), None)
    if inner is not None and not allow_inner:
        behind = "" if number is not None else f", the number of {host},"
        raise Refused(f"{inner}{behind} is not globally reachable")
    if port not in _USUAL_PORTS and port < _FIRST_FREE_PORT and not allow_inner:
        raise Refused(f"its port is {port}; expected 80, 443 or one from {_FIRST_FREE_PORT} on")
    return numbers[:_TRIED]


def is_public(number: Number) -> bool:
    """Tell whether a number is one that everybody reaches, IPv4 addresses inside IPv6 ones taken out of it.

    Args:
        number: any.

    Returns:
        False for inner, reserved and multicast numbers, and for tunnels, which lead where their ends want.
    """
    if isinstance(number, IPv4Address):
        return not any(number in network for network in _NOT_PUBLIC)
    if number.scope_id is not None:
        return False
    last = IPv4Address(int(number) & 0xFFFF_FFFF)
    if number in _MAPPED or number in _NAT64:
        return is_public(last)
    if (int(number) >> 32) & 0xFFFF_FFFF in _ISATAP and not is_public(last):
        return False
    return number in _GIVEN_OUT and not any(number in network for network in _NOT_PUBLIC_6)


def _number_of(host: str) -> Number | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def _looked_up(name: str, port: int, seconds: float) -> list[Number]:
    try:
        found = _within(seconds, lambda: socket.getaddrinfo(name, port, type=socket.SOCK_STREAM))
    except (OSError, UnicodeError) as error:
        if isinstance(error, TimeoutError):
            raise
        kind = Refused if getattr(error, "errno", None) == socket.EAI_NONAME else UnknownName
        raise kind(f"there is no host {name}: {getattr(error, 'strerror', None) or error}") from error
    if not found:
        raise UnknownName(f"there is no host {name}: the resolver names no number of it")
    return list(dict.fromkeys(ip_address(place[0]) for *_, place in found))


def _within(seconds: float, look_up: Callable[[], list]) -> list:
    """Call a function that cannot be told to give up, in a thread that is left behind where it takes too long."""
    results: list[list] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(look_up())
        except BaseException as error:  # raised again below, where somebody waits
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise TimeoutError("the resolver does not answer")
    return results[0]
