"""Addresses of strangers: what is refused is refused before anything is connected to."""

import socket
import time
from ipaddress import ip_address

import pytest

from paddlemix.media import fetch as fetch_module
from paddlemix.media.fetch import FetchError, fetch
from paddlemix.media.fetching import addresses
from paddlemix.media.fetching.addresses import is_public

INNER = [
    "127.0.0.1",
    "127.255.0.3",
    "10.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "100.100.100.200",
    "0.0.0.0",
    "0.1.2.3",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.7",
    "203.0.113.9",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "168.63.129.16",
    "::1",
    "::",
    "::7f00:1",
    "::8.8.8.8",
    "::a9fe:a9fe",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:0:10.0.0.1",
    "64:ff9b::127.0.0.1",
    "64:ff9b::a00:1",
    "64:ff9b::169.254.169.254",
    "64:ff9b:1::127.0.0.1",
    "64:ff9b:1::8.8.8.8",
    "2002:7f00:1::",
    "2002:a9fe:a9fe::1",
    "2002:808:808::1",
    "2001:0:808:808::1",
    "2001:0:4136:e378:8000:63bf:80ff:fffe",
    "2001:db8::1",
    "2001:10::1",
    "2001:20::1",
    "3fff::1",
    "5f00::1",
    "fe80::1",
    "fe80::5efe:10.0.0.1",
    "fec0::1",
    "fec0:0:0:ffff::1",
    "fc00::1",
    "fd00:ec2::254",
    "ff02::1",
    "ff0e::1",
    "ff05::2",
    "100::1",
    "2606:4700::5efe:10.0.0.1",
    "2606:4700::200:5efe:127.0.0.1",
    "4000::1",
    "8000::1",
]
PUBLIC = [
    "8.8.8.8",
    "1.1.1.1",
    "172.32.0.1",
    "::ffff:8.8.8.8",
    "64:ff9b::8.8.8.8",
    "2606:4700::1111",
    "2a00:1450:4001::200e",
]
ODD = [
    "2130706433",
    "0x7f000001",
    "0x7f.1",
    "127.1",
    "127.0.1",
    "0177.0.0.1",
    "017700000001",
    "0x7f.0x0.0x0.0x1",
    "127.0.0.01",
    "0x08080808",
    "8.8",
    "127.0.0.1.",
    "10.1.",
    "1.2.3.4.5",
    "256.1.1.1",
    "0x",
]


@pytest.fixture
def connections(monkeypatch):
    """All that is connected to; nothing answers."""
    asked = []

    def connect(place, *_, **__):
        asked.append(place)
        raise ConnectionRefusedError("nobody there")

    monkeypatch.setattr(socket, "create_connection", connect)
    monkeypatch.setattr("paddlemix.media.fetch.PAUSES", ())
    return asked


def refusal(address):
    start = time.monotonic()
    with pytest.raises(FetchError) as error:
        fetch(address)
    assert time.monotonic() - start < 5  # a machine at work may take a while, an attempt to connect 10 s
    return str(error.value)


@pytest.mark.parametrize("number", INNER)
def test_an_inner_number_is_refused_and_never_connected_to(number, connections):
    assert not is_public(ip_address(number))
    host = f"[{number}]" if ":" in number else number
    for port in ("", ":8080"):
        assert f"{ip_address(number)} is not globally reachable." in refusal(f"http://{host}{port}/a.png")
    assert connections == []


@pytest.mark.parametrize("number", PUBLIC)
def test_a_number_that_everybody_reaches_is_connected_to_as_it_is(number, connections):
    assert "nobody there" in refusal(f"http://{f'[{number}]' if ':' in number else number}/a.png")
    assert connections == [(str(ip_address(number)), 80)]


@pytest.mark.parametrize("host", ODD)
def test_a_number_in_an_odd_form_is_refused(host, connections):
    message = refusal(f"http://{host}/a.png")
    assert "odd form" in message or "Invalid IPv4 address" in message
    assert connections == []


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("http://user:secret@8.8.8.8/a.png", "user's name"),
        ("http://8.8.8.8@127.0.0.1/a.png", "user's name"),
        ("http://8.8.8.8\\@127.0.0.1/a.png", "user's name"),
        ("http://8.8.8.8:25/", "its port is 25"),
        ("http://8.8.8.8:22/", "its port is 22"),
        ("http://8.8.8.8:0/", "its port is 0"),
        ("http://8.8.8.8:65536/", "its port is not written"),
        ("http://8.8.8.8:65558/", "its port is not written"),  # 22, to who computes modulo 65536
        ("http://[2606:4700::1]:99999/", "its port is not written"),
        ("http://8.8.8.8:+80/", "its port is not written"),
        ("http://8.8.8.8:-1/", "its port is not written"),
        ("http://8.8.8.8:８０/", "its port is not written"),
        ("http://@8.8.8.8/", "user's name"),
        ("http://8.8.8.8/a\r\nHost: inner", "malformed"),
        ("http://8.8.8.8\r\n/a", "malformed"),
        ("http://[fe80::1%25eth0]/", ""),
        ("http://[fe80::1%eth0]/", ""),
        ("http://a b/", ""),
        ("http://a..b/", ""),
        ("http://" + "a" * 64 + ".com/", ""),
        ("http://" + "a." * 200 + "com/", ""),
        ("http://8.8.8.8/" + "a" * 100_000, "characters"),
        ("http://127。0。0。1/", "not globally reachable"),
        ("http://①②⑦.⓪.⓪.①/", ""),
        ("http:///a.png", ""),
        ("http://", ""),
    ],
)
def test_an_address_that_others_read_otherwise_is_refused(address, words, connections):
    message = refusal(address)
    assert words in message and "\n" not in message and "\r" not in message and len(message) < 2000
    assert connections == []


def look_up(monkeypatch, *answers):
    """Let every name have the numbers of one of `answers` after the other; returns the names asked for."""
    asked, rest = [], list(answers)

    def getaddrinfo(name, port, **_):
        asked.append(name)
        numbers = rest.pop(0)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (number, port)) for number in numbers]

    monkeypatch.setattr(addresses.socket, "getaddrinfo", getaddrinfo)
    return asked


@pytest.mark.parametrize("numbers", [["127.0.0.1"], ["8.8.8.8", "10.0.0.1"], ["8.8.8.8", "::1"], ["::ffff:10.0.0.1"]])
def test_a_name_any_of_whose_numbers_is_inner_is_refused(numbers, connections, monkeypatch):
    look_up(monkeypatch, numbers)
    assert "the number of images.example.com, is not globally reachable" in refusal("https://images.example.com/a.png")
    assert connections == []


def test_a_name_is_looked_up_once_and_its_checked_number_connected_to(connections, monkeypatch):
    asked = look_up(monkeypatch, ["8.8.8.8"], ["127.0.0.1"])  # a second answer would lead inside
    assert "nobody there" in refusal("http://rebinding.example.com./a.png")
    assert asked == ["rebinding.example.com"] and connections == [("8.8.8.8", 80)]


def test_a_name_without_a_number_is_told(connections, monkeypatch):
    monkeypatch.setattr(fetch_module, "PAUSES", ())
    look_up(monkeypatch, [])
    assert "there is no host empty.example.com" in refusal("http://empty.example.com/a.png")
    assert connections == []


def test_the_same_is_said_of_an_inner_port_whether_it_is_open_or_not(connections):
    with socket.create_server(("127.0.0.1", 0)) as opened:
        port = opened.getsockname()[1]
        words = {refusal(f"http://127.0.0.1:{one}/").replace(str(one), "PORT") for one in (port, 54321)}
    assert len(words) == 1 and connections == []


def test_a_resolver_that_does_not_answer_is_given_up_in_time(monkeypatch):
    monkeypatch.setattr(addresses.socket, "getaddrinfo", lambda *_, **__: time.sleep(60))
    start = time.monotonic()
    with pytest.raises(FetchError, match=r"took longer than 0\.2 s\.$"):
        fetch("http://images.example.com/a.png", max_seconds=0.2)
    assert time.monotonic() - start < 5
