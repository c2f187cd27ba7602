"""What is fetched is kept only if it is what was expected, and asked for again when someone says so."""

from __future__ import annotations

import io
import logging
import os
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from PIL import Image

from paddlemix.media import fetch as fetch_module
from paddlemix.media.fetch import FetchError
from paddlemix.media.images import ImageError, image_size, open_image
from paddlemix.media.kept import begin_refetch, fetch_kept, last_refetch
from paddlemix.media.video import VideoError, open_video

PAGE = b"<!DOCTYPE html><html><body>Too many requests</body></html>"


def png(width: int, height: int = 10) -> bytes:
    file = io.BytesIO()
    Image.effect_noise((width, height), 50).save(file, "PNG")
    return file.getvalue()


class Answers(BaseHTTPRequestHandler):
    """Answers each request with the next of `server.bodies`, the last one for ever; None is an error."""

    server: Any

    def do_GET(self) -> None:
        self.server.seen.append(self.path)
        bodies = self.server.bodies
        body = bodies.pop(0) if len(bodies) > 1 else bodies[0]
        if body is None:
            self.send_error(404)
            return
        self.send_response(200)
        if self.server.length is not None:
            self.send_header("Content-Length", str(self.server.length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep the tests' output clean."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Iterator[Any]:
    monkeypatch.setenv("PADDLEMIX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PADDLEMIX_ALLOW_INNER_ADDRESSES", "1")
    monkeypatch.setattr(fetch_module, "PAUSES", (0.01, 0.01))
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    server.seen, server.bodies, server.length = [], [], None
    server.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_page_in_place_of_an_image_is_told_and_asked_for_again_and_the_image_is_kept(server):
    server.bodies = [PAGE, png(20)]
    address = f"{server.address}/a.png"
    with pytest.raises(ImageError, match=rf"^image {address} is an HTML page, such as an error or a login page\.$"):
        open_image(address)
    assert open_image(address).size == image_size(address) == open_image(address).size == (20, 10)
    assert len(server.seen) == 2


def test_what_an_earlier_release_kept_and_is_no_image_is_asked_for_again(server):
    server.bodies = [PAGE, png(20)]
    address = f"{server.address}/a.png"
    assert fetch_kept(address) == PAGE
    assert [image_size(address) for _ in range(2)] == [(20, 10)] * 2
    assert len(server.seen) == 2


def test_a_body_shorter_than_its_server_says_is_not_kept(server):
    server.bodies, server.length = [png(20)[:-40]], len(png(20))
    with pytest.raises(ImageError, match="could not be fetched: RemoteProtocolError"):
        open_image(f"{server.address}/a.png")
    assert len(server.seen) == 3
    server.bodies = [png(20)]
    server.length = len(server.bodies[0])
    assert open_image(f"{server.address}/a.png").size == (20, 10)


def test_a_broken_image_names_the_key_that_asks_for_it_again(server):
    server.bodies = [png(20)[:-40]]
    with pytest.raises(ImageError, match=r"is broken or cut off: .*`refetch` asks for it again\.$"):
        open_image(f"{server.address}/a.png")


def test_a_page_in_place_of_a_video_is_not_kept(server):
    server.bodies = [PAGE]
    for _ in range(2):
        with pytest.raises(VideoError, match="is an HTML page"), open_video(f"{server.address}/a.mp4"):
            pass
    assert len(server.seen) == 2


class TestRefetch:
    def test_every_address_is_asked_once_more_and_the_new_image_is_kept(self, server):
        server.bodies = [png(20), png(20), png(30)]
        one, other = f"{server.address}/1.png", f"{server.address}/2.png"
        assert [image_size(one), image_size(other)] == [(20, 10)] * 2
        begin_refetch(time.time())
        assert [image_size(address) for address in (one, one, other, other, one)] == [(30, 10)] * 5
        assert server.seen == ["/1.png", "/2.png"] * 2

    def test_where_it_fails_the_kept_image_is_used_with_a_warning_and_asked_no_more(self, server, caplog):
        server.bodies = [png(20), None]
        address = f"{server.address}/a.png"
        assert image_size(address) == (20, 10)
        begin_refetch(time.time())
        with caplog.at_level(logging.WARNING, logger="paddlemix"):
            assert [image_size(address) for _ in range(3)] == [(20, 10)] * 3
        (warning,) = (one.getMessage() for one in caplog.records if one.levelno == logging.WARNING)
        assert warning == f"{address} could not be fetched: the answer was 404. What was kept of it is used."
        assert len(server.seen) == 2

    def test_a_page_does_not_take_the_place_of_a_kept_image(self, server):
        server.bodies = [png(20), PAGE]
        address = f"{server.address}/a.png"
        image_size(address)
        begin_refetch(time.time())
        assert image_size(address) == (20, 10)

    def test_sizes_that_were_measured_before_count_for_nothing(self, server, make_processor):
        before = make_processor().fingerprint()
        begin_refetch(12.5)
        assert last_refetch() == 12.5
        after = make_processor().fingerprint()
        assert after != before and after == make_processor().fingerprint()


@pytest.mark.parametrize(
    ("asked", "read"),
    [
        ("/a b.png", "/a%20b.png"),
        ("/图 片.png", "/%E5%9B%BE%20%E7%89%87.png"),
        ("/a[1](2).png", "/a[1](2).png"),
        ("/a%20b%2F图.png", "/a%20b%2F%E5%9B%BE.png"),
        ("/100%.png", "/100%.png"),
        ("/a.png?q=图 片&x=[1]|2", None),
        ("/~u/a,b;c'd!$&*+@:=.png", "/~u/a,b;c'd!$&*+@:=.png"),
    ],
)
def test_odd_characters_of_an_address_are_read(server, asked, read):
    server.bodies = [png(20)]
    assert open_image(server.address + asked).size == (20, 10)
    assert read is None or server.seen == [read]


@pytest.mark.parametrize("end", ["\ud800.png", "a\nb.png", "a\x00.png"])
def test_an_address_that_cannot_be_one_is_told(server, end):
    server.bodies = [png(20)]
    with pytest.raises(FetchError, match="could not be fetched"):
        fetch_kept(f"{server.address}/{end}")
    assert server.seen == []


class TestDamagedCache:
    @pytest.mark.parametrize(
        "damage", [lambda body: b"", lambda body: body[:-30], lambda body: body[:40], lambda body: b"\0" * len(body)]
    )
    def test_a_kept_body_that_is_not_what_it_was_is_asked_for_again(self, server, tmp_path, damage):
        server.bodies = [png(20)]
        address = f"{server.address}/a.png"
        assert fetch_kept(address) == fetch_kept(address) == server.bodies[0]
        (file,) = (file for file in (tmp_path / "cache" / "fetched").rglob("*") if file.is_file())
        file.write_bytes(damage(file.read_bytes()))
        assert fetch_kept(address) == server.bodies[0] and open_image(address).size == (20, 10)
        assert len(server.seen) == 2

    def test_a_pipe_in_place_of_a_kept_body_is_not_waited_for(self, server, tmp_path):
        server.bodies = [png(20)]
        address = f"{server.address}/a.png"
        fetch_kept(address)
        (file,) = (file for file in (tmp_path / "cache" / "fetched").rglob("*") if file.is_file())
        file.unlink()
        os.mkfifo(file)
        found = []
        thread = threading.Thread(target=lambda: found.append(fetch_kept(address)), daemon=True)
        thread.start()
        thread.join(5)
        assert found == [server.bodies[0]]

    def test_what_an_earlier_release_kept_is_used_where_it_cannot_be_asked_for(self, server, tmp_path, caplog):
        server.bodies = [png(20), None]
        address = f"{server.address}/a.png"
        fetch_kept(address)
        (file,) = (file for file in (tmp_path / "cache" / "fetched").rglob("*") if file.is_file())
        file.write_bytes(png(30))
        assert [image_size(address) for _ in range(2)] == [(30, 10)] * 2
        assert caplog.text.count("What was kept of it is used.") == 1 and len(server.seen) == 2

    @pytest.mark.parametrize("time_of_it", ["", "nan", "inf", "x", "\xff"])
    def test_a_time_of_a_refetch_that_is_none_counts_for_nothing(self, server, tmp_path, time_of_it):
        server.bodies = [png(20)]
        image_size(f"{server.address}/a.png")
        (tmp_path / "cache" / "fetched" / "refetch").write_bytes(time_of_it.encode("latin-1"))
        assert image_size(f"{server.address}/a.png") == (20, 10) and last_refetch() == 0
        assert len(server.seen) == 1

    def test_a_cache_without_room_is_done_without_and_said_once(self, server, monkeypatch, caplog):
        def no_room(path):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("paddlemix.media.kept.replacing", no_room)
        monkeypatch.setattr("paddlemix.cache._warned_of", set())
        server.bodies = [png(20)]
        assert [image_size(f"{server.address}/{name}.png") for name in "aab"] == [(20, 10)] * 3
        assert caplog.text.count("No space left on device") == 1
