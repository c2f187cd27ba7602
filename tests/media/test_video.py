"""Videos are written by the tests themselves, with whichever of PyAV and OpenCV is at hand."""

import os
from contextlib import contextmanager
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from paddlemix.media import fetch as fetch_module
from paddlemix.media import video as video_module
from paddlemix.media.images import open_image
from paddlemix.media.video import VideoError, open_video

needs_pyav = pytest.mark.skipif(not find_spec("av"), reason="PyAV is not installed")
needs_opencv = pytest.mark.skipif(not find_spec("cv2"), reason="OpenCV is not installed")
DECODERS = [pytest.param("av", marks=needs_pyav), pytest.param("cv2", marks=needs_opencv)]


def scene(count, width, height):
    """uint8[T, H, W, 3]: a smooth image that moves to the left, 40 grey levels brighter with each frame of four."""
    start = np.asarray(Image.linear_gradient("L").rotate(45).resize((width, height)))
    frames = np.stack([np.roll(start, 3 * place, axis=1) // 2 + 32 * (place % 4) for place in range(count)])
    return np.stack([frames, frames[:, ::-1], 255 - frames], axis=-1).astype(np.uint8)


@pytest.fixture
def save_video(tmp_path):
    """Writes a video with PyAV and gives its path."""
    av = pytest.importorskip("av", reason="PyAV writes these videos")

    def save(name, count, width=64, height=48, codec="mpeg4", rotation=None, rate=10, pixels="yuv420p", options=None):
        path = str(tmp_path / name)
        with av.open(path, "w", options=options or {}) as container:
            stream = container.add_stream(codec, rate=rate)
            stream.width, stream.height, stream.pix_fmt = width, height, pixels
            if rotation is not None:
                stream.set_display_rotation(rotation)
            container.start_encoding()
            for frame in scene(count, width, height) if count else ():
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            if count:
                container.mux(stream.encode())
        return path

    return save


@pytest.fixture(params=DECODERS)
def decoder(request, monkeypatch):
    """The only decoder that is installed, as far as paddlemix can tell."""
    only(request.param, monkeypatch)
    return request.param


def only(name, monkeypatch):
    monkeypatch.setattr(video_module, "find_spec", lambda asked: find_spec(asked) if asked == name else None)


def read(path, indices=None):
    with open_video(path) as video:
        places = range(video.info.frames) if indices is None else indices
        return video.info, np.stack(list(video.read(places)))


def refusal(path):
    with pytest.raises(VideoError) as error:
        read(path)
    message = str(error.value)
    assert message.startswith(f"video {path} ")
    assert message.endswith(".") and not message.endswith("..")
    assert "\n" not in message
    assert "0x" not in message.replace(str(path), "")
    return message


def frames_or_refusal(path):
    """Read all frames, or give why they cannot be read; any other end is a failure."""
    try:
        info, frames = read(path)
    except VideoError:
        return refusal(path)
    assert len(frames) == info.frames
    return ""


@pytest.mark.parametrize("count", [8, 7, 1], ids=["even", "odd", "one"])
def test_header_and_frames_are_those_that_were_written(save_video, decoder, count):
    info, frames = read(save_video("a.mp4", count))
    assert (info.frames, info.rate, info.width, info.height, info.is_sampled) == (count, 10, 64, 48, False)
    assert frames.shape == (count, 48, 64, 3)
    # Lossy coding: a frame is off by a few levels, its neighbours by dozens.
    errors = [np.abs(frames.astype(int) - np.roll(scene(count, 64, 48), by, axis=0)).mean() for by in (0, 1)]
    assert errors[0] < 8
    assert count == 1 or errors[1] > 20


@needs_opencv
@needs_pyav
@pytest.mark.parametrize(
    ("name", "codec", "size", "pixels"),
    [
        ("a.mp4", "mpeg4", (64, 48), "yuv420p"),
        ("a.avi", "mjpeg", (64, 48), "yuvj420p"),
        ("odd.avi", "mjpeg", (61, 47), "yuvj420p"),
        ("half.avi", "mjpeg", (62, 47), "yuvj422p"),
        ("a.mkv", "mpeg4", (64, 48), "yuv420p"),
        ("a.ts", "mpeg2video", (64, 48), "yuv420p"),
    ],
)
def test_opencv_gives_the_same_frames_as_pyav(save_video, monkeypatch, name, codec, size, pixels):
    path = save_video(name, 9, *size, codec=codec, pixels=pixels, rate=25)
    results = []
    for decoder in ("av", "cv2"):
        only(decoder, monkeypatch)
        results.append(read(path, [0, 3, 4, 8]))
    (info, frames), (other_info, other_frames) = results
    assert info == other_info
    assert info.frames == 9
    np.testing.assert_array_equal(frames, other_frames)
    assert frames.shape == (4, size[1], size[0], 3)


def test_the_frames_asked_for_are_those_at_their_places(save_video, decoder):
    path = save_video("a.mp4", 9)
    _, every = read(path)
    _, some = read(path, [1, 2, 5])
    np.testing.assert_array_equal(some, every[[1, 2, 5]])
    assert not np.array_equal(every[1], every[2])


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_a_turned_video_is_shown_upright(save_video, decoder, rotation):
    _, plain = read(save_video("plain.mp4", 3))
    info, turned = read(save_video("turned.mp4", 3, rotation=rotation))
    np.testing.assert_array_equal(turned, np.rot90(plain, rotation // 90, axes=(1, 2)))
    assert (info.height, info.width) == turned.shape[1:3]


class TestBadVideos:
    def test_a_missing_video_is_named(self, tmp_path, decoder):
        assert refusal(str(tmp_path / "a.mp4")).endswith("does not exist.")

    @pytest.mark.parametrize(
        ("content", "told"),
        [
            (b"", "is empty: it has no bytes"),
            (b"<html>no video</html>", "is an HTML page"),
            (bytes(5000), "is filled with zero bytes"),
            (bytes(range(256)) * 20, "in no format that"),
        ],
        ids=["zero bytes", "page", "zeros", "noise"],
    )
    def test_what_is_no_video_is_told(self, tmp_path, decoder, content, told):
        path = tmp_path / "视频.mp4"
        path.write_bytes(content)
        assert told in refusal(str(path))

    @pytest.mark.parametrize(("name", "codec"), [("a.mp4", "mpeg4"), ("a.avi", "mjpeg")])
    def test_a_truncated_video_is_told(self, save_video, decoder, name, codec):
        path = save_video(name, 40, codec=codec, pixels="yuvj420p" if codec == "mjpeg" else "yuv420p")
        os.truncate(path, os.path.getsize(path) // 2)
        refusal(path)

    @needs_pyav
    def test_a_video_with_fewer_frames_than_its_header_says_is_told_with_both_numbers(self, save_video, monkeypatch):
        path = save_video("a.mp4", 20)
        from paddlemix.media import video_pyav

        monkeypatch.setattr(video_pyav, "_count_in_header", lambda _: 23)
        assert "is cut off or broken: 20 of its 23 frames can be decoded." in refusal(path)

    @needs_pyav
    def test_two_frames_too_many_in_a_header_are_made_up_for_with_a_warning(self, save_video, monkeypatch, caplog):
        path = save_video("a.mp4", 20)
        _, every = read(path)
        from paddlemix.media import video_pyav

        monkeypatch.setattr(video_pyav, "_count_in_header", lambda _: 22)
        _, frames = read(path, [0, 18, 20, 21])
        np.testing.assert_array_equal(frames, every[[0, 18, 19, 19]])
        assert "has 20 frames, not the 22 of its header" in caplog.text

    @pytest.mark.parametrize("name", ["a.avi", "a.mp4", "a.mkv"])
    def test_a_video_of_no_frames_is_told(self, save_video, decoder, name):
        message = refusal(save_video(name, 0))
        assert any(told in message for told in ("has no frames", "holds no video stream", "in no format that"))

    def test_a_playlist_is_refused(self, tmp_path, save_video, decoder):
        """A playlist would let whoever wrote it choose files on this machine, or addresses."""
        save_video("inner.ts", 9, codec="mpeg2video")
        for name, text in (
            ("list.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3.0,\ninner.ts\n#EXT-X-ENDLIST\n"),
            ("list.ffconcat", "ffconcat version 1.0\nfile inner.ts\n"),
        ):
            (tmp_path / name).write_text(text)
            refusal(str(tmp_path / name))

    def test_frames_too_large_or_too_narrow_are_refused_before_any_is_decoded(self, save_video, decoder, monkeypatch):
        path = save_video("a.mp4", 3, width=256, height=2)
        monkeypatch.setattr("paddlemix.media.images.MAX_ASPECT_RATIO", 127)
        assert "is 256 x 2; sides may differ by a factor of 127." in refusal(path)
        monkeypatch.setattr("paddlemix.media.images.MAX_PIXELS", 511)
        assert "has 256 x 2 pixels; at most 511 are read." in refusal(path)

    def test_without_a_decoder_both_are_named(self, save_video, monkeypatch):
        path = save_video("a.mp4", 3)
        only("none", monkeypatch)
        with pytest.raises(ImportError, match="PyAV or OpenCV"):
            read(path)


class TestFrameFiles:
    def test_they_are_shown_in_their_order(self, save_image):
        paths = tuple(save_image(40, 30, name) for name in ("b.png", "a.png"))
        with Image.open(paths[0]) as image:
            image.transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(paths[1])
        info, frames = read(paths)
        assert (info.frames, info.rate, info.width, info.height, info.is_sampled) == (2, None, 40, 30, True)
        np.testing.assert_array_equal(frames[1], frames[0][::-1])
        assert not np.array_equal(frames[0], frames[1])

    def test_frames_of_other_sizes_are_told_with_the_first_file_of_each(self, save_image):
        paths = (save_image(40, 30), save_image(30, 40), save_image(30, 40, "c.png"), save_image(40, 30, "d.png"))
        info, _ = read(paths, [0])
        assert info.other_sizes == {(30, 40): paths[1]}

    def test_a_frame_that_cannot_be_opened_and_an_empty_list_are_told(self, save_image, tmp_path):
        missing = str(tmp_path / "none.png")
        with pytest.raises(
            VideoError, match=r"^video of the frames .* cannot be shown: image .*none.png does not exist"
        ):
            read((save_image(40, 30), missing))
        with pytest.raises(VideoError, match="has no frames"):
            read(())


class TestFolders:
    def test_its_images_are_the_frames_in_natural_order(self, save_image, tmp_path):
        folder = tmp_path / "clip"
        folder.mkdir()
        for number in (1, 2, 10):
            Image.new("RGB", (40, 30), (number * 20, 0, 0)).save(folder / f"frame_{number}.png")
        (folder / "times.txt").write_text("0 1 2")
        (folder / ".hidden.png").write_bytes(b"")
        info, frames = read(str(folder))
        assert (info.frames, info.is_sampled) == (3, True)
        assert frames[:, 0, 0, 0].tolist() == [20, 40, 200]

    @pytest.mark.parametrize(("file", "told"), [(None, "is an empty folder"), ("a.txt", "holds 1 files but no image")])
    def test_one_without_images_says_so(self, tmp_path, file, told):
        folder = tmp_path / "clip"
        folder.mkdir()
        if file:
            (folder / file).write_text("no image")
        assert f"clip {told}; expected the images of its frames (.jpg, " in refusal(str(folder))


def animated(path, count=4, delays=100, **options):
    """Writes frames of 64 x 48 pixels that differ, and gives the path and uint8[T, H, W, 3]."""
    frames = scene(count, 64, 48)
    first, *others = map(Image.fromarray, frames)
    first.save(path, save_all=True, append_images=others, duration=delays, **options)
    return str(path), frames


class TestImageFiles:
    @pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.gif", "a.bmp", "a.tiff"])
    def test_a_still_image_is_a_video_of_one_frame_and_looks_as_an_image_does(self, decoder, tmp_path, name):
        path = tmp_path / name
        Image.fromarray(scene(1, 64, 48)[0]).save(path)
        info, frames = read(str(path))
        assert (info.frames, info.rate, info.width, info.height) == (1, None, 64, 48)
        np.testing.assert_array_equal(frames[0], np.asarray(open_image(str(path))))

    @pytest.mark.parametrize("name", ["a.gif", "a.png", "a.webp"])
    def test_all_frames_of_an_animated_image_are_read_at_their_rate(self, decoder, tmp_path, name):
        path, frames = animated(tmp_path / name, **({"lossless": True} if name == "a.webp" else {}))
        info, found = read(path)
        assert (info.frames, info.rate) == (4, pytest.approx(10))
        # A GIF has 256 colours.
        assert np.abs(found.astype(int) - frames).max() < (40 if name == "a.gif" else 1)
        np.testing.assert_array_equal(read(path, [1, 3])[1], found[[1, 3]])

    def test_a_delay_too_short_to_be_meant_counts_as_a_tenth_of_a_second(self, tmp_path):
        info, _ = read(animated(tmp_path / "a.gif", delays=[0, 10, 300, 500])[0])
        assert info.rate == pytest.approx(4)

    @pytest.mark.parametrize("name", ["a.gif", "a.png", "a.webp", "a.jpg"])
    def test_half_of_one_is_refused(self, decoder, tmp_path, name):
        path = tmp_path / name
        if name == "a.jpg":
            Image.fromarray(scene(1, 64, 48)[0]).save(path)
        else:
            animated(path)
        os.truncate(path, os.path.getsize(path) // 2)
        refusal(str(path))


class TestDamage:
    """What was written whole and changed afterwards, on a disk or on its way."""

    @pytest.fixture
    def damaged(self, save_video):
        """Writes 60 frames, changes a byte, and gives the path."""

        def save(place):
            path = save_video("a.mp4", 60, 160, 120)
            with open(path, "r+b") as file:
                file.seek(place)
                byte = file.read(1)[0]
                file.seek(place)
                file.write(bytes([byte ^ 0x40]))
            return path

        return save

    @needs_pyav
    def test_a_frame_that_the_decoder_marks_as_corrupt_is_refused_and_so_is_what_builds_on_it(self, damaged):
        refused = shown = 0
        for place in range(800, 3200, 60):
            path = damaged(place)
            problem = frames_or_refusal(path)
            refused, shown = refused + bool(problem), shown + (not problem)
        assert refused > 5 and shown > 5

    @needs_pyav
    def test_a_stretch_without_the_damage_is_shown(self, save_video, monkeypatch):
        path = save_video("a.mp4", 40)
        from paddlemix.media import video_pyav

        class Marked:
            def __init__(self, frame, place):
                self.frame, self.is_corrupt, self.key_frame = frame, place == 5, place in (0, 9)
                self.width, self.height = frame.width, frame.height

        monkeypatch.setattr(video_pyav, "_upright", lambda frame: getattr(frame, "frame", frame).to_ndarray())
        real = video_pyav.PyAVVideo._stream

        @contextmanager
        def marking(self):
            with real(self) as stream:
                frames = (Marked(frame, place) for place, frame in enumerate(stream.container.decode(stream)))
                yield SimpleNamespace(container=SimpleNamespace(decode=lambda _: frames))

        with open_video(path) as video:
            monkeypatch.setattr(video_pyav.PyAVVideo, "_stream", marking)
            assert len(list(video.read([0, 4, 9, 20]))) == 4
            for place in (5, 8):
                with pytest.raises(VideoError, match=f"is damaged: its frame {place} cannot be decoded as it was"):
                    list(video.read([place]))

    @pytest.mark.parametrize("name", ["a.mkv", "a.avi", "a.ts", "a.mp4"])
    def test_half_of_a_video_is_refused_where_its_header_tells(self, save_video, decoder, name):
        path = save_video(name, 60, 160, 120)
        with open(path, "r+b") as file:
            file.truncate(os.path.getsize(path) // 2)
        if name == "a.ts":  # has no header that could tell
            assert read(path)[0].frames < 60
        else:
            refusal(path)

    @pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
    def test_a_video_whose_header_stands_at_the_front_is_refused_by_the_frames_that_are_missing(
        self, save_video, decoder, share
    ):
        path = save_video("a.mp4", 60, 160, 120, options={"movflags": "faststart"})
        os.truncate(path, int(os.path.getsize(path) * share))
        refusal(path)

    def test_random_changes_to_a_video_end_in_frames_or_in_a_refusal(self, save_video, decoder):
        path = save_video("a.mp4", 12)
        with open(path, "rb") as file:
            whole = file.read()
        random = np.random.default_rng(0)
        for _ in range(60):
            changed = bytearray(whole)
            for place in random.integers(len(whole), size=random.integers(1, 4)):
                changed[place] ^= 1 << random.integers(8)
            with open(path, "wb") as file:
                file.write(changed)
            frames_or_refusal(path)


class TestSound:
    @pytest.mark.parametrize("name", ["a.mp3", "a.m4a", "a.wav"])
    def test_a_file_of_sound_alone_is_refused(self, tmp_path, decoder, name):
        path = str(tmp_path / name)
        save_sound(path)
        is_told = decoder == "av" or name != "a.m4a"  # which only its tables tell from a video
        told = "holds no video stream, only sound" if is_told else "in no format that OpenCV reads"
        assert told in refusal(path)

    def test_the_image_of_its_cover_is_no_video(self, tmp_path):
        av = pytest.importorskip("av")
        path, cover = str(tmp_path / "a.mp3"), tmp_path / "cover.png"
        Image.new("RGB", (64, 64), "red").save(cover)
        save_sound(path, cover)
        with av.open(path) as container:
            assert container.streams.video, "the cover is a stream of its own"
        assert "holds no video stream, only sound" in refusal(path)


def save_sound(path, cover=None):
    """Writes a second of silence, with an image as the cover."""
    av = pytest.importorskip("av", reason="PyAV writes these files")
    codec = {"mp3": "mp3", "m4a": "aac", "wav": "pcm_s16le"}[path.rsplit(".", 1)[1]]
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, rate=44_100, layout="mono")
        if cover:
            with av.open(str(cover)) as image:
                shown = container.add_stream_from_template(image.streams.video[0])
                shown.disposition = av.stream.Disposition.attached_pic
                packets = [packet for packet in image.demux(video=0) if packet.size]
        container.start_encoding()
        if cover:
            for packet in packets:
                packet.stream = shown
                container.mux(packet)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 44_100), np.int16), format="s16", layout="mono")
        silence.rate = 44_100
        for packet in (*stream.encode(silence), *stream.encode()):
            container.mux(packet)


class TestAddresses:
    def test_a_video_behind_an_address_is_read(self, save_video, decoder, monkeypatch):
        path = save_video("a.mp4", 5)
        with open(path, "rb") as file:
            body = file.read()
        monkeypatch.setattr(video_module, "fetch_kept", lambda address, **_: body)
        np.testing.assert_array_equal(read("https://somewhere/a.mp4")[1], read(path)[1])

    def test_bounds_are_those_of_videos(self, monkeypatch):
        seen = {}
        monkeypatch.setattr(video_module, "fetch_kept", lambda address, **bounds: seen.update(bounds) or b"")
        refusal_of_nothing = pytest.raises(VideoError, match="^video http://a/b.mp4 is empty")
        with refusal_of_nothing:
            read("http://a/b.mp4")
        assert (seen["max_bytes"], seen["max_seconds"]) == (256 * 2**20, 60)
        assert "is an HTML page" in seen["check"](b"<!DOCTYPE html>") and seen["check"](b"\0\0\0\x18ftypmp42") is None

    def test_an_inner_address_is_refused_in_one_sentence(self):
        assert "not globally reachable" in refusal("http://127.0.0.1:9/a.mp4")

    def test_a_server_that_is_silent_is_given_up_long_before_the_bound_of_videos(self, monkeypatch):
        def wait(*_):
            raise fetch_module.httpcore.ReadTimeout("silent")

        monkeypatch.setattr(fetch_module, "_read_patiently", wait)
        assert refusal("http://8.8.8.8/a.mp4").endswith("took longer than 10 s.")
