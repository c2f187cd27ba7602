"""The batches that Qwen2-VL and its kin are compared on: random tokens, pixels and labels. Needs numpy alone."""

from __future__ import annotations

import numpy as np

INPUTS = ["input_ids", "labels", "attention_mask"]
INPUTS += ["pixel_values", "image_grid_thw", "pixel_values_videos", "video_grid_thw", "second_per_grid_ts"]
START, END, IMAGE, VIDEO, PAD, TEXT_TOKENS = 110, 111, 112, 113, 0, 100
PATCH_VALUES = 3 * 2 * 4 * 4

Grid = tuple[int, int, int]
Batch = dict[str, np.ndarray]

# A whole number is so many text tokens, a grid an image, a grid behind "video" a video, a grid behind a fraction a
# video each of whose patches in time lasts that many seconds; "cut" takes the last token away.
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
# With seconds: 0.5 is 4 frames a second, 1/15 is 30. Merged tokens: 3 x 5, 5 x 3, 1 x 1, 3 of 3 x 2, 2 of 2 x 3.
WIDE, TALL, SMALL, FILM, SHORT = (1, 6, 10), (1, 10, 6), (1, 2, 2), (3, 6, 4), (2, 4, 6)
TIMED_BATCHES = {
    **{name: layout for name, layout in BATCHES.items() if name.startswith("text")},
    "one_picture": ([[3, WIDE, 5]], "right"),
    "several_pictures": ([[2, SMALL, 4, TALL, 1, WIDE, 3]], "right"),
    "adjacent_pictures": ([[3, WIDE, TALL, SMALL, 4]], "right"),
    "picture_at_end": ([[5, TALL, "cut"]], "right"),
    "video": ([[2, 0.5, FILM, 4, 2 / 3, FILM, 1, 1 / 15, SHORT, 3]], "right"),
    "mixed_left": ([[6], [2, TALL, 3, WIDE, 5], [1, 1.5, FILM, 2, SMALL, 4]], "left"),
    "mixed_right": ([[2, WIDE, 0.5, FILM, 5], [7], [3, SMALL, 1.0, SHORT, 2, 1.5, FILM, 1]], "right"),
}
# Of several frame rates. Six patches of 0.08 s at 5 steps a second tell in which order the factors are multiplied.
SECONDS = tuple(2 / rate for rate in (0.5, 1, 4 / 3, 2, 2.4, 3, 4, 5, 25, 30))


def make_batch(rows: list[list], side: str, rng: np.random.Generator) -> Batch:
    """Random tokens, pixels and labels for a batch laid out like `rows`."""
    made = [make_row(row, rng) for row in rows]
    length = max(len(ids) for ids, *_ in made)
    batch = {
        "input_ids": np.full((len(made), length), PAD),
        "labels": np.full((len(made), length), -100),
        "attention_mask": np.zeros((len(made), length), dtype=np.int64),
    }
    for index, (ids, *_) in enumerate(made):
        place = slice(length - len(ids), length) if side == "left" else slice(0, len(ids))
        is_asked = (np.array(ids) < TEXT_TOKENS) & (rng.random(len(ids)) < 0.7)
        batch["input_ids"][index, place] = ids
        batch["attention_mask"][index, place] = 1
        batch["labels"][index, place] = np.where(is_asked, ids, -100)
    grids = [grid for _, grids, *_ in made for grid in grids], [grid for _, _, grids, _ in made for grid in grids]
    for pixels, key, chosen in zip(
        ("pixel_values", "pixel_values_videos"), ("image_grid_thw", "video_grid_thw"), grids, strict=True
    ):
        if chosen:
            batch[key] = np.array(chosen)
            batch[pixels] = make_pixels(chosen, rng)
    seconds = [lasting for *_, of_row in made for lasting in of_row]
    return batch | ({"second_per_grid_ts": np.array(seconds, dtype=np.float32)} if seconds else {})


def make_row(parts: list, rng: np.random.Generator) -> tuple[list[int], list[Grid], list[Grid], list[float]]:
    """Tokens of one row, the grids of its images and of its videos, and how long patches of these last."""
    ids: list[int] = []
    images: list[Grid] = []
    videos: list[Grid] = []
    seconds: list[float] = []
    is_video = False
    for part in parts:
        if part == "video":
            is_video = True
        elif isinstance(part, float):
            is_video = True
            seconds.append(part)
        elif part == "cut":
            del ids[-1]
        elif isinstance(part, int):
            ids += rng.integers(1, TEXT_TOKENS, part).tolist()
        else:
            count = int(np.prod(part)) // 4
            ids += [START, *[VIDEO if is_video else IMAGE] * count, END]
            (videos if is_video else images).append(part)
            is_video = False
    return ids, images, videos, seconds


def make_pixels(grids: list[Grid], rng: np.random.Generator) -> np.ndarray:
    """Random patches, in steps that keep the file small."""
    patches = sum(int(np.prod(grid)) for grid in grids)
    return (rng.integers(-16, 17, (patches, PATCH_VALUES)) / 8).astype(np.float32)


def inputs_of(arrays: Batch, batch_name: str) -> Batch:
    """A batch's inputs out of all arrays."""
    return {key: arrays[f"{batch_name}/{key}"] for key in INPUTS if f"{batch_name}/{key}" in arrays}


def random_row(rng: np.random.Generator, seconds: tuple[float, ...] = ()) -> list:
    """One to seven parts; a row may begin or end with an image, and images may touch; a patch may last `seconds`."""
    row: list = []
    for kind in rng.choice(["text", "image", "video"], rng.integers(1, 8)):
        height, width = (2 * rng.integers(1, 5, 2)).tolist()
        if kind == "text":
            row.append(int(rng.integers(1, 9)))
        elif kind == "image":
            row.append((1, height, width))
        else:
            grid = (int(rng.integers(1, 13 if seconds else 5)), height, width)
            row += [float(rng.choice(seconds)) if seconds else "video", grid]
    return row
