from __future__ import annotations

import base64
import io
import re

import PIL.Image
import pytest

from paddlemix.conversation import Conversation, Image, RecordError, RecordId, Text, Turn
from paddlemix.media.data_url import data_url_of, decode_data_url, is_data_url, shown
from paddlemix.media.fetch import FetchError
from paddlemix.media.frames import VideoError
from paddlemix.media.images import ImageError, image_size, open_image
from paddlemix.media.video import open_video


def url_of(body: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(body).decode()}"


def png(width: int = 30, height: int = 20) -> bytes:
    file = io.BytesIO()
    PIL.Image.new("RGB", (width, height), "red").save(file, "PNG")
    return file.getvalue()


def test_only_what_starts_with_the_scheme_is_a_data_url():
    assert all(map(is_data_url, ["data:,", "DATA:image/png;base64,AAAA"]))
    assert not any(map(is_data_url, ["data", "a/data:b.png", "http://data:80/", "数据:"]))


@pytest.mark.parametrize("url", ["data:;base64,aW1hZ2U=", "data:image/png;charset=x;BASE64,aW1h\r\n Z2U="])
def test_the_bytes_come_back(url):
    assert decode_data_url(url) == b"image"


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("data:image/png", "data:image/png is not in base64; expected data:image/png;base64,..."),
        ("data:image/png,%89PNG", "is not in base64"),
        ("data:image/png;base64,AA", "is broken or cut off: "),
        ("data:image/png;base64,A*AA", "is broken or cut off: "),
        ("data:image/png;base64,图图图图", "is broken or cut off"),
        (f"data:image/png;base64,{'A' * 4000}", "AAA... is larger than 0 MB"),
    ],
)
def test_what_holds_no_bytes_is_refused_by_its_beginning(url, problem):
    with pytest.raises(FetchError, match=re.escape(problem)) as caught:
        decode_data_url(url, max_bytes=2000)
    assert len(str(caught.value)) < 300


def test_long_data_urls_are_shown_by_their_beginning_and_paths_as_they_are():
    assert shown("x" * 200) == "x" * 200
    assert shown("x" * 2000) == "x" * 1000 + "..."
    assert shown("data:" + "x" * 200) == "data:" + "x" * 75 + "..."


def test_an_image_in_a_data_url_is_opened_like_any_other():
    assert image_size(url_of(png())) == (30, 20)
    assert open_image(url_of(png())).getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"", "is empty: it has no bytes"),
        (png()[:-30], "is broken or cut off"),
        (png(2000, 4), "is 2000 x 4; sides may differ by a factor of 200"),
    ],
)
def test_a_broken_image_is_refused_without_being_spelled_out(body, problem):
    with pytest.raises(ImageError, match=re.escape(problem)) as caught:
        open_image(url_of(body))
    assert len(str(caught.value)) < 300


def test_a_broken_video_is_refused_without_being_spelled_out():
    with (
        pytest.raises(VideoError, match=r"^video data:video/mp4;base64,\w+\.\.\. is broken") as caught,
        open_video(url_of(bytes(range(256)) * 16, "video/mp4")),
    ):
        pass
    assert len(str(caught.value)) < 300


def test_a_processor_names_the_record_of_a_broken_data_url(make_processor):
    turns = (Turn("user", (Image("data:image/png;base64,AAAA"), Text("q"))), Turn("assistant", (Text("a"),)))
    with pytest.raises(RecordError, match=r"^a.json, record 7: image data:image/png;base64,AAAA is filled with"):
        make_processor().measure(Conversation(turns, RecordId("a.json", 7)))


@pytest.mark.parametrize("suffix", ["png", "jpeg", "gif", "webp", "bmp", "tiff", "avif"])
def test_bytes_and_raw_base64_of_an_image_become_a_data_url_of_their_kind(suffix):
    file = io.BytesIO()
    PIL.Image.linear_gradient("L").resize((9, 7)).convert("RGB").save(file, suffix)
    body, text = file.getvalue(), base64.b64encode(file.getvalue()).decode()
    wrapped = "\n".join(text[start : start + 76] for start in range(0, len(text), 76))
    url = data_url_of(body)
    assert url == url_of(body, f"image/{suffix}") == data_url_of(text) == data_url_of(f" {wrapped}\n")
    assert open_image(url).size == (9, 7)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"BM is no image",
        b"<html>",
        "",
        "iVBORw0KGgo=",
        "/9j/images/train/2014/abcdefghijklmnopqrstuvwxyz/0001.jpg",
        "QkImages/train/2014/abcdefghijklmnopqrstuvwxyz/000100",
        "images/train/abcdefghijklmnopqrstuvwxyz/0123456789/a",
        "data:image/png;base64," + "A" * 60,
        "图" * 60,
        "iVBORw0KGgo" + "A" * 60 + "*",
        "A question of more than forty-eight characters, as records have.",
    ],
)
def test_what_does_not_begin_as_an_image_does_or_is_short_is_none(content):
    assert data_url_of(content) is None
