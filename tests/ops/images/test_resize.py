"""Bit by bit against Pillow. That torch's precision is PyTorch's, tests/models/qwen2_vl/test_videos.py tells."""

from __future__ import annotations

import numpy as np
import PIL
import pytest
from PIL import Image

from paddlemix.ops.images import resize_bicubic

pytestmark = [
    pytest.mark.usefixtures("implementation"),
    pytest.mark.skipif(int(PIL.__version__.split(".")[0]) > 12, reason="Pillow 13 filters columns before rows"),
]

# (height, width) before and after.
SIZES = {
    "a photograph that stays about as large": ((480, 640), (476, 644)),
    "twice as large": ((15, 16), (30, 32)),
    "far larger": ((3, 2), (200, 333)),
    "far smaller": ((701, 503), (14, 9)),
    "one pixel to many": ((1, 1), (17, 16)),
    "many pixels to one": ((40, 57), (1, 1)),
    "one row": ((1, 300), (1, 47)),
    "one column": ((300, 1), (47, 1)),
    "only the width": ((33, 50), (33, 70)),
    "only the height": ((33, 50), (20, 50)),
    "as it is": ((33, 50), (33, 50)),
    "wider than sixteen rows are high": ((2, 4000), (3, 100)),
    "just not tall": ((300, 3), (4, 8)),
    "so tall that columns come first": ((301, 3), (4, 8)),
    "tall, and taller afterwards": ((301, 3), (302, 8)),
}


def pillow(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC))


def noise(rng: np.random.Generator, height: int, width: int, *, is_hard: bool = False) -> np.ndarray:
    """Draw grey levels of all sizes, or black and white alone, which overshoots most."""
    pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return np.where(pixels > 127, 255, 0).astype(np.uint8) if is_hard else pixels


@pytest.mark.parametrize("is_hard", [False, True])
@pytest.mark.parametrize("name", SIZES)
def test_images_are_pillows_bit_by_bit(rng, name, is_hard):
    old, (height, width) = SIZES[name]
    pixels = noise(rng, *old, is_hard=is_hard)
    resized = resize_bicubic(pixels, width, height)
    assert resized.dtype == np.uint8 and resized.shape == (height, width, 3)
    np.testing.assert_array_equal(resized, pillow(pixels, width, height))


def test_hundreds_of_random_sizes_are_pillows_bit_by_bit(rng):
    shrunk = grown = tall = 0
    for number in range(450):
        # Log-uniform, so that thin images and extreme ratios are as common as square ones.
        largest = (8, 60, 700)[number % 3]
        sides = np.exp(rng.uniform(0, np.log(largest), 4)).round().astype(int)
        old_height, old_width, height, width = (int(side) for side in sides)
        pixels = noise(rng, old_height, old_width, is_hard=number % 2 == 0)
        expected = pillow(pixels, width, height)
        np.testing.assert_array_equal(resize_bicubic(pixels, width, height), expected, err_msg=str(sides))
        shrunk += height * width < old_height * old_width
        grown += height * width > old_height * old_width
        tall += old_height > 100 * old_width
    assert min(shrunk, grown) > 100 and tall > 2, "the sizes no longer reach all cases"


def test_columns_before_rows_would_be_seen(rng):
    pixels = noise(rng, 301, 3)
    rows_first = resize_bicubic(resize_bicubic(pixels, 8, 301), 8, 4)
    assert (resize_bicubic(pixels, 8, 4) != rows_first).any()


@pytest.mark.parametrize(
    "view",
    [
        pytest.param(lambda pixels: pixels[::-1], id="upside down"),
        pytest.param(lambda pixels: pixels[..., ::-1], id="other order of channels"),
        pytest.param(lambda pixels: np.rot90(pixels), id="turned"),
        pytest.param(lambda pixels: pixels[3:40, 5:33], id="a part"),
        pytest.param(lambda pixels: pixels[::2, ::3], id="every third column"),
        pytest.param(lambda pixels: np.asfortranarray(pixels), id="column by column"),
    ],
)
@pytest.mark.parametrize("size", [(40, 21), (80, 21), (40, 41)])
def test_views_are_resized_as_their_copies_are(rng, view, size):
    shown = view(noise(rng, 41, 80))
    np.testing.assert_array_equal(resize_bicubic(shown, *size), pillow(np.ascontiguousarray(shown), *size))


def test_the_result_is_an_array_of_its_own(rng):
    pixels = noise(rng, 20, 30)
    resized = resize_bicubic(pixels, 30, 20)
    assert not np.shares_memory(pixels, resized)
    resized[:] = 0
    assert pixels.any() and resized.flags.c_contiguous


def test_images_without_colour_and_of_other_channels_are_refused(rng):
    for shape in ((4, 4), (4, 4, 1), (4, 4, 4), (1, 4, 4, 3)):
        with pytest.raises(ValueError, match=r"`pixels` has shape .*expected \[height, width, 3\]"):
            resize_bicubic(np.zeros(shape, np.uint8), 2, 2)


@pytest.mark.parametrize("dtype", [np.float32, np.int8, np.uint16])
def test_other_dtypes_are_refused(dtype):
    with pytest.raises(ValueError, match=f"`pixels` is {np.dtype(dtype)}; expected uint8"):
        resize_bicubic(np.zeros((4, 4, 3), dtype), 2, 2)


def test_what_is_no_array_is_refused():
    with pytest.raises(ValueError, match="`pixels` is a Image"):
        resize_bicubic(Image.new("RGB", (4, 4)), 2, 2)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(0, 4, 3), (4, 0, 3), (0, 0, 3)])
def test_images_without_pixels_are_refused(shape):
    with pytest.raises(ValueError, match="`pixels` has shape"):
        resize_bicubic(np.zeros(shape, np.uint8), 2, 2)


def test_sizes_below_one_and_unknown_precisions_are_refused(rng):
    pixels = noise(rng, 4, 4)
    with pytest.raises(ValueError, match="`width` is 0"):
        resize_bicubic(pixels, 0, 2)
    with pytest.raises(ValueError, match="`height` is -1"):
        resize_bicubic(pixels, 2, -1)
    with pytest.raises(ValueError, match="`precision` is 'cv2'; expected one of pillow, torch"):
        resize_bicubic(pixels, 2, 2, precision="cv2")  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [(40, 30), (56, 28), (8, 90), (200, 160)])
def test_smooth_images_in_torchs_precision_are_pillows_within_two_levels(size):
    frame = np.asarray(Image.linear_gradient("L").rotate(30).resize((100, 80)).convert("RGB"))
    resized = resize_bicubic(frame, *size, precision="torch")
    # Measured: 1; the weights' 16 bits would allow 2.
    assert np.abs(resized.astype(int) - pillow(frame, *size)).max() <= 2


def test_precisions_differ_on_noise(rng):
    pixels = noise(rng, 60, 90)
    assert (resize_bicubic(pixels, 56, 28) != resize_bicubic(pixels, 56, 28, precision="torch")).any()


@pytest.mark.parametrize("precision", ["pillow", "torch"])
def test_an_image_of_one_colour_keeps_it(precision):
    for level in (0, 1, 127, 254, 255):
        pixels = np.full((37, 53, 3), level, np.uint8)
        assert (resize_bicubic(pixels, 28, 84, precision=precision) == level).all()


@pytest.mark.parametrize("precision", ["pillow", "torch"])
def test_overshoot_at_an_edge_is_cut_off(precision):
    pixels = np.zeros((28, 28, 3), np.uint8)
    pixels[:, 14:] = 255
    row = resize_bicubic(pixels, 112, 28, precision=precision)[0, :, 0].astype(int)
    assert (row[0], row[-1]) == (0, 255)
    assert (np.diff(row) >= 0).all(), "values past 0 or 255 would wrap round"
    assert len(set(row.tolist())) > 4
