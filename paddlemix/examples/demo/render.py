"""Draws a scene into an image.

Every outline is scaled so that it touches all four sides of the unit square: a shape's bounds are its bounding box.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

from paddlemix.examples.demo.scene import SIDE, Bounds, Scene, Shape

COLOR_RGB = {
    "red": (214, 32, 36),
    "green": (30, 150, 50),
    "blue": (36, 72, 216),
    "yellow": (246, 226, 40),
    "white": (247, 247, 247),
    "black": (18, 18, 18),
    "purple": (134, 40, 168),
    "orange": (248, 134, 18),
    "cyan": (36, 214, 226),
}
TINT_RGB = {
    "grey": (150, 150, 150),
    "beige": (184, 170, 142),
    "pink": (192, 158, 164),
    "mint": (148, 178, 160),
    "lilac": (160, 154, 184),
}
COLOR_JITTER = 10
TINT_JITTER = 8
SUPERSAMPLING = 4


def _polygon(*points: tuple[float, float]) -> np.ndarray:
    return np.array(points, dtype=np.float64)


def _fit_unit_square(points: np.ndarray) -> np.ndarray:
    low, high = points.min(axis=0), points.max(axis=0)
    return (points - low) / (high - low)


def _circle(corners: int = 64) -> np.ndarray:
    turn = np.arange(corners) * (2 * math.pi / corners)
    return 0.5 + 0.5 * np.stack([np.cos(turn), np.sin(turn)], axis=1)


def _star() -> np.ndarray:
    turn = np.arange(10) * (math.pi / 5)
    radius = np.where(np.arange(10) % 2, 0.42, 1.0)
    return _fit_unit_square(np.stack([radius * np.sin(turn), -radius * np.cos(turn)], axis=1))


def _heart(corners: int = 64) -> np.ndarray:
    turn = np.arange(corners) * (2 * math.pi / corners)
    height = 13 * np.cos(turn) - 5 * np.cos(2 * turn) - 2 * np.cos(3 * turn) - np.cos(4 * turn)
    return _fit_unit_square(np.stack([16 * np.sin(turn) ** 3, -height], axis=1))


_BAR, _RIM = 1 / 3, 2 / 3
_TAIL_TOP, _TAIL_BOTTOM, _NECK = 0.3, 0.7, 0.5
# float64[corners, 2], x to the right and y down.
OUTLINES: dict[str, np.ndarray] = {
    "circle": _circle(),
    "ring": _circle(),
    "square": _polygon((0, 0), (1, 0), (1, 1), (0, 1)),
    "triangle": _polygon((0.5, 0), (1, 1), (0, 1)),
    "diamond": _polygon((0.5, 0), (1, 0.5), (0.5, 1), (0, 0.5)),
    "cross": _polygon(
        *((_BAR, 0), (_RIM, 0), (_RIM, _BAR), (1, _BAR), (1, _RIM), (_RIM, _RIM)),
        *((_RIM, 1), (_BAR, 1), (_BAR, _RIM), (0, _RIM), (0, _BAR), (_BAR, _BAR)),
    ),
    "star": _star(),
    "heart": _heart(),
    "arrow": _polygon(
        *((0, _TAIL_TOP), (_NECK, _TAIL_TOP), (_NECK, 0), (1, 0.5)),
        *((_NECK, 1), (_NECK, _TAIL_BOTTOM), (0, _TAIL_BOTTOM)),
    ),
}
HOLES: dict[str, np.ndarray] = {"ring": 0.5 + 0.55 * (_circle() - 0.5)}


def render_scene(scene: Scene) -> Image.Image:
    """Draw a scene; equal scenes give equal images.

    Args:
        scene: what to show.

    Returns:
        An RGB image of `SIDE` x `SIDE` pixels.
    """
    rng = np.random.default_rng(scene.grain)
    canvas = _paint_ground(scene, rng)
    for shape in scene.shapes:
        _paint_shape(canvas, shape, rng)
    # Three random bits a value are enough noise, and cost a tenth of drawing normal numbers.
    canvas += (np.frombuffer(rng.bytes(canvas.size), np.uint8).reshape(canvas.shape) & 7).astype(np.float32) - 3.5
    return Image.fromarray(canvas.clip(0, 255).astype(np.uint8))


def _jitter(rgb: tuple[int, int, int], width: int, rng: np.random.Generator) -> np.ndarray:
    return np.array(rgb, np.float32) + rng.uniform(-width, width, 3).astype(np.float32)


def _paint_ground(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    color = _jitter(TINT_RGB[scene.tint], TINT_JITTER, rng)
    contrast = np.float32(rng.uniform(8, 16))
    return PATTERNS[scene.texture](rng)[:, :, None] * contrast + color


def _slope(angle: float) -> np.ndarray:
    """Compute the distance of every pixel along a direction, float32[SIDE, SIDE], in pixels from the centre."""
    steps = np.arange(SIDE, dtype=np.float32) - (SIDE - 1) / 2
    return np.add.outer(np.float32(math.sin(angle)) * steps, np.float32(math.cos(angle)) * steps)


def _waves(slope: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    period = rng.uniform(14, 40)
    wave = np.sin(slope * np.float32(2 * math.pi / period) + np.float32(rng.uniform(0, 2 * math.pi)))
    return (3 * wave).clip(-1, 1)


def _mottled(rng: np.random.Generator) -> np.ndarray:
    cells = int(rng.integers(8, 28))
    coarse = Image.fromarray(rng.uniform(-1, 1, (cells, cells)).astype(np.float32))
    return np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def _shaded(rng: np.random.Generator) -> np.ndarray:
    return _slope(rng.uniform(0, 2 * math.pi)) * np.float32(2 / SIDE)


def _striped(rng: np.random.Generator) -> np.ndarray:
    return _waves(_slope(rng.uniform(0, math.pi)), rng)


def _checked(rng: np.random.Generator) -> np.ndarray:
    angle = rng.uniform(0, math.pi / 2)
    return _waves(_slope(angle), rng) * _waves(_slope(angle + math.pi / 2), rng)


# Each gives float32[SIDE, SIDE], about -1..1.
PATTERNS: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "mottled": _mottled,
    "shaded": _shaded,
    "striped": _striped,
    "checked": _checked,
}


def _paint_shape(canvas: np.ndarray, shape: Shape, rng: np.random.Generator) -> None:
    left, top, right, bottom = frame = _whole_pixels(shape.bounds)
    cover = shape_cover(shape, frame)[:, :, None]
    patch = canvas[top:bottom, left:right]
    patch += cover * (_jitter(COLOR_RGB[shape.color], COLOR_JITTER, rng) - patch)


def _whole_pixels(bounds: Bounds) -> tuple[int, int, int, int]:
    left, top, right, bottom = bounds
    return math.floor(left), math.floor(top), math.ceil(right), math.ceil(bottom)


def shape_cover(shape: Shape, frame: tuple[int, int, int, int]) -> np.ndarray:
    """Compute how much of each pixel a shape covers.

    Args:
        shape: the shape.
        frame: left, top, right, bottom of the pixels asked for; must hold the shape's bounds.

    Returns:
        float32[bottom - top, right - left], 0..1.
    """
    left, top, right, bottom = frame
    mask = Image.new("L", ((right - left) * SUPERSAMPLING, (bottom - top) * SUPERSAMPLING))
    draw = ImageDraw.Draw(mask)
    draw.polygon(_mask_points(OUTLINES[shape.kind], shape, frame), fill=255)
    if shape.kind in HOLES:
        draw.polygon(_mask_points(HOLES[shape.kind], shape, frame), fill=0)
    return np.asarray(mask.reduce(SUPERSAMPLING), np.float32) / 255


def _mask_points(outline: np.ndarray, shape: Shape, frame: tuple[int, int, int, int]) -> list[tuple[float, float]]:
    left, top, right, bottom = shape.bounds
    unit = np.abs(outline - (1, 0)) if shape.mirrored else outline
    points = unit * (right - left, bottom - top) + (left - frame[0], top - frame[1])
    # Pillow counts from the first pixel's centre, half a pixel on from its corner, but widens a polygon by a pixel to
    # the left and top. Not taking the first half off shares that widening out between the sides.
    return [(x, y) for x, y in (points * SUPERSAMPLING).tolist()]
