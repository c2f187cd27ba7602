"""What a demo image shows: a textured ground and one to three shapes, drawn by lot from a vocabulary.

A scene is plain data. `render.py` turns it into pixels, `records.py` into questions and answers.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

SIDE = 224
SMALLEST, LARGEST = 0.25 * SIDE, 0.5 * SIDE
GAP = 3.0
# Kept free all round: every coordinate is then 100 to 900 thousandths, its first digit says the place to a tenth. With
# 45 beside 450 a small model sees boxes much later.
MARGIN = 0.1 * SIDE
TWIN_SHARE = 0.12

BASE_KINDS = ("circle", "square", "triangle", "diamond", "cross", "ring")
NEW_KINDS = ("star", "heart", "arrow")
BASE_COLORS = ("red", "green", "blue", "yellow", "white", "black")
NEW_COLORS = ("purple", "orange", "cyan")
# Stretched, these would be an oval or a rectangle and their name would be wrong.
EVEN_SIDED = frozenset({"circle", "square", "ring"})
TEXTURES = ("mottled", "shaded", "striped", "checked")
TINTS = ("grey", "beige", "pink", "mint", "lilac")

Lesson = Literal["place", "dense", "named", "where", "any_name", "mixed", "new"]
Label = tuple[str, str]
Bounds = tuple[float, float, float, float]


@dataclass(frozen=True)
class Vocabulary:
    """The shapes a set may show.

    Attributes:
        kinds: shape names.
        colors: colour names.
        required: (colour, kind) pairs of which every image shows at least one.
        counts: how often an image shows one shape, two, and so on; they add up to 1.
        step: bounds are multiples of this share of the image's side; 0 lets them lie anywhere.
        lesson: what is asked about an image to train on: "place" asks where its one shape is, "dense" for every shape,
            "named" for each shape by its name, "where" for the part of the image that each is in, "any_name" for
            two by name, colour or kind, "mixed" and "new" for anything.
    """

    kinds: tuple[str, ...]
    colors: tuple[str, ...]
    required: tuple[Label, ...]
    counts: tuple[float, ...] = (0.35, 0.4, 0.25)
    step: float = 0.0
    lesson: Lesson = "mixed"

    @cached_property
    def labels(self) -> tuple[Label, ...]:
        """All (colour, kind) pairs."""
        return tuple((color, kind) for color in self.colors for kind in self.kinds)


@dataclass(frozen=True)
class Shape:
    """One shape.

    Attributes:
        kind: its name, such as "circle".
        color: its colour's name.
        bounds: left, top, right, bottom in pixels; the outline touches all four.
        mirrored: drawn with left and right swapped.
    """

    kind: str
    color: str
    bounds: Bounds
    mirrored: bool = False

    @property
    def label(self) -> Label:
        """The (colour, kind) pair."""
        return self.color, self.kind

    @property
    def name(self) -> str:
        """Colour and kind in words, such as "red circle"."""
        return f"{self.color} {self.kind}"


@dataclass(frozen=True)
class Scene:
    """What one image shows.

    Attributes:
        shapes: from left to right, by their left edge.
        texture: the ground's pattern, one of `TEXTURES`.
        tint: the ground's colour, one of `TINTS`.
        grain: seed of everything that has no name: exact colours, the pattern's phase, noise.
    """

    shapes: tuple[Shape, ...]
    texture: str
    tint: str
    grain: int

    @cached_property
    def label_counts(self) -> Counter[Label]:
        """How often each (colour, kind) pair occurs."""
        return Counter(shape.label for shape in self.shapes)


_OLD_LABELS = tuple((color, kind) for color in BASE_COLORS for kind in BASE_KINDS)
# Which of several shapes is meant is what these lessons teach.
_OFTEN_SEVERAL = (0.15, 0.5, 0.35)
_ALL = Vocabulary(BASE_KINDS + NEW_KINDS, BASE_COLORS + NEW_COLORS, ())
VOCABULARIES = {
    "single": Vocabulary(BASE_KINDS, BASE_COLORS, _OLD_LABELS, counts=(1.0,), lesson="place"),
    "dense": Vocabulary(BASE_KINDS, BASE_COLORS, _OLD_LABELS, lesson="dense"),
    "named": Vocabulary(BASE_KINDS, BASE_COLORS, _OLD_LABELS, counts=_OFTEN_SEVERAL, lesson="named"),
    "where": Vocabulary(BASE_KINDS, BASE_COLORS, _OLD_LABELS, counts=_OFTEN_SEVERAL, lesson="where"),
    "tenths": Vocabulary(BASE_KINDS, BASE_COLORS, _OLD_LABELS, counts=_OFTEN_SEVERAL, step=0.1, lesson="any_name"),
    "all_tenths": Vocabulary(BASE_KINDS, BASE_COLORS, _OLD_LABELS, counts=_OFTEN_SEVERAL, step=0.1),
    "base": Vocabulary(BASE_KINDS, BASE_COLORS, _OLD_LABELS),
    "new": Vocabulary(
        _ALL.kinds,
        _ALL.colors,
        tuple(label for label in _ALL.labels if label not in _OLD_LABELS),
        counts=(0.5, 0.35, 0.15),
        lesson="new",
    ),
}


def draw_scene(vocabulary: Vocabulary, rng: random.Random) -> Scene:
    """Draw a scene by lot.

    Args:
        vocabulary: what may occur.
        rng: the only source of chance.

    Returns:
        A scene whose shapes' bounds do not meet. Two shapes share colour and kind in `TWIN_SHARE` of all scenes.
    """
    labels = _draw_labels(vocabulary, rng)
    places = _draw_places([kind for _, kind in labels], vocabulary.step * SIDE, rng)
    shapes = [
        Shape(kind, color, bounds, mirrored=rng.random() < 0.5)
        for (color, kind), bounds in zip(labels, places, strict=True)
    ]
    shapes.sort(key=lambda shape: shape.bounds)
    return Scene(tuple(shapes), rng.choice(TEXTURES), rng.choice(TINTS), rng.getrandbits(63))


def _draw_labels(vocabulary: Vocabulary, rng: random.Random) -> list[Label]:
    count = rng.choices(range(1, len(vocabulary.counts) + 1), vocabulary.counts)[0]
    twins = count > 1 and rng.random() < TWIN_SHARE / (1 - vocabulary.counts[0])
    labels = [rng.choice(vocabulary.required)]
    while len(labels) < count - twins:
        label = rng.choice(vocabulary.labels)
        if label not in labels:
            labels.append(label)
    return labels + [rng.choice(labels)] * twins


def _draw_places(kinds: list[str], step: float, rng: random.Random) -> list[Bounds]:
    # Large shapes can leave no room for the last one: then sizes are drawn anew, too.
    while True:
        places: list[Bounds] = []
        for kind in kinds:
            place = _find_room(_draw_size(kind, step, rng), places, step, rng)
            if place is None:
                break
            places.append(place)
        else:
            return places


def _draw_size(kind: str, step: float, rng: random.Random) -> tuple[float, float]:
    width = rng.uniform(SMALLEST, LARGEST)
    aspect = 1.0 if kind in EVEN_SIDED else rng.uniform(0.8, 1.25)
    return _snap(width, step), _snap(min(max(width / aspect, SMALLEST), LARGEST), step)


def _find_room(
    size: tuple[float, float], taken: list[Bounds], step: float, rng: random.Random, *, tries: int = 20
) -> Bounds | None:
    width, height = size
    for _ in range(tries):
        left, top = (_snap(rng.uniform(MARGIN, SIDE - MARGIN - extent), step) for extent in size)
        bounds = (left, top, left + width, top + height)
        if not any(bounds_meet(bounds, other) for other in taken):
            return bounds
    return None


def _snap(value: float, step: float) -> float:
    return round(value / step) * step if step else value


def bounds_meet(a: Bounds, b: Bounds) -> bool:
    """Tell whether two bounds overlap or come closer than `GAP` pixels in both directions."""
    return a[0] < b[2] + GAP and b[0] < a[2] + GAP and a[1] < b[3] + GAP and b[1] < a[3] + GAP
