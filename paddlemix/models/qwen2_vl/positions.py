"""M-RoPE: three position rows (time, height, width) for sequences of text and vision.

Pure numpy, so that data workers can lay positions out ahead of the model.

Source: Wang et al., "Qwen2-VL", 2024, arXiv:2409.12191, section 2.1.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

PADDING_POSITION = 1


def mrope_positions(
    input_ids: np.ndarray,
    grids: list[tuple[int, int, int]],
    *,
    vision_token_ids: tuple[int, ...],
    merge_size: int,
) -> np.ndarray:
    """Lay out the positions of one sequence without padding.

    Text counts on in all three rows at once. An image or video starts at the largest position so far plus one and
    counts time, height and width on their own rows; text behind it starts at the largest of them plus one.

    Args:
        input_ids: int64[L].
        grids: (t, h, w) in patches of each image and video, in the order of the sequence.
        vision_token_ids: the ids that stand for one merged patch each.
        merge_size: patches of a merged token's side.

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
    for start, stop, grid in _spans(is_vision, merged):
        block = np.arange(stop - start)[None] if grid is None else _grid_positions(grid)
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

    Returns:
        position_ids int64[3, B, L], 1 on padding, and rope_deltas int64[B, 1], the next position less L.

    Raises:
        ValueError: the vision tokens are not those that the grids ask for, row by row and in all.
    """
    images, videos = (iter([] if grid is None else grid.tolist()) for grid in (image_grid_thw, video_grid_thw))
    position_ids = np.full((3, *input_ids.shape), PADDING_POSITION, dtype=np.int64)
    deltas = np.empty((len(input_ids), 1), dtype=np.int64)
    for row, ids in enumerate(input_ids):
        kept = np.ones(len(ids), dtype=bool) if attention_mask is None else attention_mask[row].astype(bool)
        grids = list(_grids_of_row(ids[kept], images, videos, image_token_id, video_token_id, merge_size))
        positions = mrope_positions(
            ids[kept], grids, vision_token_ids=(image_token_id, video_token_id), merge_size=merge_size
        )
        position_ids[:, row, kept] = positions
        deltas[row, 0] = (positions.max() + 1 if positions.size else 0) - len(ids)
    unused = [*images, *videos]
    if unused:
        raise ValueError(
            f"no sequence shows the last {len(unused)} of the images and videos; their grids are {unused}."
        )
    return position_ids, deltas


def _grids_of_row(
    ids: np.ndarray,
    images: Iterator[list[int]],
    videos: Iterator[list[int]],
    image_token_id: int,
    video_token_id: int,
    merge_size: int,
) -> Iterator[tuple[int, int, int]]:
    """Draw the grids of one row's images and videos, by walking its vision tokens grid by grid."""
    vision = ids[np.isin(ids, (image_token_id, video_token_id))]
    place = 0
    while place < len(vision):
        is_image = vision[place] == image_token_id
        grid = next(images if is_image else videos, None)
        if grid is None:
            raise ValueError(
                f"{len(vision)} vision tokens stand in the sequence, but its images and videos make {place}: it "
                f"shows more {'images' if is_image else 'videos'} than were given."
            )
        t, h, w = grid
        yield t, h, w
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


def _grid_positions(grid: tuple[int, int, int]) -> np.ndarray:
    """Return int64[3, t * h * w]: time, row and column of each merged patch."""
    return np.indices(grid).reshape(3, -1)
