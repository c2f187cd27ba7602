"""The pictures and texts that are prepared, the same for every library. Needs numpy and Pillow alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

PICTURES, WIDTH, HEIGHT = 64, 640, 480
MAX_PIXELS = 1280 * 28 * 28
QUESTION = "What is shown in this picture, and where does it stand?"


def make_pictures(folder: Path) -> list[Path]:
    """JPEG files of smooth noise, which compress about as photographs do."""
    paths = [folder / f"{number}.jpg" for number in range(PICTURES)]
    for number, path in enumerate(paths):
        noise = np.random.default_rng(number).integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3)).astype(np.uint8)
        Image.fromarray(noise).resize((WIDTH, HEIGHT)).save(path, quality=90)
    return paths


def mixed_lengths(count: int, *, median: float = 300, longest: int = 2048) -> np.ndarray:
    """int64[count]: log-normal, as the lengths of dialogues are."""
    drawn = np.random.default_rng(0).lognormal(np.log(median), 0.8, count)
    return drawn.clip(8, longest).astype(np.int64)
