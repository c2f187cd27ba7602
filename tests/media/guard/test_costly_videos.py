"""Videos that cost far more than they hold, and texts that FFmpeg would take for videos, are refused by their heads."""

import struct
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from paddlemix.media import video as video_module
from paddlemix.media.frames import VideoError
from paddlemix.media.guard.containers import CONTAINERS, container_of
from paddlemix.media.video import open_video
from paddlemix.media.video_limits import check_size

from .bounded import refusal_of, run
from .fuzz_media import video_of

pytestmark = pytest.mark.skipif(not find_spec("av"), reason="PyAV is not installed: it writes these videos")
DECODERS = [name for name in ("av", "cv2") if find_spec(name)]


@pytest.fixture(params=DECODERS, autouse=True)
def decoder(request, monkeypatch, tmp_path):
    """The only decoder that is installed, as far as paddlemix can tell; loaded before memory is counted."""
    monkeypatch.setattr(video_module, "find_spec", lambda asked: find_spec(asked) if asked == request.param else None)
    Path(tmp_path, "warm.mp4").write_bytes(ordinary("a.mp4"))
    with open_video(str(tmp_path / "warm.mp4")):
        return request.param


CODECS = {"a.mp4": "mpeg4", "a.mkv": "mpeg4", "a.avi": "mpeg4", "a.ts": "mpeg2video", "a.flv": "flv", "a.mov": "mjpeg",
          "a.webm": "libvpx", "a.mpg": "mpeg1video", "a.wmv": "wmv2"}  # fmt: skip
_MADE: dict[str, bytes] = {}


def ordinary(name):
    """The bytes of a video of ten frames."""
    if name not in _MADE:
        _MADE[name] = video_of(name, CODECS[name])
    return _MADE[name]


def patched(body, table, at, layout, *values):
    """Write numbers into a table of an MP4, `at` bytes behind the beginning of its name."""
    place = body.index(table) + at
    return body[:place] + struct.pack(layout, *values) + body[place + struct.calcsize(layout) :]


def of_samples(count):
    """An MP4 whose tables count samples of one byte, all of one length."""
    body = patched(ordinary("a.mp4"), b"stsz", 8, ">II", 1, count)
    body = patched(body, b"stts", 12, ">I", count)
    return patched(body, b"stsc", 16, ">I", count)


def box(kind, content):
    return struct.pack(">I", len(content) + 8) + kind + content


def element(kind, content):
    return bytes.fromhex(kind) + struct.pack(">Q", len(content) | 1 << 56) + content


def mkv_with(content):
    """An MKV with elements before all others in its segment."""
    body = ordinary("a.mkv")
    start = body.index(bytes.fromhex("18538067"))
    return body[:start] + bytes.fromhex("1853806701ffffffffffffff") + content + body[start + 12 :]


PARTS = box(b"moof", b"") * 200_000


def with_a_table(size, head=b""):
    """An MP4 whose track has a second table behind it, of a size that tells 64 bits, up to the end, or more."""
    body = ordinary("a.mp4")
    start = body.index(b"moov") - 4
    table = struct.pack(">I", size) + b"stts" + head + struct.pack(">IIII", 0, 1, 1 << 31, 1)
    moov = body[start : start + int.from_bytes(body[start : start + 4], "big")]
    return body.replace(moov, struct.pack(">I", len(moov) + len(table)) + moov[4:] + table)


REFUSED = {
    "an index far longer than the file": (
        lambda: of_samples(1 << 25),
        "a table counts 33554432 samples in a file of",
    ),
    "a table of one entry that stands for many": (
        lambda: patched(ordinary("a.mp4"), b"stts", 12, ">I", 1 << 31),
        "is broken: a table counts 2147483648 samples",
    ),
    "a table of more entries than bytes": (
        lambda: patched(ordinary("a.mp4"), b"stsz", 12, ">I", 1 << 30),
        "is broken: a table counts 1073741824 samples",
    ),
    "an index longer than what is read": (
        lambda: of_samples(5_000_000) + bytes(5_000_000),
        "counts 5000000 samples in its tables; at most 4000000 are read",
    ),
    "compressed tables": (
        lambda: box(b"ftyp", b"qt  ") + box(b"moov", box(b"cmov", bytes(100))),
        "is a MOV with compressed tables",
    ),
    "a table with a size of 64 bits": (
        lambda: with_a_table(1, struct.pack(">Q", 32)),
        "is broken: a table counts 2147483648 samples",
    ),
    "a table up to the end": (lambda: with_a_table(0), "is broken: a table counts 2147483648 samples"),
    "a table larger than its box": (lambda: with_a_table(4000), "is broken: a table counts 2147483648 samples"),
    "many small boxes": (
        lambda: box(b"ftyp", b"isom") + box(b"moov", box(b"trak", box(b"free", b"") * 1_000_000)),
        "has more than 100000 boxes",
    ),
    "many parts": (lambda: ordinary("a.mp4") + PARTS, "has more than 100000 boxes"),
    "many tags": (
        lambda: mkv_with(element("1254c367", element("7373", b"\x67\xc8\x80" * 500_000))),
        "bytes of one kind of metadata; at most 1048576 are read",
    ),
    "many attachments": (
        lambda: mkv_with(element("1941a469", element("61a7", b"") * 10_000)),
        "has more than 256 attachments",
    ),
    "many elements": (lambda: mkv_with(b"\xec\x80" * 2_000_000), "has more than 100000 parts"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_costly_video_is_refused_by_its_tables(tmp_path, what):
    make, problem = REFUSED[what]
    path = tmp_path / "a.mp4"
    path.write_bytes(make())
    told = refusal_of(lambda: open_video(str(path)).__enter__(), VideoError)
    assert told.startswith(f"video {path} ") and problem in told


TEXTS = {
    "concat": "ffconcat version 1.0\nfile secret.mp4\n",
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret.mp4\n#EXT-X-ENDLIST\n",
    "dash": '<?xml version="1.0"?>\n<MPD><Period><BaseURL>secret.mp4</BaseURL></Period></MPD>\n',
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=a\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n",
    "screen": "\x1b[2J\x1b[1;1H\x1b[31mtext that is drawn\r\n\x1b[0m" * 50,
    "screen with bytes": "\x1b[2J\x1b[31m\xb0\xb1\xb2\x00\x01" * 50,
    "subtitles": "1\n00:00:01,000 --> 00:00:02,000\ntext\n",
    "y4m": "YUV4MPEG2 W64 H64 F25:1 Ip A0:0 C420\nFRAME\n" + "\0" * 6144,
    "yuv": "\x80" * 40000,
}


@pytest.mark.parametrize("suffix", ["mp4", "ans", "nfo", "txt", "m3u8", "ffconcat", "yuv", "sdp"])
@pytest.mark.parametrize("kind", TEXTS)
def test_texts_are_no_videos(tmp_path, kind, suffix):
    (tmp_path / "secret.mp4").write_bytes(ordinary("a.mp4"))
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(TEXTS[kind].encode("latin-1"))
    told = refusal_of(lambda: open_video(str(path)).__enter__(), VideoError)
    assert told.startswith(f"video {path} ")


def test_what_begins_as_a_container_and_names_other_files_opens_none(tmp_path):
    (tmp_path / "secret.mp4").write_bytes(ordinary("a.mp4"))
    path = tmp_path / "a.ffconcat"
    for head in (b"\0\0\0\x10ftypisom\0\0\0\0", b"OggS", b"OggS\0", b"FLV\x01", b"\x1aE\xdf\xa3"):
        path.write_bytes(head + b"\nffconcat version 1.0\nfile secret.mp4\n")
        assert run(lambda: open_video(str(path)).__enter__(), VideoError, 20).kind == "refused"


@pytest.mark.parametrize("name", CODECS)
def test_ordinary_videos_are_read(tmp_path, name):
    path = tmp_path / "named.otherwise"
    path.write_bytes(ordinary(name))
    assert container_of(path.read_bytes()[:400]) in CONTAINERS
    with open_video(str(path)) as video:
        frames = list(video.read(range(10)))
        assert video.info.frames == 10 and all(frame.shape == (32, 48, 3) for frame in frames)


def test_an_index_that_points_to_itself_over_and_over_is_not_followed(tmp_path):
    """The list of indexes in an AVI of OpenDML names one index 50,000 times."""
    body = bytearray(ordinary("a.avi"))
    entries = 50_000
    at = body.index(b"strf") + 8 + struct.unpack_from("<I", body, body.index(b"strf") + 4)[0]
    index = b"ix00" + struct.pack("<IHBBI4sQI", 24 + 8 * 1000, 2, 0, 1, 1000, b"00dc", 0, 0)
    index += struct.pack("<II", 8, 100) * 1000
    place = len(body) + 8 + 24 + 16 * entries
    listed = struct.pack("<HBBI4sIII", 4, 0, 0, entries, b"00dc", 0, 0, 0)
    listed += struct.pack("<QII", place, len(index), 1000) * entries
    chunk = b"indx" + struct.pack("<I", len(listed)) + listed
    for kind in (b"strl", b"hdrl"):
        start = body.index(kind) - 4
        struct.pack_into("<I", body, start, struct.unpack_from("<I", body, start)[0] + len(chunk))
    body[at:at] = chunk
    path = tmp_path / "a.avi"
    path.write_bytes(bytes(body) + index)
    outcome = run(lambda: open_video(str(path)).__enter__(), VideoError, 20)
    assert outcome.kind in ("accepted", "refused") and outcome.seconds < 2 and outcome.bytes < 64 << 20, outcome


def test_other_codecs_are_refused(tmp_path, decoder):
    if decoder == "cv2":
        pytest.skip("OpenCV opens whatever codec it has")
    path = tmp_path / "a.avi"
    path.write_bytes(video_of("a.avi", "zmbv", pixels="bgr0"))
    told = "is coded by zmbv, which is not read. Convert it to H.264"
    with pytest.raises(VideoError, match=told), open_video(str(path)):
        pass


def test_a_video_that_changes_its_size_is_refused(tmp_path, decoder):
    if decoder == "cv2":
        pytest.skip("OpenCV scales all frames to the size of the first")
    path = tmp_path / "a.ts"
    path.write_bytes(video_of("a.ts", "mpeg2video") + video_of("a.ts", "mpeg2video", size=(96, 64)))
    told = "changes its size: the first frame has 48 x 32 pixels"
    with pytest.raises(VideoError, match=told), open_video(str(path)) as video:
        list(video.read(range(video.info.frames)))


def test_frames_are_bounded_by_the_highest_levels_of_the_codecs():
    check_size(8192, 4352)
    with pytest.raises(VideoError, match="at most 35651584 are read"):
        check_size(8192, 8192)


class TestTime:
    def test_a_video_that_takes_too_long_is_refused_with_what_to_do(self, tmp_path, monkeypatch):
        monkeypatch.setenv("PADDLEMIX_VIDEO_SECONDS", "1e-6")
        path = tmp_path / "a.mp4"
        path.write_bytes(ordinary("a.mp4"))
        told = "takes longer than 1e-06 s to decode. Cut it up, or raise PADDLEMIX_VIDEO_SECONDS."
        with pytest.raises(VideoError, match=told), open_video(str(path)):
            pass

    @pytest.mark.parametrize("given", ["", "30"])
    def test_an_ordinary_one_is_not(self, tmp_path, monkeypatch, given):
        monkeypatch.setenv("PADDLEMIX_VIDEO_SECONDS", given)
        path = tmp_path / "a.mp4"
        path.write_bytes(ordinary("a.mp4"))
        with open_video(str(path)) as video:
            assert np.stack(list(video.read(range(10)))).shape == (10, 32, 48, 3)

    @pytest.mark.parametrize("given", ["soon", "0", "-1", "nan", "inf"])
    def test_no_number_of_seconds_is_told(self, tmp_path, monkeypatch, given):
        monkeypatch.setenv("PADDLEMIX_VIDEO_SECONDS", given)
        told = f"PADDLEMIX_VIDEO_SECONDS is '{given}'; expected a number of seconds"
        with pytest.raises(VideoError, match=told), open_video(str(tmp_path / "warm.mp4")):
            pass
