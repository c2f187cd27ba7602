"""Servers of strangers: whatever they send, the time and the memory are those that were allowed."""

import gzip
import resource
import socket
import ssl
import threading
import time
import tracemalloc
import zlib

import pytest

from paddlemix.media import fetch as fetch_module
from paddlemix.media.fetch import ALLOW_INNER_VARIABLE, FetchError, fetch

OK = b"HTTP/1.1 200 OK\r\n"


def packed_twice(size):
    return gzip.compress(gzip.compress(b"\0" * size))


@pytest.fixture
def serve(monkeypatch):
    """Give a function that answers each connection by what `answer(send)` sends, and the address."""
    monkeypatch.setenv(ALLOW_INNER_VARIABLE, "1")
    monkeypatch.setattr(fetch_module, "PAUSES", ())
    servers, closing = [], threading.Event()

    def start(answer):
        server = socket.create_server(("127.0.0.1", 0))
        servers.append(server)

        def speak(connection):
            with connection:
                try:
                    connection.recv(65536)
                    answer(connection.sendall)
                except OSError:  # the client has heard enough
                    pass

        def listen():
            while not closing.is_set():
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=speak, args=(connection,), daemon=True).start()

        threading.Thread(target=listen, daemon=True).start()
        return f"http://127.0.0.1:{server.getsockname()[1]}/a.png"

    yield start
    closing.set()
    for server in servers:
        server.close()


def refusal(address, memory=30e6, **bounds):
    tracemalloc.start()
    start = time.monotonic()
    try:
        with pytest.raises(FetchError) as error:
            fetch(address, **bounds)
        assert time.monotonic() - start < 5  # of the 10 s that a fetch has; a machine at work takes a while itself
        assert tracemalloc.get_traced_memory()[1] < memory
    finally:
        tracemalloc.stop()
    assert str(error.value).isprintable() and str(error.value).startswith(address)
    return str(error.value)


def endless(send, piece):
    while True:
        send(piece)


def dripping(send, head, piece):
    send(head)
    while True:
        send(piece)
        time.sleep(0.02)


@pytest.mark.parametrize(
    "coding", ["gzip, gzip", "br", "zstd", "gzip, deflate, gzip", "identity, gzip", "\x1b]0;x\x07"]
)
def test_a_body_that_is_packed_in_other_ways_than_once_is_refused(serve, coding):
    body = packed_twice(10_000_000)
    head = OK + f"Content-Encoding: {coding}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    message = refusal(serve(lambda send: send(head + body)))
    assert "packed as" in message or "ProtocolError" in message


def test_two_headers_of_a_packing_are_two_packings(serve):
    body = packed_twice(10_000_000)
    head = OK + b"Content-Encoding: gzip\r\nContent-Encoding: gzip\r\n\r\n"
    assert "packed as 'gzip, gzip'" in refusal(serve(lambda send: send(head + body)))


def test_a_packed_body_is_unpacked_no_further_than_it_may_be_large(serve):
    body = gzip.compress(b"\0" * 200_000_000)
    head = OK + b"Content-Encoding: gzip\r\n\r\n"
    assert refusal(serve(lambda send: send(head + body)), memory=8e6, max_bytes=2**20).endswith("larger than 1 MB.")


@pytest.mark.parametrize(
    ("coding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress), ("GZIP", gzip.compress)]
)
def test_a_body_that_is_packed_once_is_unpacked(serve, coding, pack):
    head = OK + f"Content-Encoding: {coding}\r\n\r\n".encode()
    assert fetch(serve(lambda send: send(head + pack(b"image" * 1000)))) == b"image" * 1000


@pytest.mark.parametrize("body", [b"no gzip", gzip.compress(b"image" * 1000)[:-12]], ids=("none", "cut off"))
def test_a_packed_body_that_is_broken_or_cut_off_is_told(serve, body):
    head = OK + b"Content-Encoding: gzip\r\n\r\n"
    assert "packed" in refusal(serve(lambda send: send(head + body)))


@pytest.mark.parametrize(
    "rest", [b"x", gzip.compress(b"another image"), b"x" * 30_000_000], ids=("a byte", "a member", "30 MB")
)
def test_what_follows_a_packed_body_is_not_passed_over(serve, rest):
    answer = OK + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(b"image") + rest
    message = refusal(serve(lambda send: send(answer)), memory=2e6)
    assert "something follows the end" in message


def test_a_length_that_is_too_large_is_refused_before_the_body_is_read(serve):
    head = OK + b"Content-Length: 1000000000\r\n\r\n"
    address = serve(lambda send: dripping(send, head, b"x"))
    assert refusal(address, memory=2e6).endswith("larger than 20 MB.")


@pytest.mark.parametrize("status", [b"302 Found\r\nLocation: /a.png", b"404 Not Found", b"500 Oops"])
def test_the_body_of_an_answer_that_is_none_is_not_read(serve, status):
    head = b"HTTP/1.1 " + status + b"\r\nContent-Length: 1000000000\r\n\r\n"

    def answer(send):
        send(head)
        endless(send, b"x" * 65536)

    refusal(serve(answer), memory=2e6)


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        (b"", b"H"),
        (OK, b"X: y\r\n"),
        (OK + b"X: ", b"y"),
        (OK + b"\r\n", b"x"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n1;", b"e"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X: y\r\n"),
        (b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
        (OK + b"Content-Encoding: gzip\r\n\r\n", b"\0"),
    ],
)
def test_an_answer_that_drips_is_given_up_when_its_time_is_over(serve, head, piece):
    address = serve(lambda send: dripping(send, head, piece))
    message = refusal(address, max_seconds=0.3)
    assert message.endswith("took longer than 0.3 s.") or "Protocol" in message or "packed" in message


def test_redirects_that_drip_share_one_time(serve):
    def answer(send):
        time.sleep(0.15)
        send(b"HTTP/1.1 302 Found\r\nLocation: /b.png\r\n\r\n")

    assert refusal(serve(answer), max_seconds=0.3).endswith("took longer than 0.3 s.")


@pytest.mark.parametrize("piece", [b"X: y\r\n" * 1000, b"x" * 65536, b"HTTP/1.1 103 Early Hints\r\n\r\n" * 1000])
def test_endless_headers_are_given_up(serve, piece):
    def answer(send):
        send(OK)
        endless(send, piece)

    refusal(serve(answer), memory=5e6, max_seconds=1)


def test_an_endless_body_is_given_up_at_its_largest_size(serve):
    def answer(send):
        send(OK + b"\r\n")
        endless(send, b"x" * 65536)

    assert refusal(serve(answer), max_bytes=2**20, memory=5e6).endswith("larger than 1 MB.")


@pytest.mark.parametrize(
    "place",
    [
        "http://127.0.0.1:1/",
        "http://[::1]/",
        "//169.254.169.254/latest",
        "http://0x7f.1/",
        "http://a@8.8.8.8/",
        "http://[",
        "javascript:1",
    ],
)
def test_each_place_that_an_answer_leads_to_is_checked(serve, place, monkeypatch):
    address = serve(lambda send: send(f"HTTP/1.1 302 Found\r\nLocation: {place}\r\n\r\n".encode()))
    # The first hop may be asked, as if it were public; those behind it only if they are.
    monkeypatch.delenv(ALLOW_INNER_VARIABLE)
    real = fetch_module.numbers_of

    def numbers_of(host, port, seconds, **_):
        return real(host, port, seconds, allow_inner=f":{port}/" in address)

    monkeypatch.setattr(fetch_module, "numbers_of", numbers_of)
    message = refusal(address)
    assert "globally" in message or "it leads to" in message


def test_what_a_server_says_does_not_reach_the_terminal_as_it_is(serve):
    refusal(serve(lambda send: send(b"HTTP/1.1 200 \x1b]0;owned\x07\x9b31m\r\n\x1b: \x1b\r\n\r\n")))
    refusal(serve(lambda send: send(b"HTTP/1.1 302 Found\r\nLocation: http://\xe2\x80\xae\x1b[31m/\r\n\r\n")))


def test_a_server_of_another_name_is_not_believed(tmp_path, monkeypatch):
    names = []

    class Context(ssl.SSLContext):
        def wrap_socket(self, *args, server_hostname=None, **kwargs):
            names.append(server_hostname)
            raise ssl.SSLError("no handshake in this test")

    monkeypatch.setenv(ALLOW_INNER_VARIABLE, "1")
    monkeypatch.setattr(fetch_module, "PAUSES", ())
    monkeypatch.setattr(fetch_module, "_certificates", lambda: Context(ssl.PROTOCOL_TLS_CLIENT))
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(FetchError):
        fetch(f"https://localhost.:{server.getsockname()[1]}/a.png")
    assert names == ["localhost"]
    assert fetch_module.httpx.create_ssl_context().check_hostname


def test_memory_of_the_process_stays_small_where_a_body_is_a_bomb(serve):
    body = gzip.compress(b"\0" * 500_000_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refusal(serve(lambda send: send(OK + b"Content-Encoding: gzip\r\n\r\n" + body)), memory=80e6)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 150_000
