"""Finds a font that has the characters of a label, Chinese ones too."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path

from PIL import ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
FontFile = tuple[Path, int]

# File name and the face inside it: Noto's collections hold Japanese, Korean, then Simplified Chinese.
_CHINESE_FONTS = {
    "NotoSansCJK-Regular.ttc": 2,
    "NotoSansCJKsc-Regular.otf": 0,
    "NotoSansSC-Regular.otf": 0,
    "wqy-microhei.ttc": 0,
    "wqy-zenhei.ttc": 0,
}
_FOLDERS = (
    "/usr/share/fonts",
    "/usr/local/share/fonts",
    "~/.local/share/fonts",
    "~/.fonts",
    "~/Library/Fonts",
    "/Library/Fonts",
)
# Which characters a font has does not depend on its size, so they are looked up at one.
_PROBE_SIZE = 16
# Never a character, so fonts draw it with the sign they have for those they miss.
_NO_CHARACTER = "\U0010ffff"


def font_for(text: str, size: int) -> Font:
    """Choose the first font that has all characters of `text`, or failing that the one that misses fewest.

    Asked in this order: a Chinese font of the system, the one of the noto-cjk package, matplotlib's DejaVu Sans,
    Pillow's own.

    Args:
        text: what will be drawn.
        size: the font's size in pixels.

    Returns:
        The font. Where every font misses a character, Python's warnings say once which.
    """
    loaders: list[Callable[[int], Font]] = [
        *(partial(_load, path, index) for path, index in font_files()),
        _load_default,
    ]
    best = min(loaders, key=lambda load: len(missing_characters(load(_PROBE_SIZE), text)))
    if missing := missing_characters(best(_PROBE_SIZE), text):
        warnings.warn(
            f"no font here has {missing!r}, so labels show a placeholder: install the Python package noto-cjk[sans] or "
            f"a system font such as fonts-noto-cjk or fonts-wqy-microhei",
            stacklevel=2,
        )
    return best(size)


def missing_characters(font: Font, text: str) -> str:
    """Find the characters of `text` that `font` draws with its sign for missing ones, each once."""
    placeholder = _shape(font, _NO_CHARACTER)
    return "".join(
        character
        for character in dict.fromkeys(text)
        if not character.isspace() and _shape(font, character) == placeholder
    )


@lru_cache(maxsize=4096)
def _shape(font: Font, character: str) -> tuple[tuple[int, int], bytes]:
    mask = font.getmask(character, mode="L")
    return mask.size, bytes(mask)


@lru_cache(maxsize=32)
def _load(path: Path, index: int, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size, index=index)


@lru_cache(maxsize=32)
def _load_default(size: int) -> Font:
    return ImageFont.load_default(size)


@lru_cache(maxsize=1)
def font_files() -> tuple[FontFile, ...]:
    """List the font files of this machine that labels may be drawn with, best first."""
    return (*_system_fonts(), *_packaged_font(), *_matplotlib_font())


def _system_fonts() -> list[FontFile]:
    found: dict[str, Path] = {}
    for folder in _FOLDERS:
        for parent, _, names in os.walk(Path(folder).expanduser()):
            found.update({name: Path(parent, name) for name in _CHINESE_FONTS.keys() & set(names)})
    return [(found[name], index) for name, index in _CHINESE_FONTS.items() if name in found]


def _packaged_font() -> list[FontFile]:
    try:
        from noto_cjk import FontNotInstalled, otc_path
    except ImportError:
        return []
    try:
        path = otc_path("sans")
    except FontNotInstalled:
        return []
    return [(path, _CHINESE_FONTS["NotoSansCJK-Regular.ttc"])]


def _matplotlib_font() -> list[FontFile]:
    try:
        from matplotlib import get_data_path
    except ImportError:
        return []
    return [(Path(get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), 0)]
