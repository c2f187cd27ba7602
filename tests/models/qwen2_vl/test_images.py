import json

import numpy as np
import pytest
from PIL import Image

from paddlemix.media.frames import VideoInfo
from paddlemix.media.images import open_image
from paddlemix.models.qwen2_vl.images import MAX_PIXELS, MIN_PIXELS, Qwen2VLImageProcessor, smart_resize
from paddlemix.models.qwen2_vl.videos import Qwen2VLVideoProcessor
from paddlemix.models.qwen_vl.images import QwenVLImageProcessor
from paddlemix.ops.images import built

IMAGE_BOUNDS = {
    "default": {},
    "small": {"min_pixels": 28 * 28, "max_pixels": 2 * 28 * 28},
}
# transformers leaves these to Pillow, which shows what is stored behind transparency, and cuts 16 bits off at 255. We
# open them as tests/media/test_transparency.py and test_grey_levels.py say; what follows is the same.
OPENED_OTHERWISE = {"grey16.png", "grey_alpha.png", "palette.png", "rgba.png"}


def test_resized_sizes_are_those_of_transformers(processor_reference):
    rows = json.loads((processor_reference / "resizes.json").read_text())
    for height, width, low, high, *expected in rows:
        size = smart_resize(height, width, factor=28, min_pixels=low, max_pixels=high)
        assert [*size] == expected, (height, width, low, high)
    assert len(rows) > 500
    kept = [row for row in rows if row[0] % 28 == row[1] % 28 == 0 and row[:2] == row[4:]]
    grown = [row for row in rows if row[4] > row[0] + 28]
    shrunk = [row for row in rows if row[4] < row[0] - 28]
    assert min(map(len, (kept, grown, shrunk))) > 10, "the cases no longer reach all three branches"


@pytest.mark.parametrize("bounds", IMAGE_BOUNDS)
def test_patches_and_grids_of_every_image_are_bit_equal_to_transformers(processor_reference, bounds):
    processor = Qwen2VLImageProcessor(**IMAGE_BOUNDS[bounds])
    with np.load(processor_reference / "pictures.npz") as arrays:
        names = sorted({key.split("/")[1] for key in arrays if key.startswith(bounds)})
        assert len(names) == 14
        for name in names:
            image = open_image(str(processor_reference / name))
            if name in OPENED_OTHERWISE:
                ours = np.asarray(image)
                image = Image.open(processor_reference / name).convert("RGB")
                assert not np.array_equal(ours, np.asarray(image)), name
            patches = processor.patches(image)
            assert [[*processor.grid(*image.size)]] == arrays[f"{bounds}/{name}/image_grid_thw"].tolist(), name
            assert patches.dtype == np.float32
            np.testing.assert_array_equal(patches, arrays[f"{bounds}/{name}/pixel_values"], err_msg=name)


def test_a_grid_has_four_patches_a_token_and_as_many_rows_as_patches(save_image):
    processor = Qwen2VLImageProcessor()
    image = open_image(save_image(150, 90))
    grid = processor.grid(*image.size)
    assert processor.patches(image).shape == (np.prod(grid), 3 * 2 * 14 * 14)
    assert processor.tokens(grid) * 4 == np.prod(grid)


def test_patches_follow_one_another_in_windows_of_two_by_two():
    processor = Qwen2VLImageProcessor(image_mean=(0, 0, 0), image_std=(1, 1, 1))
    pixels = np.zeros((56, 84, 3), dtype=np.uint8)
    rows, columns = np.indices((56, 84)) // 14
    pixels[..., 0] = 10 * rows + columns
    seen = np.rint(processor.patches(Image.fromarray(pixels))[:, 0] * 255).astype(int).tolist()
    assert seen[:12] == [0, 1, 10, 11, 2, 3, 12, 13, 4, 5, 14, 15]
    assert seen[12:16] == [20, 21, 30, 31]


def test_settings_come_back_as_they_were_saved():
    processor = Qwen2VLImageProcessor(min_pixels=1000, max_pixels=5_000_000, image_mean=(0.5, 0.5, 0.5))
    assert Qwen2VLImageProcessor.from_published(json.loads(json.dumps(processor.to_published()))) == processor


def test_the_published_bound_becomes_the_safe_one_and_an_explicit_one_wins():
    published = {"min_pixels": 3136, "max_pixels": 12845056}
    assert Qwen2VLImageProcessor.from_published(published).max_pixels == MAX_PIXELS
    assert Qwen2VLImageProcessor.from_published(published, max_pixels=12845056).max_pixels == 12845056


@pytest.mark.parametrize(
    ("published", "bounds"),
    [
        ({}, (MIN_PIXELS, MAX_PIXELS)),
        ({"min_pixels": None, "max_pixels": None}, (MIN_PIXELS, MAX_PIXELS)),
        ({"size": {"shortest_edge": 784, "longest_edge": 7840}}, (784, 7840)),
        ({"size": {"shortest_edge": 784, "longest_edge": 7840}, "min_pixels": 1568, "max_pixels": None}, (1568, 7840)),
        ({"size": None, "max_pixels": 7840, "do_resize": True}, (MIN_PIXELS, 7840)),
    ],
)
def test_bounds_are_found_where_checkpoints_of_several_ages_keep_them(published, bounds):
    processor = Qwen2VLImageProcessor.from_published(published)
    assert (processor.min_pixels, processor.max_pixels) == bounds


@pytest.mark.parametrize("size", [(640, 480), (33, 1500), (5, 900), (56, 84), (1, 1)])
def test_patches_are_the_same_with_and_without_the_built_ops(size, monkeypatch):
    if built.find_library()[0] is None:
        pytest.skip(f"no built image ops: {built.find_library()[1]}")
    width, height = size
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    frames = [pixels, pixels[::-1], pixels[:, ::-1]]
    video = Qwen2VLVideoProcessor()
    plan = video.plan(VideoInfo(len(frames), None, width, height, is_sampled=True))

    def prepare() -> list[np.ndarray]:
        image = Image.fromarray(pixels)
        still, square = Qwen2VLImageProcessor().patches(image), QwenVLImageProcessor(64).pixels(image)
        return [still, square, video.patches(frames, plan)]

    with_build = prepare()
    monkeypatch.setattr(built, "wanted_library", lambda: None)
    for found, expected in zip(with_build, prepare(), strict=True):
        assert expected.size and np.unique(expected).size > 1
        np.testing.assert_array_equal(found, expected)
