"""Colours that tell labels apart, and text that can be read on them."""

from __future__ import annotations

import colorsys
from collections.abc import Iterable

Rgb = tuple[int, int, int]

BLACK: Rgb = (0, 0, 0)
WHITE: Rgb = (255, 255, 255)

_SATURATION = 0.9
_BRIGHTNESS = (1.0, 0.65)
# From here on neighbouring hues look alike, so they are set apart by brightness too.
_MANY_LABELS = 8


def label_colors(labels: Iterable[str]) -> dict[str, Rgb]:
    """Give every distinct label a colour of its own, hues spread evenly over the circle.

    Args:
        labels: labels in any number of repetitions; the order of their first occurrence decides who gets what.

    Returns:
        Label to colour.
    """
    distinct = list(dict.fromkeys(labels))
    return {label: _color(place, len(distinct)) for place, label in enumerate(distinct)}


def _color(place: int, count: int) -> Rgb:
    brightness = _BRIGHTNESS[place % 2 if count >= _MANY_LABELS else 0]
    red, green, blue = colorsys.hsv_to_rgb(place / count, _SATURATION, brightness)
    return round(red * 255), round(green * 255), round(blue * 255)


def text_color(background: Rgb) -> Rgb:
    """Choose black or white, whichever contrasts more with `background`.

    Source: Web Content Accessibility Guidelines 2.1, relative luminance and contrast ratio.
    """
    luminance = sum(weight * _linear(level) for weight, level in zip((0.2126, 0.7152, 0.0722), background, strict=True))
    contrast_with_black, contrast_with_white = (luminance + 0.05) / 0.05, 1.05 / (luminance + 0.05)
    return BLACK if contrast_with_black >= contrast_with_white else WHITE


def _linear(level: int) -> float:
    value = level / 255
    return value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4
