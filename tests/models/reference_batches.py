"""The batches that Qwen2-VL is compared on: token layouts, random tokens, pixels and labels. Needs numpy alone."""

from __future__ import annotations

import numpy as np

INPUTS = ["input_ids", "labels", "attention_mask"]
INPUTS += ["pixel_values", "image_grid_thw", "pixel_values_videos", "video_grid_thw"]
START, END, IMAGE, VIDEO, PAD, TEXT_TOKENS = 110, 111, 112, 113, 0, 100
PATCH_VALUES = 3 * 2 * 4 * 4

Grid = tuple[int, int, int]
Batch = dict[str, np.ndarray]

# A number is so many text tokens, a grid an image, a grid behind "video" a video; "cut" takes the last token away.
IMAGE_A, IMAGE_B, IMAGE_C, CLIP = (1, 4, 6), (1, 2, 2), (1, 6, 4), (3, 4, 2)
BATCHES = {
    "text": ([[9], [9]], "right"),
    "text_left": ([[4], [9]], "left"),
    "text_right": ([[9], [5]], "right"),
    "one_picture": ([[3, IMAGE_A, 5]], "right"),
    "several_pictures": ([[2, IMAGE_B, 4, IMAGE_A, 1, IMAGE_C, 3]], "right"),
    "adjacent_pictures": ([[3, IMAGE_C, IMAGE_A, IMAGE_B, 4]], "right"),
    "picture_at_end": ([[5, IMAGE_A, "cut"]], "right"),
    "video": ([[2, "video", CLIP, 4]], "right"),
    "mixed_left": ([[6], [2, IMAGE_A, 3, IMAGE_C, 5], [1, "video", CLIP, 2, IMAGE_B, 4]], "left"),
    "mixed_right": ([[2, IMAGE_C, "video", CLIP, 5], [7], [3, IMAGE_B, IMAGE_A, 2]], "right"),
}


def make_batch(rows: list[list], side: str, rng: np.random.Generator) -> Batch:
    """Random tokens, pixels and labels for a batch laid out like `rows`."""
    made = [make_row(row, rng) for row in rows]
    length = max(len(ids) for ids, _, _ in made)
    batch = {
        "input_ids": np.full((len(made), length), PAD),
        "labels": np.full((len(made), length), -100),
        "attention_mask": np.zeros((len(made), length), dtype=np.int64),
    }
    for index, (ids, _, _) in enumerate(made):
        place = slice(length - len(ids), length) if side == "left" else slice(0, len(ids))
        is_asked = (np.array(ids) < TEXT_TOKENS) & (rng.random(len(ids)) < 0.7)
        batch["input_ids"][index, place] = ids
        batch["attention_mask"][index, place] = 1
        batch["labels"][index, place] = np.where(is_asked, ids, -100)
    grids = [grid for _, grids, _ in made for grid in grids], [grid for _, _, grids in made for grid in grids]
    for pixels, key, chosen in zip(
        ("pixel_values", "pixel_values_videos"), ("image_grid_thw", "video_grid_thw"), grids, strict=True
    ):
        if chosen:
            batch[key] = np.array(chosen)
            batch[pixels] = make_pixels(chosen, rng)
    return batch


def make_row(parts: list, rng: np.random.Generator) -> tuple[list[int], list[Grid], list[Grid]]:
    """Tokens of one row, with the grids of its images and of its videos."""
    ids: list[int] = []
    images: list[Grid] = []
    videos: list[Grid] = []
    is_video = False
    for part in parts:
        if part == "video":
            is_video = True
        elif part == "cut":
            del ids[-1]
        elif isinstance(part, int):
            ids += rng.integers(1, TEXT_TOKENS, part).tolist()
        else:
            count = int(np.prod(part)) // 4
            ids += [START, *[VIDEO if is_video else IMAGE] * count, END]
            (videos if is_video else images).append(part)
            is_video = False
    return ids, images, videos


def make_pixels(grids: list[Grid], rng: np.random.Generator) -> np.ndarray:
    """Random patches, in steps that keep the file small."""
    patches = sum(int(np.prod(grid)) for grid in grids)
    return (rng.integers(-16, 17, (patches, PATCH_VALUES)) / 8).astype(np.float32)


def inputs_of(arrays: Batch, batch_name: str) -> Batch:
    """A batch's inputs out of all arrays."""
    return {key: arrays[f"{batch_name}/{key}"] for key in INPUTS if f"{batch_name}/{key}" in arrays}


def random_row(rng: np.random.Generator) -> list:
    """One to seven parts; a row may begin or end with an image, and images may touch."""
    row: list = []
    for kind in rng.choice(["text", "image", "video"], rng.integers(1, 8)):
        height, width = (2 * rng.integers(1, 5, 2)).tolist()
        if kind == "text":
            row.append(int(rng.integers(1, 9)))
        elif kind == "image":
            row.append((1, height, width))
        else:
            row += ["video", (int(rng.integers(1, 5)), height, width)]
    return row
