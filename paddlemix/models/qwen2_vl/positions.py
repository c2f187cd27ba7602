"""M-RoPE: three position rows (time, height, width) for sequences of text and vision.

Pure numpy, so that data workers can lay positions out ahead of the model.

Source: Wang et al., "Qwen2-VL", 2024, arXiv:2409.12191, section 2.1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

PADDING_POSITION = 1


class TimeScale(NamedTuple):
    """How time goes on from one patch of a video to the next.

    Attributes:
        seconds: that a patch in time lasts.
        steps: of the time axis in a second.
    """

    seconds: float
    steps: float


# Of images, which have one patch in time, and of videos whose patches are counted.
COUNTED = TimeScale(1.0, 1.0)


def mrope_positions(
    input_ids: np.ndarray,
    grids: list[tuple[int, int, int]],
    *,
    vision_token_ids: tuple[int, ...],
    merge_size: int,
    time_scales: Sequence[TimeScale] | None = None,
) -> np.ndarray:
    """Lay out the positions of one sequence without padding.

    Text counts on in all three rows at once. An image or video starts at the largest position so far plus one and
    counts time, height and width on their own rows; text behind it starts at the largest of them plus one.

    Args:
        input_ids: int64[L].
        grids: (t, h, w) in patches of each image and video, in the order of the sequence.
        vision_token_ids: the ids that stand for one merged patch each.
        merge_size: patches of a merged token's side.
        time_scales: how time goes on from one patch to the next, for each grid. None counts the patches.

    Returns:
        int64[3, L].

    Raises:
        ValueError: the vision tokens in `input_ids` are not those that `grids` ask for.
    """
    merged = [(t, h // merge_size, w // merge_size) for t, h, w in grids]
    is_vision = np.isin(input_ids, vision_token_ids)
    wanted = sum(t * h * w for t, h, w in merged)
    if int(is_vision.sum()) != wanted:
        raise ValueError(
            f"{int(is_vision.sum())} vision tokens stand in the sequence, but its {len(grids)} images and videos "
            f"make {wanted}."
        )
    positions = np.empty((3, len(input_ids)), dtype=np.int64)
    following = 0
    scales = iter([COUNTED] * len(grids) if time_scales is None else time_scales)
    for start, stop, grid in _spans(is_vision, merged):
        block = np.arange(stop - start)[None] if grid is None else _grid_positions(grid, next(scales))
        positions[:, start:stop] = block + following
        following += int(block.max()) + 1
    return positions


def batch_mrope_positions(
    input_ids: np.ndarray,
    attention_mask: np.ndarray | None,
    image_grid_thw: np.ndarray | None,
    video_grid_thw: np.ndarray | None,
    *,
    image_token_id: int,
    video_token_id: int,
    merge_size: int,
    video_time_scales: Sequence[TimeScale] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Lay out the positions of a padded batch, padding on either side.

    Args:
        input_ids: int64[B, L].
        attention_mask: int64[B, L], 0 where a token is padding; None when there is none.
        image_grid_thw: int64[images, 3] of all rows, row by row.
        video_grid_thw: int64[videos, 3] likewise.
        image_token_id: stands for one merged patch of an image.
        video_token_id: stands for one merged patch of a video.
        merge_size: patches of a merged token's side.
        video_time_scales: of each video, see `mrope_positions`; None counts the patches.

    Returns:
        position_ids int64[3, B, L], 1 on padding, and rope_deltas int64[B, 1], the next position less L.

    Raises:
        ValueError: the vision tokens are not those that the grids ask for, row by row and in all.
    """
    images, videos = ([] if grids is None else grids.tolist() for grids in (image_grid_thw, video_grid_thw))
    scales = [COUNTED] * len(videos) if video_time_scales is None else video_time_scales
    remaining_images = iter([(grid, COUNTED) for grid in images])
    remaining_videos = iter(list(zip(videos, scales, strict=True)))
    position_ids = np.full((3, *input_ids.shape), PADDING_POSITION, dtype=np.int64)
    deltas = np.empty((len(input_ids), 1), dtype=np.int64)
    for row, ids in enumerate(input_ids):
        kept = np.ones(len(ids), dtype=bool) if attention_mask is None else attention_mask[row].astype(bool)
        shown = list(
            _shown_in_row(ids[kept], remaining_images, remaining_videos, image_token_id, video_token_id, merge_size)
        )
        positions = mrope_positions(
            ids[kept],
            [grid for grid, _ in shown],
            vision_token_ids=(image_token_id, video_token_id),
            merge_size=merge_size,
            time_scales=[scale for _, scale in shown],
        )
        position_ids[:, row, kept] = positions
        deltas[row, 0] = (positions.max() + 1 if positions.size else 0) - len(ids)
    unused = [grid for grid, _ in (*remaining_images, *remaining_videos)]
    if unused:
        raise ValueError(
            f"no sequence shows the last {len(unused)} of the images and videos; their grids are {unused}."
        )
    return position_ids, deltas


def _shown_in_row(
    ids: np.ndarray,
    images: Iterator[tuple[list[int], TimeScale]],
    videos: Iterator[tuple[list[int], TimeScale]],
    image_token_id: int,
    video_token_id: int,
    merge_size: int,
) -> Iterator[tuple[tuple[int, int, int], TimeScale]]:
    """Draw the grids of one row's images and videos, by walking its vision tokens grid by grid."""
    vision = ids[np.isin(ids, (image_token_id, video_token_id))]
    place = 0
    while place < len(vision):
        is_image = vision[place] == image_token_id
        shown = next(images if is_image else videos, None)
        if shown is None:
            raise ValueError(
                f"{len(vision)} vision tokens stand in the sequence, but its images and videos make {place}: it "
                f"shows more {'images' if is_image else 'videos'} than were given."
            )
        (t, h, w), scale = shown
        yield (t, h, w), scale
        place += t * h * w // merge_size**2


def _spans(
    is_vision: np.ndarray, merged: list[tuple[int, int, int]]
) -> Iterator[tuple[int, int, tuple[int, int, int] | None]]:
    """Cut a sequence, bool[L], into runs of text (grid None) and single vision blocks: (start, stop, grid)."""
    place, grids = 0, iter(merged)
    while place < len(is_vision):
        if is_vision[place]:
            t, h, w = grid = next(grids)
            stop = place + t * h * w
            yield place, stop, grid
        else:
            rest = is_vision[place:]
            stop = place + int(rest.argmax()) if rest.any() else len(is_vision)
            yield place, stop, None
        place = stop


def _grid_positions(grid: tuple[int, int, int], scale: TimeScale) -> np.ndarray:
    """Count a grid's rows and columns, and the steps of the time axis up to each of its patches: int64[3, t * h * w].

    Published models were trained on products in single precision, of patch and seconds first, cut to whole numbers in
    the end: in another order they are one step apart now and then, and cut earlier all patches of a second are one.
    """
    positions = np.indices(grid).reshape(3, -1)
    passed = positions[0].astype(np.float32) * np.float32(scale.seconds)
    positions[0] = (passed * np.float32(scale.steps)).astype(np.int64)
    return positions
