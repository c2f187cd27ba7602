"""Opening videos: a file, an address, or the images of its frames."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Protocol

import numpy as np

from paddlemix.media.data_url import decode_data_url, is_data_url, shown
from paddlemix.media.fetch import FetchError, is_address
from paddlemix.media.frames import VideoError, VideoInfo
from paddlemix.media.images import image_size, open_image
from paddlemix.media.kept import fetch_kept
from paddlemix.media.opening import DEFAULT_OPENING, ImageError, ImageOpening
from paddlemix.media.unreadable.contents import HEAD_BYTES, what_it_is
from paddlemix.media.unreadable.missing import where_it_is_not

MAX_BYTES = 256 * 1024 * 1024
MAX_SECONDS = 60.0


class OpenVideo(Protocol):
    """A video that lends its frames.

    Attributes:
        info: what its header tells.
    """

    info: VideoInfo

    def read(self, indices: Sequence[int]) -> Iterator[np.ndarray]:
        """Decode frames.

        Args:
            indices: ascending, below `info.frames`.

        Returns:
            uint8[height, width, 3] each, in RGB, upright.
        """
        ...


@contextmanager
def open_video(path: str | tuple[str, ...], opening: ImageOpening = DEFAULT_OPENING) -> Iterator[OpenVideo]:
    """Lend a video whose header was read; what decoders run into while it is lent becomes a VideoError too.

    PyAV decodes, or OpenCV where PyAV is not installed. They give the same frames, but for videos that name another
    colour matrix than BT.601: OpenCV ignores it, and saturated colours are off (36 levels, measured for BT.709).

    Args:
        path: a local file, an http(s) address (at most 256 MB, 60 s), a data: URL, or the paths of the frames.
        opening: of images that are frames.

    Yields:
        The video.

    Raises:
        VideoError: it is missing, broken, empty, too large or too narrow.
        ImportError: neither PyAV nor OpenCV is installed.
    """
    name = shown(path) if isinstance(path, str) else _name_of_frames(path)
    try:
        with _opened(path, opening) as video:
            yield video
    except VideoError as error:
        raise VideoError(f"video {name} {error}") from error
    except FetchError as error:
        raise VideoError(f"video {error}") from error
    except ImageError as error:
        raise VideoError(f"video {name} cannot be shown: {error}") from error
    except FileNotFoundError as error:
        raise VideoError(f"video {name} does not exist.{where_it_is_not(name)}") from error
    except ImportError:
        raise
    except Exception as error:  # Broken bytes: the decoders raise ValueError, OSError, and errors of their own.
        problem = getattr(error, "strerror", None) or str(error)
        raise VideoError(
            f"video {name} is broken or in no format that is read (MP4, AVI, MKV ...): {problem}."
        ) from error


@contextmanager
def _opened(path: str | tuple[str, ...], opening: ImageOpening) -> Iterator[OpenVideo]:
    if isinstance(path, tuple):
        yield FrameFiles(path, opening)
    elif is_address(path) or is_data_url(path):
        body = _body(path)
        with tempfile.NamedTemporaryFile() as file:
            file.write(body)
            file.flush()
            yield _decoder(file.name)
    else:
        yield _decoder(path)


def _body(path: str) -> bytes:
    if is_data_url(path):
        return decode_data_url(path, max_bytes=MAX_BYTES)
    return fetch_kept(path, check=_why_no_video, max_bytes=MAX_BYTES, max_seconds=MAX_SECONDS)


def _why_no_video(body: bytes) -> str | None:
    """Tell what bytes are that are certainly no video, as a sentence without its subject; None where they may be."""
    content = what_it_is(body[:HEAD_BYTES], "video")
    return str(content) if content else None


def _name_of_frames(paths: tuple[str, ...]) -> str:
    return f"of the frames {', '.join(map(shown, paths[:2]))}{' ...' if paths[2:] else ''}"


def _decoder(path: str) -> OpenVideo:
    """Open a local video by whichever decoder is installed."""
    with open(path, "rb") as file:
        if problem := _why_no_video(file.read(HEAD_BYTES)):
            raise VideoError(problem)
    if find_spec("av"):
        from paddlemix.media.video_pyav import PyAVVideo

        return PyAVVideo(path)
    if find_spec("cv2"):
        from paddlemix.media.video_opencv import OpenCVVideo

        return OpenCVVideo(path)
    raise ImportError("videos are decoded by PyAV or OpenCV, and neither is installed: pip install av")


class FrameFiles:
    """A video given as the images of its frames, all of which are shown."""

    def __init__(self, paths: tuple[str, ...], opening: ImageOpening = DEFAULT_OPENING) -> None:
        if not paths:
            raise VideoError("has no frames.")
        sizes = [image_size(path, opening) for path in paths]
        for path, size in zip(paths, sizes, strict=True):
            if size != sizes[0]:
                raise VideoError(
                    f"has frames of several sizes: {shown(paths[0])} is {sizes[0]}, {shown(path)} is {size}."
                )
        width, height = sizes[0]
        self.info = VideoInfo(len(paths), None, width, height, is_sampled=True)
        self._paths, self._opening = paths, opening

    def read(self, indices: Sequence[int]) -> Iterator[np.ndarray]:
        """Open the images at `indices`, uint8[height, width, 3] each, in RGB."""
        for index in indices:
            yield np.asarray(open_image(self._paths[index], self._opening))
