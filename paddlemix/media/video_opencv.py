"""Videos decoded by OpenCV, where PyAV is not installed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import cv2
import numpy as np

from paddlemix.media.frames import VideoError, VideoInfo
from paddlemix.media.guard.containers import SECONDS_VARIABLE, checked_container, most_seconds
from paddlemix.media.guard.metered import Deadline
from paddlemix.media.guard.regular import open_regular
from paddlemix.media.video_limits import SPARE_FRAMES, check_size


class OpenCVVideo:
    """A local video file.

    Args:
        path: of the file.

    Attributes:
        info: from the header and from counting the frames, since the header's number may be an estimate.
    """

    info: VideoInfo

    def __init__(self, path: str) -> None:
        self._path = path
        self._deadline = Deadline(most_seconds(), f"Cut it up, or raise {SECONDS_VARIABLE}.")
        with open_regular(path) as file:
            checked_container(file)  # OpenCV gives no say in what FFmpeg finds the rest to be
        with self._capture() as capture:
            check_size(*(int(capture.get(side)) for side in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)))
            rate = capture.get(cv2.CAP_PROP_FPS) or None
            is_read, first = capture.read()
            if not is_read:
                raise VideoError("has no frames.")
            height, width = np.rot90(first, _turns(capture)).shape[:2]
            count = 1
            while capture.grab():
                self._deadline.check()
                count += 1
            promised = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        if promised - count > SPARE_FRAMES:
            raise VideoError(f"is cut off or broken: {count} of its {promised} frames can be decoded.")
        self.info = VideoInfo(count, rate, width, height)

    def read(self, indices: Sequence[int]) -> Iterator[np.ndarray]:
        """Decode the frames at `indices`, uint8[height, width, 3] each, in RGB."""
        wanted = set(indices)
        with self._capture() as capture:
            turns = _turns(capture)
            for place in range(indices[-1] + 1):
                self._deadline.check()
                if not capture.grab():
                    raise VideoError(f"is cut off or broken: {place} of its {self.info.frames} frames can be decoded.")
                if place in wanted:
                    yield np.rot90(capture.retrieve()[1], turns)[..., ::-1]

    @contextmanager
    def _capture(self) -> Iterator[cv2.VideoCapture]:
        capture = cv2.VideoCapture(self._path, cv2.CAP_FFMPEG)
        try:
            if not capture.isOpened():
                raise VideoError("is broken, or in no format that OpenCV reads (MP4, AVI, MKV ...).")
            capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)
            yield capture
        finally:
            capture.release()


def _turns(capture: cv2.VideoCapture) -> int:
    """Count the quarter turns to the left that set a frame upright; OpenCV gives degrees to the right."""
    return -round(capture.get(cv2.CAP_PROP_ORIENTATION_META) / 90)
