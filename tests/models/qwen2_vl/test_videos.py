import json

import numpy as np
import pytest

from paddlemix.conversation import Conversation, Image, RecordId, Text, Turn, Video, VideoSettings
from paddlemix.media.frames import VideoInfo
from paddlemix.models.qwen2_vl.chat_template import Qwen2VLChatTemplate
from paddlemix.models.qwen2_vl.images import Qwen2VLImageProcessor
from paddlemix.models.qwen2_vl.processing import Qwen2VLProcessor
from paddlemix.models.qwen2_vl.tokenizer import Qwen2Tokenizer
from paddlemix.models.qwen2_vl.videos import Qwen2VLVideoProcessor
from paddlemix.processors import Qwen25VLProcessor

BOUNDS = {"min_pixels": 28 * 28, "max_pixels": 2 * 28 * 28}
STEPS = {"even": 2, "odd": 3, "one": 1, "grown": 1, "kept": 2}


@pytest.mark.parametrize("name", STEPS)
def test_patches_and_grids_of_frames_are_bit_equal_to_transformers(video_reference, name):
    with np.load(video_reference / "videos.npz") as arrays:
        frames, pixels, grid = (
            arrays[f"{name}/{kind}"] for kind in ("frames", "pixel_values_videos", "video_grid_thw")
        )
    count, height, width, _ = frames.shape
    processor = Qwen2VLVideoProcessor(**BOUNDS)
    plan = processor.plan(VideoInfo(count, None, width, height, is_sampled=True))
    assert [[*plan.grid]] == grid.tolist()
    assert plan.grid[0] == STEPS[name]
    assert ((plan.height, plan.width) == (height, width)) == (name == "kept")
    patches = processor.patches(iter(frames), plan)
    assert patches.dtype == np.float32
    np.testing.assert_array_equal(patches, pixels)


@pytest.mark.parametrize(
    ("prompt", "processor_class", "rates"),
    [("prompt", Qwen2VLProcessor, (None, None)), ("timed_prompt", Qwen25VLProcessor, (3.0, 0.75))],
)
def test_a_prompt_with_videos_and_an_image_is_what_transformers_makes_of_it(
    video_reference, processor_reference, prompt, processor_class, rates
):
    processor = processor_class(
        Qwen2Tokenizer.from_pretrained(processor_reference),
        Qwen2VLImageProcessor(),
        Qwen2VLChatTemplate(),
        Qwen2VLVideoProcessor(**BOUNDS),
    )
    settings = [VideoSettings(fps=rate) for rate in rates]
    odd = Video(tuple(str(video_reference / f"odd_{number}.png") for number in range(5)), settings[0])
    one = Video((str(video_reference / "one_0.png"),), settings[1])
    turn = Turn("user", (odd, Image(str(processor_reference / "rgb.png")), Text("有几只猫?"), one))
    sample = processor.encode_prompt(Conversation((turn,), RecordId("the prompt", 0)))
    with np.load(video_reference / f"{prompt}.npz") as expected:
        assert expected["video_grid_thw"].tolist()[0][0] == 3
        if rates[0]:
            assert len(np.unique(expected["second_per_grid_ts"])) == 2
        assert {*sample.media, "input_ids", "attention_mask", "position_ids"} == set(expected)
        for name, array in sample.media.items():
            np.testing.assert_array_equal(array, expected[name], err_msg=name)
        np.testing.assert_array_equal(sample.input_ids, expected["input_ids"][0])
        np.testing.assert_array_equal(sample.position_ids, expected["position_ids"][:, 0])


def test_an_odd_count_repeats_its_last_frame():
    processor = Qwen2VLVideoProcessor(**BOUNDS)
    frames = np.random.default_rng(0).integers(0, 256, (3, 28, 56, 3), dtype=np.uint8)
    odd, even = (
        processor.patches(iter(shown), processor.plan(VideoInfo(len(shown), None, 56, 28, is_sampled=True)))
        for shown in (frames, np.concatenate([frames, frames[-1:]]))
    )
    np.testing.assert_array_equal(odd, even)


def test_a_frame_is_drawn_only_when_those_before_it_are_resized():
    """Otherwise hundreds of large frames would stand in memory at once."""
    processor = Qwen2VLVideoProcessor(**BOUNDS)
    alive, most = 0, 0

    class Frame(np.ndarray):
        def __del__(self):
            nonlocal alive
            alive -= self.base is None

    def frames():
        nonlocal alive, most
        for _ in range(6):
            frame = Frame((280, 280, 3), dtype=np.uint8)
            alive += 1
            most = max(most, alive)
            yield frame
            del frame

    processor.patches(frames(), processor.plan(VideoInfo(6, None, 280, 280, is_sampled=True)))
    assert 1 <= most <= 2


class TestSettings:
    def test_a_videos_own_settings_go_before_the_processors(self):
        processor = Qwen2VLVideoProcessor(nframes=4, min_pixels=784)
        assert processor.with_settings(VideoSettings(nframes=6, max_frames=8)).nframes == 6
        own = processor.with_settings(VideoSettings(fps=1.0, min_pixels=1568))
        assert (own.nframes, own.fps, own.min_pixels) == (None, 1.0, 1568)
        assert processor.with_settings(VideoSettings()) == processor

    def test_one_bound_that_crosses_the_other_moves_it_along(self):
        lowered = Qwen2VLVideoProcessor().with_settings(VideoSettings(max_pixels=50_000, max_frames=2))
        assert (lowered.min_pixels, lowered.min_frames) == (50_000, 2)
        raised = Qwen2VLVideoProcessor().with_settings(VideoSettings(min_pixels=700_000, min_frames=1000))
        assert (raised.max_pixels, raised.max_frames) == (700_000, 1000)
        for bounds in ({"min_pixels": 2000, "max_pixels": 1000}, {"min_frames": 8, "max_frames": 4}):
            with pytest.raises(ValueError, match="more than `max_"):
                Qwen2VLVideoProcessor().with_settings(VideoSettings(**bounds))

    @pytest.mark.parametrize("settings", [{}, {"nframes": 8}, {"fps": 0.5, "max_frames": 16, **BOUNDS}])
    def test_settings_come_back_as_they_were_saved(self, settings):
        processor = Qwen2VLVideoProcessor(**settings, image_mean=(0.5, 0.5, 0.5))
        published = json.loads(json.dumps(processor.to_published()))
        assert Qwen2VLVideoProcessor.from_published(published) == processor
        assert ("fps" in published) != ("num_frames" in published), "transformers refuses both at once"

    def test_the_images_bounds_in_a_file_that_transformers_saved_are_passed_over(self):
        values = {"size": {"shortest_edge": 3136, "longest_edge": 12845056}, "fps": None, "min_frames": 4}
        assert Qwen2VLVideoProcessor.from_published(values) == Qwen2VLVideoProcessor()
        chosen = {"size": {"shortest_edge": 3136, "longest_edge": 50_176}}
        assert Qwen2VLVideoProcessor.from_published(chosen).max_pixels == 50_176

    def test_patches_are_cut_as_those_of_the_images(self):
        images = Qwen2VLImageProcessor(merge_size=1, image_mean=(0, 0, 0), max_pixels=4000)
        videos = Qwen2VLVideoProcessor.beside(images)
        assert (videos.merge_size, videos.image_mean) == (1, (0, 0, 0))
        assert videos.max_pixels == Qwen2VLVideoProcessor().max_pixels
