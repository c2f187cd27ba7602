"""Which videos are opened: containers by their first bytes, and codecs by name.

FFmpeg would find some 370 formats, among them texts that name other files and addresses (playlists, session
descriptions, lists of files) and texts that it draws as a film. It is asked for the container that was found here.
"""

from __future__ import annotations

import os
from typing import IO

from paddlemix.media.guard.matroska import check_matroska
from paddlemix.media.guard.mp4 import check_mp4
from paddlemix.media.guard.regular import RefusedError, length_of

NAMES = "MP4, MOV, MKV, WebM, AVI, MPEG, FLV, WMV or Ogg"
# Of H.264, H.265 and AV1 at their highest levels: 8192 x 4352.
MOST_PIXELS = 35_651_584
SECONDS_VARIABLE = "PADDLEMIX_VIDEO_SECONDS"
_USUAL_SECONDS = 600.0
_HEAD_BYTES = 400
_MP4, _MATROSKA = "mov", "matroska"
_MPEG_TS_PACKET = 188
_BEGINNINGS = (
    (b"\x1aE\xdf\xa3", _MATROSKA),
    (b"OggS\0", "ogg"),
    (b"\x00\x00\x01\xba", "mpeg"),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c", "asf"),
)
_MP4_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"styp")
CONTAINERS = ("mov", "matroska", "avi", "mpegts", "mpeg", "flv", "asf", "ogg")
CODECS = (
    *("h264", "hevc", "av1", "libdav1d", "libaom-av1", "vp8", "vp9", "libvpx", "libvpx-vp9", "mpeg4", "mpeg1video"),
    *("mpeg2video", "mjpeg", "msmpeg4v1", "msmpeg4v2", "msmpeg4", "wmv1", "wmv2", "wmv3", "vc1", "flv", "h263", "h261"),
    *("theora", "prores", "dnxhd", "dvvideo", "ffv1", "huffyuv", "ffvhuff", "utvideo", "rawvideo", "cinepak", "svq3"),
    *("svq1", "vp6", "vp6f", "vp6a", "h263i", "h263p", "png", "qtrle"),
)


def checked_container(file: IO[bytes]) -> str:
    """Tell which container a file is, and refuse one whose tables would take far more memory than the file has.

    Args:
        file: of the video; left at its beginning.

    Returns:
        FFmpeg's name of the container.

    Raises:
        RefusedError: it is in no container that is opened, or would cost too much; the message goes on from its name.
    """
    length = length_of(file)
    head = file.read(_HEAD_BYTES)
    container = container_of(head)
    if container is None and _is_sound(head):
        raise RefusedError("holds no video stream, only sound.")
    if container is None:
        raise RefusedError(f"is broken or in no format that is read; expected {NAMES}.")
    if container == _MP4:
        check_mp4(file, length)
    elif container == _MATROSKA:
        check_matroska(file, length)
    file.seek(0)
    return container


def container_of(head: bytes) -> str | None:
    """Tell in which container bytes begin; None where none is known."""
    if head[4:8] in _MP4_BOXES:
        return _MP4
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "avi"
    if head[:4] == b"FLV\x01" and head[5:9] == b"\0\0\0\x09":
        return "flv"
    # Packets of 188 bytes, or of 192 with the time before them.
    for start, packet in ((0, _MPEG_TS_PACKET), (4, _MPEG_TS_PACKET + 4)):
        if head[start : start + 2 * packet : packet] == b"GG":
            return "mpegts"
    return next((name for beginning, name in _BEGINNINGS if head.startswith(beginning)), None)


def _is_sound(head: bytes) -> bool:
    is_mp3 = head.startswith(b"ID3") or (head[:1] == b"\xff" and head[1:2] >= b"\xe0")
    return is_mp3 or head.startswith(b"fLaC") or (head[:4] == b"RIFF" and head[8:12] == b"WAVE")


def needs_seeking(container: str) -> bool:
    """Tell whether a container is read by going to and fro.

    All others are read from end to end, so that what they say of other places (indexes that lie over one another) is
    never followed.
    """
    return container == _MP4


def most_seconds() -> float:
    """Return how long decoding one video may take, by `PADDLEMIX_VIDEO_SECONDS` or else 600 s."""
    given = os.environ.get(SECONDS_VARIABLE, "")
    try:
        seconds = float(given) if given else _USUAL_SECONDS
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise RefusedError(f"cannot be opened: {SECONDS_VARIABLE} is {given!r}; expected a number of seconds above 0.")
    return seconds
