"""Opening videos: a file, an address, a folder, or the images of its frames."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import numpy as np

from paddlemix.conversation import RecordError
from paddlemix.media.data_url import decode_data_url, is_data_url, shown
from paddlemix.media.fetch import FetchError, is_address
from paddlemix.media.frames import VideoError, VideoInfo
from paddlemix.media.guard.regular import RefusedError, open_regular
from paddlemix.media.kept import fetch_kept
from paddlemix.media.opening import DEFAULT_OPENING, ImageError, ImageOpening
from paddlemix.media.unreadable.contents import HEAD_BYTES, what_it_is
from paddlemix.media.unreadable.missing import where_it_is_not
from paddlemix.media.video_images import FrameFiles, ImageFile, frames_in, is_image_file

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
            uint8[height, width, 3] each, in RGB, upright; a frame may have one of `info.other_sizes`.
        """
        ...


@contextmanager
def open_video(path: str | tuple[str, ...], opening: ImageOpening = DEFAULT_OPENING) -> Iterator[OpenVideo]:
    """Lend a video whose header was read; what decoders run into while it is lent becomes a VideoError too.

    PyAV decodes, or OpenCV where PyAV is not installed. They give the same frames, but for videos that name another
    colour matrix than BT.601: OpenCV ignores it, and saturated colours are off (36 levels, measured for BT.709). Pillow
    opens image files, and whatever PyAV can tell of frames that are damaged is an error.

    Args:
        path: a local file, a folder of frames, an http(s) address (at most 256 MB, 60 s), a data: URL, or the paths of
            the frames. An image file is a video too: of its one frame, or of those of an animated GIF, WebP or PNG.
        opening: of images that are frames.

    Yields:
        The video.

    Raises:
        VideoError: it is missing, broken, empty, too large or too narrow.
        ImportError: neither PyAV nor OpenCV is installed.
    """
    name = name_of(path)
    try:
        with _opened(path, opening) as video:
            yield video
    except VideoError as error:
        raise VideoError(f"{name} {error}") from error
    except FetchError as error:
        raise VideoError(f"video {error}") from error
    except RefusedError as error:
        raise VideoError(f"{name} {error}") from error
    except ImageError as error:
        raise VideoError(f"{name} cannot be shown: {error}") from error
    except FileNotFoundError as error:
        where = where_it_is_not(path) if isinstance(path, str) else ""
        raise VideoError(f"{name} does not exist.{where}") from error
    except (ImportError, RecordError):  # the latter is of who was lent the video
        raise
    except Exception as error:  # Broken bytes: the decoders raise ValueError, OSError, and errors of their own.
        problem = getattr(error, "strerror", None) or str(error)
        raise VideoError(f"{name} is broken or in no format that is read (MP4, AVI, MKV ...): {problem}.") from error


@contextmanager
def _opened(path: str | tuple[str, ...], opening: ImageOpening) -> Iterator[OpenVideo]:
    if isinstance(path, tuple):
        yield FrameFiles(path, opening)
    elif is_address(path) or is_data_url(path):
        body = _body(path)
        with tempfile.NamedTemporaryFile() as file:
            file.write(body)
            file.flush()
            yield _file(file.name, opening)
    elif (folder := Path(path)).is_dir():
        yield FrameFiles(frames_in(folder), opening)
    else:
        yield _file(path, opening)


def _body(path: str) -> bytes:
    if is_data_url(path):
        return decode_data_url(path, max_bytes=MAX_BYTES)
    return fetch_kept(path, check=_why_no_video, max_bytes=MAX_BYTES, max_seconds=MAX_SECONDS)


def _why_no_video(body: bytes) -> str | None:
    """Tell what bytes are that are certainly no video, as a sentence without its subject; None where they may be."""
    content = what_it_is(body[:HEAD_BYTES], "video")
    return str(content) if content else None


def name_of(path: str | tuple[str, ...]) -> str:
    """Name a video in a message.

    Args:
        path: see `open_video`.

    Returns:
        The subject of a sentence.
    """
    if isinstance(path, str):
        return f"video {shown(path)}"
    return f"video of the frames {', '.join(map(shown, path[:2]))}{' ...' if path[2:] else ''}"


def _file(path: str, opening: ImageOpening) -> OpenVideo:
    """Open a local file: an image by Pillow, a video by whichever decoder is installed."""
    if is_image_file(path):
        return ImageFile(path, opening)
    with open_regular(path) as file:
        if problem := _why_no_video(file.read(HEAD_BYTES)):
            raise VideoError(problem)
    if find_spec("av"):
        from paddlemix.media.video_pyav import PyAVVideo

        return PyAVVideo(path)
    if find_spec("cv2"):
        from paddlemix.media.video_opencv import OpenCVVideo

        return OpenCVVideo(path)
    raise ImportError("videos are decoded by PyAV or OpenCV, and neither is installed: pip install av")
