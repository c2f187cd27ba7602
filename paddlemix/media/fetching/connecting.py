"""Connections to numbers that were looked up and checked before, all of which end at one time."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterable, Sequence
from typing import Any

import httpcore

from paddlemix.media.fetching.addresses import Number


class Deadline:
    """The time until which all of a request is done: looking up, connecting, each redirect and each byte.

    Args:
        seconds: from now on.
        silence: the longest that a server may say nothing.
    """

    def __init__(self, seconds: float, silence: float) -> None:
        self._seconds, self._silence = seconds, silence
        self._end = time.monotonic() + seconds

    @property
    def missed(self) -> float:
        """What a server took longer than, in seconds."""
        return self._seconds if time.monotonic() >= self._end else min(self._silence, self._seconds)

    def left(self) -> float:
        """Return the seconds that the next step may take; httpcore.ReadTimeout where there are none."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise httpcore.ReadTimeout
        return min(left, self._silence)


class CheckedNumbers(httpcore.NetworkBackend):
    """Connects to given numbers, whatever the name of the host says meanwhile.

    Args:
        numbers: to try, one after the other.
        deadline: of the request.
    """

    def __init__(self, numbers: Sequence[Number], deadline: Deadline) -> None:
        self._numbers, self._deadline = numbers, deadline

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect to the first of the numbers that answers, whose shares of the time are alike.

        Args:
            host: its name is ignored: it was looked up.
            port: to connect to.
            timeout: ignored, as the deadline holds.
            local_address: to connect from.
            socket_options: of the socket.

        Returns:
            The connection.

        Raises:
            httpcore.ConnectError: none of the numbers answers.
            httpcore.ConnectTimeout: none does in time.
        """
        del host, timeout
        for place, number in enumerate(self._numbers):
            seconds = self._deadline.left() / (len(self._numbers) - place)
            try:
                stream = httpcore.SyncBackend().connect_tcp(str(number), port, seconds, local_address, socket_options)
                return _TimedStream(stream, self._deadline)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure


class _TimedStream(httpcore.NetworkStream):
    """A connection each of whose steps ends with the deadline."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: Deadline) -> None:
        self._stream, self._deadline = stream, deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        del timeout
        return self._stream.read(max_bytes, self._deadline.left())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        del timeout
        self._stream.write(buffer, self._deadline.left())

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        del timeout
        return _TimedStream(self._stream.start_tls(ssl_context, server_hostname, self._deadline.left()), self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
