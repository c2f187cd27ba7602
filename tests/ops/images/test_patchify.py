from __future__ import annotations

import numpy as np
import pytest

from paddlemix.ops.images import patchify

pytestmark = pytest.mark.usefixtures("implementation")

SIZES = {"patch_size": 14, "merge_size": 2}


@pytest.fixture
def levels(rng) -> np.ndarray:
    return rng.standard_normal((3, 256)).astype(np.float32)


def frames_of(rng: np.random.Generator, height: int, width: int, count: int = 2) -> list[np.ndarray]:
    return [rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for _ in range(count)]


def by_hand(frames: list[np.ndarray], levels: np.ndarray, patch_size: int, merge_size: int) -> np.ndarray:
    """Cut pixel by pixel, with the places computed as the order is described."""
    height, width = frames[0].shape[:2]
    windows = width // (patch_size * merge_size)
    patches = np.empty((height * width // patch_size**2, 3, len(frames), patch_size, patch_size), np.float32)
    for y, x in np.ndindex(height, width):
        down, across = y // patch_size, x // patch_size
        window = down // merge_size * windows + across // merge_size
        patch = (window * merge_size + down % merge_size) * merge_size + across % merge_size
        for frame, pixels in enumerate(frames):
            for channel in range(3):
                value = levels[channel, pixels[y, x, channel]]
                patches[patch, channel, frame, y % patch_size, x % patch_size] = value
    return patches.reshape(len(patches), -1)


@pytest.mark.parametrize(
    ("height", "width", "patch_size", "merge_size"),
    [(28, 28, 14, 2), (56, 84, 14, 2), (3, 5, 1, 1), (6, 12, 3, 2), (32, 16, 16, 1), (34, 51, 17, 1), (27, 54, 9, 3)],
)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_patches_are_those_worked_out_pixel_by_pixel(rng, levels, height, width, patch_size, merge_size, count):
    frames = frames_of(rng, height, width, count)
    patches = patchify(frames, levels, patch_size=patch_size, merge_size=merge_size)
    assert patches.dtype == np.float32
    np.testing.assert_array_equal(patches, by_hand(frames, levels, patch_size, merge_size))


def test_a_still_image_is_the_same_in_every_frame(rng, levels):
    (image,) = frames_of(rng, 56, 28, 1)
    patches = patchify([image] * 2, levels, **SIZES)
    np.testing.assert_array_equal(patches, patchify([image, image.copy()], levels, **SIZES))
    shown = patches.reshape(-1, 3, 2, 196)
    assert (shown[:, :, 0] == shown[:, :, 1]).all() and len(np.unique(shown)) > 500


def test_every_level_of_every_channel_is_looked_up(levels):
    image = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
    patches = patchify([image], levels, patch_size=16, merge_size=1)
    np.testing.assert_array_equal(patches.reshape(3, 256), levels)


def test_views_are_cut_as_their_copies_are(rng, levels):
    (image,) = frames_of(rng, 60, 90, 1)
    for view in (
        image[::-1][:56, :84],
        image[2:58, ::-1][:, 3:87],
        np.rot90(image)[:84, :56],
        image[::2, ::3][:28, :28],
    ):
        assert not view.flags.c_contiguous
        copied = patchify([np.ascontiguousarray(view)], levels, **SIZES)
        np.testing.assert_array_equal(patchify([view], levels, **SIZES), copied)
    turned = np.asfortranarray(levels)
    assert not turned.flags.c_contiguous
    np.testing.assert_array_equal(patchify([view], turned, **SIZES), copied)


def test_an_array_that_is_given_is_written_to(rng, levels):
    frames = frames_of(rng, 28, 56)
    room = np.full((3, 8, 1176), np.nan, np.float32)
    written = patchify(frames, levels, **SIZES, out=room[1])
    assert np.shares_memory(written, room)
    np.testing.assert_array_equal(room[1], patchify(frames, levels, **SIZES))
    assert np.isnan(room[[0, 2]]).all(), "it wrote beside the array"


@pytest.mark.parametrize("shape", [(0, 28, 3), (28, 0, 3), (0, 0, 3)])
def test_an_image_without_pixels_has_no_patches(levels, shape):
    assert patchify([np.zeros(shape, np.uint8)] * 2, levels, **SIZES).shape == (0, 1176)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frames": []}, "`frames` is empty"),
        ({"frames": [np.zeros((28, 28, 3))]}, r"`frames\[0\]` is float64; expected uint8"),
        ({"frames": [np.zeros((28, 28), np.uint8)]}, r"`frames\[0\]` has shape \[28, 28\]"),
        ({"frames": [np.zeros((28, 28, 4), np.uint8)]}, r"`frames\[0\]` has shape \[28, 28, 4\]"),
        (
            {"frames": [np.zeros((side, 28, 3), np.uint8) for side in (28, 56)]},
            r"`frames\[1\]` has shape \[56, 28, 3\]",
        ),
        ({"frames": [np.zeros((28, 29, 3), np.uint8)]}, "`frames` have shape .* multiples of .*, 28"),
        ({"levels": np.zeros((3, 256))}, "`levels` is float64; expected float32"),
        ({"levels": np.zeros((256, 3), np.float32)}, r"`levels` has shape \[256, 3\]"),
        ({"patch_size": 0}, "`patch_size` is 0"),
        ({"merge_size": -2}, "`merge_size` is -2"),
        ({"out": np.zeros((4, 588))}, "`out` is float64"),
        ({"out": np.zeros((4, 1176), np.float32)}, r"`out` has shape \[4, 1176\]; expected \[4, 588\]"),
        ({"out": np.zeros((4, 1176), np.float32)[:, ::2]}, "`out` has shape .* contiguous"),
    ],
)
def test_arguments_that_do_not_fit_are_named(levels, change, message):
    given = {"frames": [np.zeros((28, 28, 3), np.uint8)], "levels": levels, **SIZES, **change}
    with pytest.raises(ValueError, match=message):
        patchify(given.pop("frames"), given.pop("levels"), **given)


def test_an_array_that_may_not_be_written_to_is_refused(levels):
    out = np.zeros((4, 588), np.float32)
    out.flags.writeable = False
    with pytest.raises(ValueError, match="`out` .* writeable"):
        patchify([np.zeros((28, 28, 3), np.uint8)], levels, **SIZES, out=out)
