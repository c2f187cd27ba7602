"""What a record asks of one image or video acts on that one alone, as in qwen-vl-utils."""

import json
import logging

import numpy as np
import pytest
from PIL import Image as PILImage

from paddlemix.conversation import (
    Conversation,
    Image,
    ImageSettings,
    RecordError,
    RecordId,
    Text,
    Turn,
    Video,
    VideoSettings,
)
from paddlemix.media.frames import VideoError, VideoInfo
from paddlemix.models.qwen2_vl import media as media_module
from paddlemix.models.qwen2_vl.images import MAX_PIXELS, Qwen2VLImageProcessor
from paddlemix.models.qwen2_vl.media import MediaReader
from paddlemix.models.qwen2_vl.videos import Qwen2VLVideoProcessor

MAKES_NO_SENSE = [
    ({"max_pixels": 0}, "`max_pixels` is 0; expected a whole number above 0"),
    ({"min_pixels": -1}, "`min_pixels` is -1; expected a whole number above 0"),
    ({"max_pixels": 1e5}, "`max_pixels` is 100000.0; expected a whole number"),
    ({"max_pixels": True}, "`max_pixels` is True; expected a whole number"),
    ({"min_pixels": 9000, "max_pixels": 8000}, "(a video's )?`min_pixels`.* is 9000, more than `max_pixels`.* 8000"),
    ({"resized_height": 280}, "`resized_width` is None and `resized_height` is 280; set both or none"),
    ({"resized_height": 28, "resized_width": 28_000}, "`resized_width` x `resized_height` is 28000 x 28; sides may"),
]
OF_VIDEOS = [
    ({"start": -1}, "`start` is -1; expected a number from 0 on"),
    ({"end": float("nan")}, "`end` is nan; expected a number"),
    ({"start": 3, "end": 3}, "`start` is 3 s and `end` 3 s; expected `start` before `end`"),
    ({"end": 0}, "`start` is 0 s and `end` 0 s"),
    ({"fps": float("inf")}, "`fps` is inf; expected a number above 0"),
]


def conversation(*parts):
    turns = Turn("user", (*parts, Text("?"))), Turn("assistant", (Text("A."),))
    return Conversation(turns, RecordId("records.json", 7))


def sized(path, **settings):
    return Image(path, ImageSettings(**settings))


class TestImages:
    def test_seen_sizes_are_those_of_the_published_preprocessing(self, video_reference):
        rows = json.loads((video_reference / "sized.json").read_text())
        for row in rows:
            processor = Qwen2VLImageProcessor().with_settings(ImageSettings(**row["settings"]))
            assert [*processor.resized(row["width"], row["height"])] == row["seen"][::-1], row
        assert len(rows) > 20
        assert any(height * width > MAX_PIXELS for height, width in (row["seen"] for row in rows))

    def test_they_act_on_their_image_alone_in_measuring_and_in_encoding(self, make_processor, save_image):
        path = save_image(640, 480)
        shown = (
            Image(path),
            sized(path, resized_height=280, resized_width=420),
            sized(path, min_pixels=50_176, max_pixels=50_176),
            Image(path),
        )
        record, processor = conversation(*shown), make_processor()
        sample, size = processor.encode(record), processor.measure(record)
        grids = sample.media["image_grid_thw"].tolist()
        assert grids[0] == grids[3] == [*processor.image_processor.grid(640, 480)]
        assert grids[1] == [1, 20, 30]
        assert 40_000 < grids[2][1] * grids[2][2] * 14 * 14 <= 50_176
        assert size.tokens == len(sample.input_ids)
        assert size.image_tokens * 4 == len(sample.media["pixel_values"]) == sum(map(np.prod, grids))

    def test_its_patches_are_those_of_a_processor_with_its_bounds(self, make_processor, save_image):
        path = save_image(640, 480)
        own = make_processor().encode(conversation(sized(path, max_pixels=100_352)))
        bounded = make_processor(max_pixels=100_352).encode(conversation(Image(path)))
        np.testing.assert_array_equal(own.media["pixel_values"], bounded.media["pixel_values"])

    def test_one_bound_that_crosses_the_processors_other_moves_it_along(self):
        processor = Qwen2VLImageProcessor(min_pixels=10_000, max_pixels=20_000)
        lowered = processor.with_settings(ImageSettings(max_pixels=5000))
        raised = processor.with_settings(ImageSettings(min_pixels=50_000))
        assert (lowered.min_pixels, lowered.max_pixels) == (5000, 5000)
        assert (raised.min_pixels, raised.max_pixels) == (50_000, 50_000)
        assert processor.with_settings(ImageSettings()) is processor

    def test_a_size_of_its_own_goes_before_the_size_and_the_bounds_of_the_run(self):
        processor = Qwen2VLImageProcessor(max_pixels=100_352, resized_height=56, resized_width=56)
        own = processor.with_settings(ImageSettings(resized_height=560, resized_width=840))
        assert own.resized(640, 480) == (840, 560)
        assert processor.resized(640, 480) == (56, 56)

    @pytest.mark.parametrize(("settings", "told"), MAKES_NO_SENSE)
    def test_what_makes_no_sense_is_refused_with_image_and_record(self, make_processor, save_image, settings, told):
        record = conversation(sized(save_image(64, 48), **settings))
        for act in (make_processor().measure, make_processor().encode):
            with pytest.raises(
                RecordError, match=f"^records.json, record 7: image .*64x48.png cannot be shown as asked: {told}"
            ):
                act(record)


class TestVideos:
    @pytest.fixture
    def clip(self, tmp_path):
        """A GIF of 20 frames, ten a second, whose red grows by ten levels each."""
        path = str(tmp_path / "a.gif")
        first, *others = (PILImage.new("RGB", (64, 48), (10 * number, 0, 0)) for number in range(20))
        first.save(path, save_all=True, append_images=others, duration=100)
        return path

    def shown(self, video, **settings):
        reader = MediaReader(Qwen2VLImageProcessor(), Qwen2VLVideoProcessor(min_pixels=784, max_pixels=3136))
        record = conversation(Video(video, VideoSettings(**settings)))
        media = reader.read(record)
        (clip,), (patches,) = media.sizes.clips, media.video_patches
        assert reader.measure(record).clips == [clip]
        return clip, patches.reshape(clip.grid[0], -1, 3, 2, 14 * 14)

    def test_frames_are_those_of_the_stretch_and_patches_last_as_long_as_in_the_video(self, clip):
        found, patches = self.shown(clip, start=0.5, end=1.6, fps=4)
        # Frames 5 to 16: 12 of ten a second, of which 4 a second are 4.
        assert found.grid[0] == 2 and found.seconds == pytest.approx(2 / (4 / 12 * 10))
        levels = Qwen2VLVideoProcessor()._levels()[0]
        expected = [[levels[10 * frame] for frame in pair] for pair in ((5, 9), (12, 16))]
        np.testing.assert_allclose(patches[:, 0, 0, :, 0], expected, atol=0.02)

    def test_a_size_of_its_own_is_that_of_its_frames(self, clip):
        found, _ = self.shown(clip, nframes=4, resized_height=280, resized_width=420)
        assert (found.grid, found.seen, found.size) == ((2, 20, 30), (420, 280), (64, 48))

    @pytest.mark.parametrize(("settings", "told"), [*MAKES_NO_SENSE, *OF_VIDEOS])
    def test_what_makes_no_sense_is_refused_with_video_and_record(self, make_processor, clip, settings, told):
        record = conversation(Video(clip, VideoSettings(**settings)))
        for act in (make_processor().measure, make_processor().encode):
            with pytest.raises(
                RecordError, match=f"^records.json, record 7: video .*a.gif cannot be shown as asked: {told}"
            ):
                act(record)

    def test_listed_frames_last_as_long_as_their_rate_says(self, save_image):
        frames = tuple(save_image(60, 90, f"{number}.png") for number in range(4))
        assert self.shown(frames, fps=0.5)[0].seconds == 4

    @pytest.mark.parametrize("settings", [{"start": 9}, {"start": 1.01, "end": 1.09}])
    def test_a_stretch_without_frames_is_refused_with_the_video(self, make_processor, clip, settings):
        with pytest.raises(RecordError, match=r"record 7: video .*a\.gif lasts 2\.00 s .* fewer than two frames"):
            make_processor().measure(conversation(Video(clip, VideoSettings(**settings))))

    def test_they_are_no_settings_of_a_checkpoint(self):
        own = Qwen2VLVideoProcessor().with_settings(
            VideoSettings(start=1, end=2, resized_height=280, resized_width=420)
        )
        assert own.to_published() == Qwen2VLVideoProcessor().to_published()
        assert Qwen2VLVideoProcessor.from_published({"start": 1, "resized_height": 28}) == Qwen2VLVideoProcessor()


class TestWarnings:
    @pytest.fixture(autouse=True)
    def new_run(self, monkeypatch):
        monkeypatch.setattr(media_module, "_warned_of", set())

    def test_the_first_video_of_a_run_with_fewer_frames_than_asked_is_named_and_no_other(self, tmp_path, caplog):
        reader = MediaReader(Qwen2VLImageProcessor(), Qwen2VLVideoProcessor(nframes=16))
        for name in ("first.gif", "second.gif"):
            images = [PILImage.new("RGB", (64, 48), (30 * number, 0, 0)) for number in range(5)]
            images[0].save(tmp_path / name, save_all=True, append_images=images[1:], duration=100)
            record = conversation(Video(str(tmp_path / name)))
            with caplog.at_level(logging.WARNING):
                assert reader.measure(record).clips[0].grid[0] == 2
                assert reader.remembering_sizes().read(record).sizes.clips[0].grid[0] == 2
        assert len(caplog.records) == 1
        assert "first.gif has 5 frames to take from, fewer than `nframes` 16; all are taken, an even" in caplog.text

    def test_an_end_behind_the_videos_is_told_once(self, tmp_path, caplog):
        images = [PILImage.new("RGB", (64, 48), (30 * number, 0, 0)) for number in range(5)]
        images[0].save(tmp_path / "a.gif", save_all=True, append_images=images[1:], duration=100)
        reader = MediaReader(Qwen2VLImageProcessor(), Qwen2VLVideoProcessor())
        for _ in range(2):
            reader.measure(conversation(Video(str(tmp_path / "a.gif"), VideoSettings(end=9))))
        assert len(caplog.records) == 1 and "a.gif lasts 0.50 s, but its `end` is 9 s" in caplog.text


class TestFramesOfSeveralSizes:
    LISTED = VideoInfo(3, None, 640, 480, is_sampled=True, other_sizes={(480, 640): "b.png"})

    def test_they_are_refused_with_both_sizes_and_what_to_set(self):
        told = r"the first is 640 x 480, b\.png is 480 x 640\. Make them one size, or set `resized_width`"
        with pytest.raises(VideoError, match=f"^has frames of several sizes: {told}"):
            Qwen2VLVideoProcessor().plan(self.LISTED)

    def test_they_are_shown_where_all_are_resized_to_one(self):
        sized = Qwen2VLVideoProcessor().with_settings(VideoSettings(resized_height=280, resized_width=420))
        assert sized.plan(self.LISTED).grid == (2, 20, 30)
        alike = VideoInfo(3, None, 640, 480, is_sampled=True, other_sizes={(642, 479): "b.png"})
        assert Qwen2VLVideoProcessor().plan(alike).width == 644

    def test_each_is_resized_to_the_size_of_all(self, save_image):
        paths = (save_image(640, 480), save_image(480, 640))
        reader = MediaReader(Qwen2VLImageProcessor(), Qwen2VLVideoProcessor())
        video = Video(paths, VideoSettings(resized_height=56, resized_width=84))
        (patches,) = reader.read(conversation(video)).video_patches
        assert patches.shape == (24, 1176)
        first, second = patches.reshape(24, 3, 2, 196).transpose(2, 0, 1, 3)
        # Both are the same gradient, whatever their shape.
        np.testing.assert_allclose(first, second, atol=0.05)
