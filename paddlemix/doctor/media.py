"""What draws labels, and what decodes images and videos."""

from __future__ import annotations

import warnings
from importlib import import_module

from PIL import ImageFont, features
from PIL import __version__ as pillow_version

from paddlemix.doctor.finding import Finding
from paddlemix.doctor.installed import version_of
from paddlemix.visualization.fonts import font_for

_CHINESE = "图像中的一只猫"
_KINDS = {"jpg": "JPEG", "zlib": "PNG", "webp": "WebP", "avif": "AVIF"}


def check_fonts() -> Finding:
    """Look for a font that has Chinese characters."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        font = font_for(_CHINESE, 16)
    if told:
        advice = "pip install noto-cjk[sans], or a system font such as fonts-noto-cjk."
        return Finding("fonts", "none for Chinese: labels on drawn images show a placeholder", advice)
    name = " ".join(filter(None, font.getname())) if isinstance(font, ImageFont.FreeTypeFont) else "Pillow's own"
    return Finding("fonts", f"{name}, Chinese too")


def check_images() -> list[Finding]:
    """Look at what decodes images."""
    kinds = {name: features.check(code) for code, name in _KINDS.items()}
    found = f"Pillow {pillow_version}: {', '.join(name for name, there in kinds.items() if there)}"
    lacking = [name for name in ("JPEG", "PNG", "WebP") if not kinds[name]]
    advice = f"Without {', '.join(lacking)}: install Pillow's own wheel (pip install --force-reinstall pillow)."
    lines = [Finding("images", found, advice if lacking else "")]
    heif = version_of("pillow-heif")
    return [
        *lines,
        Finding("HEIC images", f"pillow-heif {heif}")
        if heif
        else Finding("HEIC images", "not decoded", "Where your images are HEIC (iPhones): pip install pillow-heif"),
    ]


def check_videos() -> list[Finding]:
    """Look at what decodes videos: PyAV, or OpenCV where that is not there."""
    pyav, why_not_pyav = _imported("av")
    opencv, why_not_opencv = _imported("cv2")
    if pyav:
        return [Finding("videos", f"PyAV {pyav}" + (f", OpenCV {opencv}" if opencv else ""))]
    if opencv:
        advice = "pip install av, which tells damaged frames and knows the colours of each video."
        return [Finding("videos", f"OpenCV {opencv}; no PyAV ({why_not_pyav})", advice)]
    found = f"not decoded: no PyAV ({why_not_pyav}), no OpenCV ({why_not_opencv})"
    return [Finding("videos", found, "pip install av")]


def _imported(module: str) -> tuple[str, str]:
    """Import a decoder; return its version, or "" and why that fails."""
    try:
        return str(import_module(module).__version__), ""
    except Exception as error:  # a system library that is missing, in any form
        return "", f"{type(error).__name__}: {error}"
