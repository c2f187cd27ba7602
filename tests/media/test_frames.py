import json
from zlib import crc32

import numpy as np
import pytest

from paddlemix.conversation import VideoSettings
from paddlemix.media.frames import VideoError, VideoInfo, frame_bounds, frame_count, frame_indices
from paddlemix.models.qwen2_vl.videos import Qwen2VLVideoProcessor


def info(total, rate=25.0, width=64, height=48):
    return VideoInfo(total, rate, width, height)


def plan(settings, *described):
    return Qwen2VLVideoProcessor().with_settings(VideoSettings(**settings)).plan(info(*described))


def test_chosen_frames_and_their_size_are_those_of_the_published_preprocessing(video_reference):
    rows = json.loads((video_reference / "chosen.json").read_text())
    for row in rows:
        described = row["total"], row["rate"], row["width"], row["height"]
        if row["shown"] is None:
            with pytest.raises(VideoError):
                plan(row["settings"], *described)
            continue
        shown = plan(row["settings"], *described)
        checksum = crc32(np.array(shown.indices, dtype="<i8").tobytes())
        assert {"frames": [len(shown.indices), checksum], "size": [shown.height, shown.width]} == row["shown"], row
    assert len(rows) > 150
    assert 10 < sum(row["shown"] is None for row in rows) < 30
    assert len({row["shown"]["frames"][0] for row in rows if row["shown"]}) > 10
    assert len({tuple(row["shown"]["size"]) for row in rows if row["shown"]}) > 10


def test_places_are_rounded_in_single_precision():
    """In long videos float64 rounds some halves to the other neighbour; the test above reaches such a case."""
    differing = [
        (total, count)
        for total in range(50_000, 100_001, 10_000)
        for count in range(2, 769, 2)
        if not np.array_equal(frame_indices(total, count), np.rint(np.linspace(0, total - 1, count)))
    ]
    assert len(differing) > 20
    assert (100_000, 768) in differing
    for total, count in differing:
        places = frame_indices(total, count)
        assert (places[0], places[-1], len(set(places.tolist()))) == (0, total - 1, count)
        # The last digit of a place near 100,000 is worth 1/128 in single precision.
        np.testing.assert_allclose(places, np.linspace(0, total - 1, count), rtol=0, atol=0.5 + 1 / 64)


def test_a_video_of_one_frame_shows_it():
    shown = plan({}, 1)
    assert (shown.indices, shown.grid[0]) == ((0,), 1)


def test_listed_frames_are_all_shown_whatever_the_settings_ask():
    settings = VideoSettings(fps=1, max_frames=2)
    listed = VideoInfo(5, None, 64, 48, is_sampled=True)
    shown = Qwen2VLVideoProcessor().with_settings(settings).plan(listed)
    assert (shown.indices, shown.grid[0]) == ((0, 1, 2, 3, 4), 3)


def test_a_video_without_a_frame_rate_needs_a_number_of_frames():
    with pytest.raises(VideoError, match=r"^tells no frame rate; set `nframes` \(NFRAMES\)\.$"):
        plan({}, 9, None)
    assert plan({"nframes": 4}, 9, None).indices == (0, 3, 5, 8)


@pytest.mark.parametrize(("nframes", "made"), [(16, 16), (1, 0), (11, 12)])
def test_a_number_of_frames_that_the_video_cannot_give_is_told_with_both(nframes, made):
    with pytest.raises(VideoError, match=rf"^has 10 frames, but .* is {nframes}, which makes {made} .* 2 to 10\."):
        plan({"nframes": nframes}, 10)


def test_all_frames_together_stay_within_their_budget_until_frames_reach_their_smallest_area():
    bounds = {"min_pixels": 100, "max_pixels": 1000, "total_pixels": 5000, "multiple": 2}
    assert frame_bounds(4, **bounds) == (100, 1000)
    assert frame_bounds(20, **bounds) == (100, 500)
    assert frame_bounds(1000, **bounds) == (100, 105)


def test_a_count_is_even_and_between_its_bounds():
    bounds = {"nframes": None, "fps": 2.0, "min_frames": 4, "max_frames": 9, "multiple": 2}
    counts = [frame_count(total, 10.0, **bounds) for total in range(1, 100)]
    assert counts[:4] == [1, 2, 2, 4]
    assert set(counts[3:]) == {4, 6, 8}
