"""Transparent images laid on white ground.

Source: `to_rgb` of the published qwen-vl-utils, which does so for RGBA; here it holds for every kind of transparency.
"""

from __future__ import annotations

from PIL import Image

WHITE = (255, 255, 255)
# What the grey levels of a PNG of so many bits are multiplied by when they become 8 bits.
_STEPS = {"L;2": 85, "L;4": 17}


def on_white(image: Image.Image) -> Image.Image:
    """Convert to RGB, with white behind what is transparent.

    Args:
        image: of 8 bits a channel or fewer.

    Returns:
        The image; itself, not a copy, where it is in RGB and opaque.
    """
    if image.has_transparency_data:
        return _laid_on_white(image)
    return image if image.mode == "RGB" else image.convert("RGB")


def settle_transparent_value(image: Image.Image) -> None:
    """Count the transparent value of a PNG as its pixels are counted once they are decoded.

    Pillow keeps the value as the file has it, but widens grey levels of 2 and 4 bits to 8, and keeps of 16-bit colours
    the upper 8 bits.

    Args:
        image: opened, not decoded yet; its `info` is changed.
    """
    value, tiles = image.info.get("transparency"), getattr(image, "tile", None)
    layout = tiles[0][3] if tiles else ""
    if isinstance(value, int) and isinstance(layout, str) and layout in _STEPS:
        image.info["transparency"] = value * _STEPS[layout]
    elif isinstance(value, tuple) and layout == "RGB;16B":
        image.info["transparency"] = tuple(channel >> 8 for channel in value)


def _laid_on_white(image: Image.Image) -> Image.Image:
    # Pillow knows no direct way from grey levels that were multiplied by their opacity.
    with_opacity = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
    opacity = with_opacity.getchannel("A")
    # Many images have opacity and are opaque; comparing takes a seventh of what mixing takes.
    if opacity.tobytes() == b"\xff" * (image.width * image.height):
        return with_opacity.convert("RGB")
    ground = Image.new("RGB", image.size, WHITE)
    ground.paste(with_opacity, mask=opacity)
    return ground
