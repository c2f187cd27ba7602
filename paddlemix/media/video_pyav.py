"""Videos decoded by PyAV."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import av
import numpy as np
from av.stream import Disposition

from paddlemix.media.data_url import shown
from paddlemix.media.frames import VideoError, VideoInfo
from paddlemix.media.guard.containers import (
    CODECS,
    CONTAINERS,
    MOST_PIXELS,
    SECONDS_VARIABLE,
    checked_container,
    most_seconds,
    needs_seeking,
)
from paddlemix.media.guard.metered import Deadline, MeteredFile
from paddlemix.media.guard.regular import open_regular
from paddlemix.media.video_limits import SPARE_FRAMES, check_size

logger = logging.getLogger(__name__)

# By how much the last packet may end before the length in the header: what is shown last may have no length of its own.
_SLACK_SECONDS, _SLACK = 1.0, 0.1
# No protocol, so that nothing in a file makes us open other files or addresses.
_OPTIONS = {
    "protocol_whitelist": "none",
    "format_whitelist": ",".join(CONTAINERS),
    "codec_whitelist": ",".join(CODECS),
    "max_pixels": str(MOST_PIXELS),
    "max_streams": "256",
    "use_odml": "0",
}
_LARGE_PIXELS, _THREADS_FOR_LARGE = 4096 * 2304, 2


class PyAVVideo:
    """A local video file.

    Args:
        path: of the file.

    Attributes:
        info: from the header and the first frame, which tells how the image is turned.
    """

    info: VideoInfo

    def __init__(self, path: str) -> None:
        self._path = path
        self._deadline = Deadline(most_seconds(), f"Cut it up, or raise {SECONDS_VARIABLE}.")
        with open_regular(path) as file:
            self._container = checked_container(file)
        with self._stream() as stream:
            check_size(stream.codec_context.width, stream.codec_context.height)
            first = next(stream.container.decode(stream), None)
            if first is None:
                raise VideoError("has no frames.")
            check_size(first.width, first.height)
            self._stored_size = first.width, first.height
            height, width = _upright(first).shape[:2]
            rate = float(stream.average_rate or stream.guessed_rate or 0) or None
            count = _count_in_header(stream)
        self.info = VideoInfo(count or self._count_packets(), rate, width, height)

    def read(self, indices: Sequence[int]) -> Iterator[np.ndarray]:
        """Decode the frames at `indices`, uint8[height, width, 3] each, in RGB."""
        wanted, count, last, is_damaged = set(indices), 0, None, False
        with self._stream() as stream:
            for frame in stream.container.decode(stream):
                self._deadline.check()
                # The decoder marks the frame in which it met the fault; those that are built on it look no better.
                is_damaged = frame.is_corrupt or (is_damaged and not frame.key_frame)
                if is_damaged and self.info.frames - count <= SPARE_FRAMES:
                    break
                if count in wanted:
                    if is_damaged:
                        raise VideoError(f"is damaged: its frame {count} cannot be decoded as it was.")
                    self._check_stored_size(frame, count)
                    yield _upright(frame)
                last = frame
                count += 1
                if count > indices[-1]:
                    return
        yield from self._stand_ins(last, count, sum(index >= count for index in wanted))

    def _check_stored_size(self, frame: Any, count: int) -> None:
        if (frame.width, frame.height) != self._stored_size:
            width, height = self._stored_size
            raise VideoError(
                f"changes its size: the first frame has {width} x {height} pixels, frame {count} has {frame.width} x "
                f"{frame.height}. Write it anew in one size."
            )

    def _stand_ins(self, last: Any, count: int, missing: int) -> Iterator[np.ndarray]:
        """Repeat the last frame, uint8[height, width, 3], for each one that the header promised at the very end."""
        if last is None or self.info.frames - count > SPARE_FRAMES:
            raise VideoError(f"is cut off or broken: {count} of its {self.info.frames} frames can be decoded.")
        logger.warning("video %s has %d frames, not the %d of its header.", shown(self._path), count, self.info.frames)
        for _ in range(missing):
            yield _upright(last)

    def _count_packets(self) -> int:
        """Count frames by what would be decoded, and refuse a file that ends long before its header says."""
        count, end = 0, 0.0
        with self._stream() as stream:
            container = stream.container
            for packet in container.demux():
                self._deadline.check()
                if packet.pts is not None:
                    end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
                count += packet.stream_index == stream.index and bool(packet.size) and not packet.is_discard
            # Cuts, which leave out some of the frames that a header counts, are known to this one kind of file.
            promised = 0 if "mp4" in container.format.name else stream.frames
            start, length = (time / av.time_base for time in (container.start_time or 0, container.duration or 0))
        if promised - count > SPARE_FRAMES:
            raise VideoError(f"is cut off: it holds {count} of the {promised} frames of its header.")
        if length - (end - start) > max(_SLACK_SECONDS, _SLACK * length):
            raise VideoError(f"is cut off: it ends after {end - start:.2f} of the {length:.2f} s of its header.")
        return count

    @contextmanager
    def _stream(self) -> Iterator[Any]:
        """Lend the first video stream, from its start."""
        with (
            open_regular(self._path) as file,
            av.open(
                MeteredFile(file, self._deadline, is_seekable=needs_seeking(self._container)),
                format=self._container,
                options=_OPTIONS,
                metadata_errors="replace",
            ) as container,
        ):
            streams = [one for one in container.streams.video if not one.disposition & Disposition.attached_pic]
            if not streams:
                raise VideoError(f"holds no video stream{', only sound' if container.streams.audio else ''}.")
            stream = streams[0]
            if stream.codec_context is None or stream.codec_context.codec.name not in CODECS:
                name = stream.codec_context.codec.name if stream.codec_context else "a codec that FFmpeg does not know"
                raise VideoError(f"is coded by {name}, which is not read. Convert it to H.264.")
            stream.codec_context.options = {"max_pixels": str(MOST_PIXELS)}
            stream.thread_type = "AUTO"
            # Each thread holds frames of its own.
            pixels = stream.codec_context.width * stream.codec_context.height
            if pixels > _LARGE_PIXELS:
                stream.codec_context.thread_count = _THREADS_FOR_LARGE
            yield stream


def _count_in_header(stream: Any) -> int:
    """Count frames as the header tells them; 0 where it does not, or where cuts left out some of those it counts."""
    if not (stream.frames and stream.average_rate and stream.container.duration):
        return 0
    expected = stream.container.duration / av.time_base * stream.average_rate
    return stream.frames if abs(stream.frames - expected) <= 1 else 0


def _upright(frame: Any) -> np.ndarray:
    """Convert a frame to uint8[height, width, 3] in RGB, turned as its display matrix says."""
    # BGR and bicubic chroma are what OpenCV asks for; RGB takes another path, with other rounding.
    pixels = frame.reformat(format="bgr24", interpolation="BICUBIC").to_ndarray()[..., ::-1]
    return np.rot90(pixels, round(frame.rotation / 90))
