"""The images and texts that are prepared, the same for every library. Needs numpy and Pillow alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

IMAGES, WIDTH, HEIGHT = 64, 640, 480
MAX_PIXELS = 1280 * 28 * 28
TEXTS, LONGEST = 400, 2048
QUESTION = "What is shown in this picture, and where does it stand?"


def make_images(folder: Path) -> list[Path]:
    """Make JPEG files of smooth noise, which compress about as photographs do."""
    paths = [folder / f"{number}.jpg" for number in range(IMAGES)]
    for number, path in enumerate(paths):
        noise = np.random.default_rng(number).integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3)).astype(np.uint8)
        Image.fromarray(noise).resize((WIDTH, HEIGHT)).save(path, quality=90)
    return paths


def mixed_lengths(count: int, *, median: float = 300) -> np.ndarray:
    """Draw int64[count]: log-normal, as the lengths of dialogues are."""
    drawn = np.random.default_rng(0).lognormal(np.log(median), 0.8, count)
    return drawn.clip(8, LONGEST).astype(np.int64)


def padded_batches(lengths: np.ndarray, rows: int) -> list[np.ndarray]:
    """Choose which of the lengths each batch holds, int64[rows], drawn at random."""
    return np.split(np.random.default_rng(3).permutation(len(lengths)), len(lengths) // rows)


def text_of(length: int, vocabulary: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw ids and labels int64[length]; the second half is asked for."""
    ids = np.random.default_rng(length).integers(0, vocabulary - 8, length)
    return ids, np.where(np.arange(length) < length // 2, -100, ids)
