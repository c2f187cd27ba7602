"""Videos that are made of images: a list of frames, a folder of them, or one image file, animated or not."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from paddlemix.media.data_url import shown
from paddlemix.media.frames import VideoError, VideoInfo
from paddlemix.media.guard.formats import HEAD_BYTES, kind_of
from paddlemix.media.guard.regular import open_regular
from paddlemix.media.images import image_size, lent_image, open_image, upright
from paddlemix.media.opening import DEFAULT_OPENING, ImageOpening

FRAME_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm")
# Other formats hold several images that follow no time: the pages of a TIFF, a JPEG's image of the depth.
_ANIMATED = ("GIF", "WEBP", "PNG")
# As browsers and FFmpeg do: a delay too short to be meant lasts a tenth of a second.
_SHORTEST_DELAY, _USUAL_DELAY = 20, 100


def is_image_file(path: str) -> bool:
    """Tell by its first bytes whether a file is an image that Pillow reads.

    Args:
        path: of a local file.

    Returns:
        Whether it is of a kind that is opened.
    """
    with open_regular(path) as file:
        return kind_of(file.read(HEAD_BYTES)) is not None


def frames_in(folder: Path) -> tuple[str, ...]:
    """Find the images of a folder, which are a video's frames.

    Args:
        folder: exists; what is hidden in it or bears no name of an image is passed over, and so are folders in it.

    Returns:
        Their paths in natural order: the frame 2 comes before the frame 10.

    Raises:
        VideoError: it holds no image; the message goes on from the folder's name.
    """
    held = [path for path in folder.iterdir() if not path.name.startswith(".")]
    frames = [path for path in held if path.suffix.lower() in FRAME_SUFFIXES and path.is_file()]
    if not frames:
        what = f"holds {len(held)} files but no image" if held else "is an empty folder"
        raise VideoError(f"{what}; expected the images of its frames ({', '.join(FRAME_SUFFIXES)}).")
    return tuple(str(path) for path in sorted(frames, key=_natural_order))


def _natural_order(path: Path) -> tuple[list[str | int], str]:
    # Texts and numbers take turns, so that each is compared with its like.
    parts = re.split(r"(\d+)", path.name)
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], path.name


class FrameFiles:
    """A video given as the images of its frames, all of which are shown.

    Args:
        paths: of the images, in order.
        opening: how they are opened.

    Attributes:
        info: from the headers of all of them.
    """

    info: VideoInfo

    def __init__(self, paths: Sequence[str], opening: ImageOpening = DEFAULT_OPENING) -> None:
        if not paths:
            raise VideoError("has no frames.")
        sizes = [image_size(path, opening) for path in paths]
        (width, height), *_ = sizes
        # From the last one on, so that of several files with one size the first stays.
        named = {size: shown(path) for path, size in zip(reversed(paths), reversed(sizes), strict=True)}
        del named[sizes[0]]
        self.info = VideoInfo(len(paths), None, width, height, is_sampled=True, other_sizes=named)
        self._paths, self._opening = paths, opening

    def read(self, indices: Sequence[int]) -> Iterator[np.ndarray]:
        """Open the images at `indices`, uint8[height, width, 3] each, in RGB."""
        for index in indices:
            yield np.asarray(open_image(self._paths[index], self._opening))


class ImageFile:
    """An image file as a video: the one frame of a still image, or all of an animated GIF, WebP or PNG.

    Args:
        path: of a local file.
        opening: how it is opened.

    Attributes:
        info: from all frames, which have to be decoded to tell how long each is shown.
    """

    info: VideoInfo

    def __init__(self, path: str, opening: ImageOpening = DEFAULT_OPENING) -> None:
        self._path, self._opening = path, opening
        with lent_image(path, opening, every_frame=True) as image:
            width, height = upright(image, opening).size
            seconds = sum(_delays(image)) / 1000
            count = _count(image)
        self.info = VideoInfo(count, count / seconds if count > 1 else None, width, height)

    def read(self, indices: Sequence[int]) -> Iterator[np.ndarray]:
        """Decode the frames at `indices`, uint8[height, width, 3] each, in RGB."""
        with lent_image(self._path, self._opening) as image:
            for index in indices:
                image.seek(index)
                yield np.asarray(upright(image, self._opening))


def _count(image: Image.Image) -> int:
    return getattr(image, "n_frames", 1) if image.format in _ANIMATED else 1


def _delays(image: Image.Image) -> Iterator[float]:
    """Decode each frame and tell how many milliseconds it is shown."""
    for index in range(_count(image)):
        image.seek(index)
        image.load()
        delay = image.info.get("duration") or 0
        yield delay if delay >= _SHORTEST_DELAY else _USUAL_DELAY
