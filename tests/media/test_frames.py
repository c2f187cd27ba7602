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


@pytest.fixture(scope="module")
def rows(video_reference):
    """What the published preprocessing makes of videos under several settings."""
    rows = json.loads((video_reference / "chosen.json").read_text())
    return [(row, (row["total"], row["rate"], row["width"], row["height"])) for row in rows]


def test_chosen_frames_their_size_and_their_rate_are_those_of_the_published_preprocessing(rows):
    shown_rows = [(row, described) for row, described in rows if "shown" in row]
    for row, described in shown_rows:
        shown = plan(row["settings"], *described)
        checksum = crc32(np.array(shown.indices, dtype="<i8").tobytes())
        found = {
            "frames": [len(shown.indices), checksum],
            "size": [shown.height, shown.width],
            "sampled": pytest.approx(2 / shown.seconds, rel=1e-12),
        }
        assert found == row["shown"], row
    assert sum("start" in row["settings"] or "end" in row["settings"] for row, _ in shown_rows) > 50
    assert sum("resized_height" in row["settings"] for row, _ in shown_rows) > 20
    assert len({row["shown"]["frames"][0] for row, _ in shown_rows}) > 10
    assert len({tuple(row["shown"]["size"]) for row, _ in shown_rows}) > 10


def test_a_stretch_that_the_published_preprocessing_refuses_is_refused(rows):
    refused = [(row["settings"], described) for row, described in rows if row.get("refused") == "stretch"]
    for settings, described in refused:
        with pytest.raises((VideoError, ValueError), match="`start`|`end`"):
            plan(settings, *described)
    assert len(refused) > 50


def test_where_it_refuses_a_video_for_having_too_few_frames_all_are_taken_of_an_even_number(rows):
    short = [(row["settings"], described) for row, described in rows if row.get("refused") == "count"]
    for settings, (total, *described) in short:
        assert len(plan(settings, total, *described).indices) == total // 2 * 2
    assert 10 < len(short) < 30
    assert {total for _, (total, *_) in short} == {2, 3, 9}


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


@pytest.mark.parametrize(("nframes", "total", "taken"), [(16, 10, 10), (11, 10, 10), (16, 9, 8), (4, 1, 1), (9, 3, 2)])
def test_more_frames_than_the_video_has_take_all_of_an_even_number(nframes, total, taken):
    assert len(plan({"nframes": nframes}, total).indices) == taken


@pytest.mark.parametrize(
    ("settings", "total", "told"),
    [
        ({"nframes": 16}, 10, {"nframes"}),
        ({"nframes": 10}, 10, set()),
        ({"min_frames": 11}, 10, {"min_frames"}),
        ({"min_frames": 10}, 10, set()),
        ({"end": 0.4}, 10, set()),
        ({"end": 0.3}, 10, set()),
        ({"end": 0.2, "nframes": 8}, 10, {"nframes"}),
        ({"end": 0.41, "nframes": 4}, 10, {"end"}),
    ],
)
def test_what_was_asked_for_and_could_not_be_had_is_noted(settings, total, told):
    assert {name for name, _ in plan(settings, total).notes} == told


def test_one_frame_is_too_few_to_ask_for():
    with pytest.raises(VideoError, match=r"^cannot be shown as 1 frames, as `nframes` .*; expected 2 or more"):
        plan({"nframes": 1}, 10)


def test_a_stretch_of_a_video_without_a_frame_rate_and_one_of_listed_frames_are_refused():
    with pytest.raises(VideoError, match=r"^tells no frame rate, so that `start` and `end` name none"):
        plan({"start": 1}, 9, None)
    processor = Qwen2VLVideoProcessor().with_settings(VideoSettings(end=3))
    with pytest.raises(VideoError, match=r"^is given by its frames, .* leave out `start` and `end`"):
        processor.plan(VideoInfo(5, None, 64, 48, is_sampled=True))


def test_a_stretch_without_two_frames_is_told_with_the_length_and_what_was_asked():
    with pytest.raises(VideoError, match=r"^lasts 4\.00 s \(100 frames, 25 a second\), and `start` 9 s leave fewer"):
        plan({"start": 9}, 100)
    with pytest.raises(VideoError, match=r"`start` 1\.01 s and `end` 1\.07 s leave fewer than two frames"):
        plan({"start": 1.01, "end": 1.07}, 100)


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
