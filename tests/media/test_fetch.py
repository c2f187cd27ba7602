import asyncio
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from paddlemix.media import fetch as fetch_module
from paddlemix.media.fetch import FetchError, fetch, is_address
from paddlemix.media.images import ImageError, image_size, open_image
from paddlemix.media.kept import fetch_kept

IMAGE = b"image"


class Answers(BaseHTTPRequestHandler):
    """/image answers, /large sends 8 MB, /drip takes over a second, /slow waits, /hop/N redirects N times, /busy/N
    answers after N refusals, and /wait/N after a while."""

    def do_GET(self):
        self.server.seen.append(self.path)
        kind, _, rest = self.path.strip("/").partition("/")
        if kind == "hop":
            self.redirect(f"/hop/{int(rest) - 1}" if int(rest) > 1 else "/image")
        elif kind == "away":
            self.redirect(rest)
        elif kind == "wait":
            self.wait()
        elif kind == "busy":
            self.busy(int(rest))
        elif kind in ("image", "large", "drip", "slow"):
            getattr(self, kind)()
        else:
            self.send_error(404)

    def redirect(self, place):
        self.send_response(302)
        self.send_header("Location", place)
        self.end_headers()

    def image(self):
        self.begin()
        self.wfile.write(IMAGE)

    def wait(self):
        with self.server.counting:
            self.server.present += 1
            self.server.most = max(self.server.most, self.server.present)
        self.server.closing.wait(0.3)
        with self.server.counting:
            self.server.present -= 1
        self.image()

    def busy(self, times):
        if self.server.seen.count(self.path) <= times:
            self.send_error(503)
        else:
            self.image()

    def large(self):
        self.begin()
        self.go_on([b"x" * 2**20] * 8, pause=0)

    def drip(self):
        self.begin()
        self.go_on([b"x"] * 60, pause=0.02)

    def slow(self):
        self.server.closing.wait(20)

    def begin(self):
        self.send_response(200)
        self.end_headers()

    def go_on(self, pieces, pause):
        try:
            for piece in pieces:
                self.server.closing.wait(pause)
                self.wfile.write(piece)
        except OSError:  # the client has heard enough
            self.close_connection = True

    def log_message(self, *_):
        """Keep the tests' output clean."""


@pytest.fixture
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    server.seen, server.closing = [], threading.Event()
    server.counting, server.present, server.most = threading.Lock(), 0, 0
    server.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.closing.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def unprotected(monkeypatch):
    """Lets the tests reach their own server, which stands at a loopback address."""
    monkeypatch.setenv(fetch_module.ALLOW_INNER_VARIABLE, "1")


def refusal(address):
    with pytest.raises(FetchError) as error:
        fetch(address)
    message = str(error.value)
    assert message.startswith(address)
    assert message.endswith(".") and not message.endswith("..")
    assert "\n" not in message
    return message


def test_only_http_addresses_are_addresses():
    assert all(map(is_address, ["http://a/b.png", "https://a/b.png", "HTTPS://A/B.PNG"]))
    assert not any(map(is_address, ["a.png", "/http://a", "ftp://a/b.png", "file:///a.png", "data:image/png;base64,"]))


def test_other_schemes_are_files_that_do_not_exist():
    with pytest.raises(ImageError, match="file:///etc/hostname does not exist"):
        image_size("file:///etc/hostname")


def test_a_loopback_address_is_refused_and_never_asked(server):
    assert "not globally reachable" in refusal(f"{server.address}/image")
    assert server.seen == []


@pytest.mark.parametrize(
    "host", ["10.0.0.1", "192.168.1.1", "169.254.169.254", "[::1]", "[fe80::1]", "[::ffff:127.0.0.1]", "0.0.0.0"]
)
def test_private_and_link_local_addresses_are_refused(host):
    assert "not globally reachable" in refusal(f"http://{host}/image")


def test_a_refused_address_is_an_image_that_cannot_be_used(server):
    with pytest.raises(ImageError, match="^image http://127.0.0.1.*not globally reachable"):
        open_image(f"{server.address}/image")


def test_a_proxy_of_the_environment_does_not_lead_past_the_protection(server, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, server.address)
    assert "not globally reachable" in refusal("http://10.0.0.1/image")
    assert server.seen == []


@pytest.mark.usefixtures("unprotected")
def test_what_stands_at_an_address_comes_back(server):
    assert fetch(f"{server.address}/image") == IMAGE


@pytest.mark.usefixtures("unprotected")
def test_fetching_works_inside_a_running_event_loop(server):
    async def cell():
        return fetch(f"{server.address}/image")

    assert asyncio.run(cell()) == IMAGE


@pytest.mark.usefixtures("unprotected")
def test_three_redirects_are_followed_and_a_fourth_is_not(server):
    assert fetch(f"{server.address}/hop/3") == IMAGE
    assert "more than 3 redirects" in refusal(f"{server.address}/hop/4")


@pytest.mark.usefixtures("unprotected")
@pytest.mark.parametrize("place", ["file:///etc/hostname", "ftp://127.0.0.1/a"])
def test_a_redirect_to_another_scheme_is_refused(server, place):
    scheme = place.partition(":")[0]
    assert f", but its scheme is {scheme};" in refusal(f"{server.address}/away/{place}")


@pytest.mark.usefixtures("unprotected")
def test_an_answer_above_the_size_cap_is_given_up(server, monkeypatch):
    monkeypatch.setattr(fetch_module, "MAX_BYTES", 3 * 2**20)
    assert refusal(f"{server.address}/large").endswith("is larger than 3 MB.")


@pytest.mark.usefixtures("unprotected")
@pytest.mark.parametrize("kind", ["slow", "drip"])
def test_an_answer_that_does_not_come_or_does_not_end_in_time_is_given_up(server, monkeypatch, kind):
    monkeypatch.setattr(fetch_module, "MAX_SECONDS", 0.3)
    assert refusal(f"{server.address}/{kind}").endswith("took longer than 0.3 s.")
    assert server.seen == [f"/{kind}"]


@pytest.mark.usefixtures("unprotected")
def test_an_error_status_is_told(server):
    assert refusal(f"{server.address}/nowhere").endswith("could not be fetched: the answer was 404.")


@pytest.mark.usefixtures("unprotected")
def test_a_server_that_is_not_there_is_told(server):
    server.shutdown()
    server.server_close()
    assert "ConnectError" in refusal(f"{server.address}/image")


@pytest.mark.parametrize("address", ["http://", "http:///a.png", "http://[a.png", "http://10.0.0.1:99999/a.png"])
def test_a_malformed_address_is_told(address):
    refusal(address)


@pytest.mark.usefixtures("unprotected")
def test_a_busy_server_is_asked_three_times(server, monkeypatch):
    monkeypatch.setattr(fetch_module, "PAUSES", (0.01, 0.01))
    assert fetch(f"{server.address}/busy/2") == IMAGE
    assert refusal(f"{server.address}/busy/3").endswith("the answer was 503.")
    assert server.seen == ["/busy/2"] * 3 + ["/busy/3"] * 3


@pytest.mark.usefixtures("unprotected")
def test_what_will_not_change_is_asked_for_once(server):
    refusal(f"{server.address}/nowhere")
    assert server.seen == ["/nowhere"]


@pytest.mark.usefixtures("unprotected")
def test_waiting_for_a_busy_server_counts_as_time(server, monkeypatch):
    monkeypatch.setattr(fetch_module, "PAUSES", (5, 5))
    monkeypatch.setattr(fetch_module, "MAX_SECONDS", 0.5)
    assert refusal(f"{server.address}/busy/1").endswith("took longer than 0.5 s.")


@pytest.mark.usefixtures("unprotected")
def test_what_was_fetched_once_is_kept_and_a_failure_is_not(server):
    refusal_of_kept = f"{server.address}/nowhere"
    assert [fetch_kept(f"{server.address}/image") for _ in range(3)] == [IMAGE] * 3
    for _ in range(2):
        with pytest.raises(FetchError):
            fetch_kept(refusal_of_kept)
    assert server.seen == ["/image", "/nowhere", "/nowhere"]


def test_inner_addresses_are_reached_where_the_environment_allows_it(server, monkeypatch):
    monkeypatch.setenv("PADDLEMIX_ALLOW_INNER_ADDRESSES", "1")
    assert fetch(f"{server.address}/image") == IMAGE
    monkeypatch.setenv("PADDLEMIX_ALLOW_INNER_ADDRESSES", "0")
    assert "not globally reachable" in refusal(f"{server.address}/image")


@pytest.mark.usefixtures("unprotected")
def test_no_more_than_so_many_addresses_are_asked_at_a_time(server, monkeypatch):
    monkeypatch.setattr(fetch_module, "_turns", threading.BoundedSemaphore(2))
    threads = [threading.Thread(target=fetch, args=(f"{server.address}/wait/{n}",)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.most == 2
