"""What decoding a GIF will cost, from its blocks."""

from __future__ import annotations

from typing import IO, NamedTuple

from paddlemix.media.guard.regular import RefusedError

# Pillow puts a comment together piece by piece, which takes time by the square of its length.
MOST_COMMENT_BYTES = 1 << 18
# LZW makes at most so many pixels of a byte.
_MOST_FROM_A_BYTE = 4096
_SPARE_PIXELS = 1 << 20
_MOST_BLOCKS, _MOST_BLOCKS_OF_ALL = 100_000, 1_000_000  # before the first frame, and in all
_EXTENSION, _IMAGE, _COMMENT = 0x21, 0x2C, 0xFE


class GifFrames(NamedTuple):
    """What the blocks of a GIF tell.

    Attributes:
        frames: how many there are; where only the first was looked for, 1.
        width: pixels of what all frames and the screen span.
        height: pixels.
    """

    frames: int
    width: int
    height: int


def check_gif(file: IO[bytes], length: int, *, every_frame: bool = False) -> GifFrames:
    """Refuse a GIF that costs far more than images of its size do.

    Args:
        file: of the image.
        length: of the file in bytes.
        every_frame: whether to go on behind the first frame.

    Returns:
        The frames.

    Raises:
        RefusedError: it has too long comments, too many blocks, or too few bytes for its pixels.
    """
    file.seek(6)
    screen = file.read(7)
    width, height = int.from_bytes(screen[:2], "little"), int.from_bytes(screen[2:4], "little")
    if len(screen) == 7:
        _skip_colours(file, screen[4])
    frames = comments = blocks = 0
    while kind := file.read(1):
        blocks += 1
        if kind[0] == _EXTENSION:
            is_comment = file.read(1) == bytes([_COMMENT])
            size, pieces = _skip_pieces(file)
            comments, blocks = comments + is_comment * size, blocks + pieces
        elif kind[0] == _IMAGE and len(place := file.read(9)) == 9:
            frames += 1
            left, top, wide, high = (int.from_bytes(place[at : at + 2], "little") for at in range(0, 8, 2))
            width, height = max(width, left + wide), max(height, top + high)
            if not every_frame:
                break
            _skip_colours(file, place[8])
            file.read(1)
            blocks += _skip_pieces(file)[1]
        elif kind[0] == ord(";"):
            break
        if comments > MOST_COMMENT_BYTES:
            raise RefusedError(f"has {comments} bytes of comments; save it anew without them.")
        if blocks > (_MOST_BLOCKS_OF_ALL if frames else _MOST_BLOCKS):
            raise RefusedError(f"has {blocks} blocks or more; save it anew.")
    if width * height > _SPARE_PIXELS + length * _MOST_FROM_A_BYTE:
        raise RefusedError(f"has {length} bytes, too few for its {width} x {height} pixels.")
    return GifFrames(frames, width, height)


def _skip_colours(file: IO[bytes], flags: int) -> None:
    if flags & 0x80:
        file.read(3 << ((flags & 7) + 1))


def _skip_pieces(file: IO[bytes]) -> tuple[int, int]:
    """Skip pieces of up to 255 bytes, each behind its length; return how many bytes and pieces there were."""
    size = pieces = 0
    while (length := file.read(1)) and length[0]:
        size, pieces = size + len(file.read(length[0])), pieces + 1
    return size, pieces
