import numpy as np
import pytest
from PIL import Image

from paddlemix.processors.resample import resize_frame

# That the values are PyTorch's, bit by bit, is tested through the patches in test_video_patches.py.


@pytest.mark.parametrize("size", [(40, 30), (56, 28), (8, 90), (200, 160)])
def test_smooth_frames_are_pillows_within_two_levels(size):
    frame = np.asarray(Image.linear_gradient("L").rotate(30).resize((100, 80)).convert("RGB"))
    expected = np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC)).astype(int)
    resized = resize_frame(frame, *size)
    assert resized.dtype == np.uint8
    assert resized.shape == expected.shape
    # Measured: 1; the weights' 16 bits would allow 2.
    assert np.abs(resized - expected).max() <= 2


def test_a_frame_of_one_colour_keeps_it():
    for level in (0, 1, 127, 254, 255):
        assert (resize_frame(np.full((37, 53, 3), level, np.uint8), 28, 84) == level).all()


def test_overshoot_at_an_edge_is_cut_off():
    frame = np.zeros((28, 28, 3), np.uint8)
    frame[:, 14:] = 255
    row = resize_frame(frame, 112, 28)[0, :, 0].astype(int)
    assert (row[0], row[-1]) == (0, 255)
    assert (np.diff(row) >= 0).sum() == len(row) - 1, "values past 0 or 255 would wrap round"
    assert len(set(row.tolist())) > 4


def test_a_frame_that_has_the_size_stays_as_it_is():
    frame = np.random.default_rng(0).integers(0, 256, (28, 56, 3), dtype=np.uint8)
    np.testing.assert_array_equal(resize_frame(frame, 56, 28), frame)
