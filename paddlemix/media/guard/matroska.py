"""What opening an MKV or a WebM will cost, from its elements beside the frames.

FFmpeg makes up to 200 bytes in memory of three in the file.
"""

from __future__ import annotations

from typing import IO

from paddlemix.media.guard.regular import RefusedError

MOST_ELEMENTS = 100_000
MOST_ATTACHMENTS = 256
_SEGMENT, _CLUSTER = 0x18538067, 0x1F43B675
_CUES, _ATTACHMENTS = 0x1C53BB6B, 0x1941A469
_VOID = 0xEC
# Bytes of all elements of a kind; of kinds that are not listed here, of each.
_MOST_BYTES = {_CUES: 1 << 23, _ATTACHMENTS: 1 << 26}
_MOST_BYTES_OF_OTHERS = 1 << 20


def check_matroska(file: IO[bytes], length: int) -> None:
    """Refuse an MKV or a WebM whose lists of tracks, tags and the like would take far more memory than they have bytes.

    Args:
        file: of the video.
        length: of the file in bytes.

    Raises:
        RefusedError: it is refused; the message goes on from the video's name.
    """
    position, sums = 0, dict.fromkeys(_MOST_BYTES, 0)
    for _ in range(MOST_ELEMENTS):
        kind, size, start = _element(file, position)
        if not kind:
            return
        if kind == _SEGMENT:
            position = start
            continue
        if kind == _CLUSTER and size is None:
            return  # of a live recording: frames up to the end
        size = length - start if size is None else size
        if kind not in (_CLUSTER, _VOID):
            sums[kind] = sums.get(kind, 0) + min(size, length - start)
            if sums[kind] > (most := _MOST_BYTES.get(kind, _MOST_BYTES_OF_OTHERS)):
                raise RefusedError(f"has {sums[kind]} bytes of one kind of metadata; at most {most} are read.")
        if kind == _ATTACHMENTS:
            _check_attachments(file, start, start + size)
        position = start + size
    raise RefusedError(f"has more than {MOST_ELEMENTS} parts; write it anew.")


def _check_attachments(file: IO[bytes], position: int, end: int) -> None:
    for _ in range(MOST_ATTACHMENTS + 1):
        kind, size, start = _element(file, position)
        if not kind or size is None or position >= end:
            return
        position = start + size
    raise RefusedError(f"has more than {MOST_ATTACHMENTS} attachments; write it anew without them.")


def _element(file: IO[bytes], position: int) -> tuple[int, int | None, int]:
    """Read an element's kind, its size (None where it is unknown), and where it begins; kind 0 at the end."""
    file.seek(position)
    head = file.read(12)
    kind_bytes = 9 - head[0].bit_length() if head else 0
    if not 1 <= kind_bytes <= 4 or len(head) <= kind_bytes or not head[kind_bytes]:
        return 0, None, position
    size_bytes = 9 - head[kind_bytes].bit_length()
    digits = head[kind_bytes : kind_bytes + size_bytes]
    value = int.from_bytes(digits, "big") & ((1 << 7 * size_bytes) - 1)
    is_unknown = value == (1 << 7 * size_bytes) - 1
    start = position + kind_bytes + size_bytes
    return int.from_bytes(head[:kind_bytes], "big"), None if is_unknown else value, start
