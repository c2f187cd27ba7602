"""What opening an MP4 will cost, from the tables of its tracks.

A table may count far more samples than the file has bytes: FFmpeg makes an entry in memory of each that is counted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import IO

from paddlemix.media.guard.regular import RefusedError

# Of all tracks: ten hours of video at 60 frames a second, and its sound. FFmpeg takes up to 60 bytes for each.
MOST_SAMPLES = 4_000_000
# Boxes are read whole to look for tables in them.
MOST_BOX_BYTES = 1 << 27
MOST_BOXES = 100_000
_MANY_BOXES = f"has more than {MOST_BOXES} boxes; write it anew without fragments."
_SPARE_SAMPLES = 5000
_FREE_EDITS = 16
# FFmpeg makes one entry of so many samples of sound that is not compressed.
_SOUND_SAMPLES = 1024
_PLAIN_SOUND = (
    b"sowt",
    b"twos",
    b"raw ",
    b"lpcm",
    b"in24",
    b"in32",
    b"fl32",
    b"fl64",
    b"ulaw",
    b"alaw",
    b"ipcm",
    b"fpcm",
)
# Bytes of an entry of each table, and where its number of entries stands behind the table's name.
_TABLES = {
    b"stts": (8, 8), b"ctts": (8, 8), b"stsc": (12, 8), b"stco": (4, 8), b"co64": (8, 8), b"stss": (4, 8),
    b"stsz": (4, 12), b"stz2": (0, 12), b"elst": (12, 8), b"trun": (0, 8), b"cmov": (0, 4),
}  # fmt: skip
_ANY_TABLE = re.compile(b"|".join(_TABLES))
_PARENTS = (
    *(b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"dinf", b"mvex", b"moof", b"traf", b"tref", b"udta"),
    *(b"meta", b"wave"),
)
_DEEPEST = 12  # FFmpeg goes ten boxes deep
_WITHOUT_TABLES = (b"mdat", b"free", b"skip", b"wide", b"ftyp", b"styp", b"uuid", b"sidx", b"emsg", b"prft", b"mfra")


def check_mp4(file: IO[bytes], length: int) -> None:
    """Refuse an MP4 whose tables count more samples than it can hold, or than are read.

    Args:
        file: of the video.
        length: of the file in bytes.

    Raises:
        RefusedError: it is refused; the message goes on from the video's name.
    """
    samples = 0
    for kind, start, inside, end in boxes(file, 0, length, most=MOST_BOXES, refusal=_MANY_BOXES):
        if kind == b"moov":
            for _, first, _, last in boxes(file, inside, end, most=MOST_BOXES, refusal=_MANY_BOXES):
                samples += _samples(_content(file, first, last), length)
        elif kind not in _WITHOUT_TABLES and inside < end:
            samples += _samples(_content(file, start, end), length)
        if samples > MOST_SAMPLES:
            raise RefusedError(f"counts {samples} samples in its tables; at most {MOST_SAMPLES} are read. Cut it up.")


def boxes(file: IO[bytes], start: int, end: int, *, most: int, refusal: str) -> Iterator[tuple[bytes, int, int, int]]:
    """Go from box to box, as videos in MP4 and images in AVIF and HEIC have them.

    Args:
        file: of either.
        start: where the first box begins.
        end: where they end.
        most: how many are read.
        refusal: what is said of more.

    Yields:
        The kind of a box, and where it, its content, and what follows it begin.

    Raises:
        RefusedError: there are more.
    """
    for _ in range(most):
        file.seek(start)
        head = file.read(16)
        if start >= end or len(head) < 8:
            return
        size, kind, header = int.from_bytes(head[:4], "big"), head[4:8], 8
        if size == 1:
            size, header = int.from_bytes(head[8:16], "big"), 16
        size = size or end - start
        if size < header:
            return  # broken, as the decoder will tell
        yield kind, start, start + header, min(start + size, end)
        start += size
    raise RefusedError(refusal)


def _content(file: IO[bytes], start: int, end: int) -> bytes:
    if end - start > MOST_BOX_BYTES:
        raise RefusedError(f"has a table of {end - start} bytes; at most {MOST_BOX_BYTES} are read.")
    file.seek(start)
    return file.read(end - start)


def _tables(box: bytes) -> dict[int, bytes]:
    """Find the tables of a box: their names, by where these stand, or would without a size of 64 bits.

    Boxes are gone through as FFmpeg does, and tables are looked for in all others too, which it may come to know.
    """
    found = {}
    for match in _ANY_TABLE.finditer(box):
        if 8 <= int.from_bytes(box[max(match.start() - 4, 0) : match.start()], "big") <= len(box) - match.start() + 4:
            found[match.start()] = match[0]  # else it is a word, not a box
    ranges, count = [(0, len(box), 0)], 0
    while ranges:
        start, end, depth = ranges.pop()
        while start + 8 <= end:
            count += 1
            if count > MOST_BOXES:
                raise RefusedError(_MANY_BOXES)
            size, name, header = int.from_bytes(box[start : start + 4], "big"), box[start + 4 : start + 8], 8
            if size == 1:
                size, header = int.from_bytes(box[start + 8 : start + 16], "big"), 16
            size = min(size or end - start, end - start)
            if size < header:
                break
            if name in _TABLES:
                found[start + header - 4] = name
            elif name in _PARENTS and depth < _DEEPEST:
                ranges.append((start + header + 4 * (name == b"meta"), start + size, depth + 1))
            start += size
    return found


def _samples(box: bytes, length: int) -> int:
    """Count the samples of which FFmpeg will make entries, of a track or of a fragment."""
    found: dict[bytes, int] = dict.fromkeys(_TABLES, 0)
    for place, name in _tables(box).items():
        entry, at = _TABLES[name]
        if name == b"cmov":
            raise RefusedError("is a MOV with compressed tables; write it anew as MP4.")
        count = int.from_bytes(box[place + at : place + at + 4], "big")
        if name == b"stsz" and (size := int.from_bytes(box[place + 8 : place + 12], "big")):
            entry, count = 0, max(count, 0)
            if count * size > length:
                raise RefusedError(_too_many(count, length))
        if name == b"trun" and any(box[place + 6 : place + 7]) and box[place + 6] & 0x0F:
            entry = 4  # of each sample something is stored
        if count * entry > len(box) or (name == b"stz2" and count > 2 * len(box)):
            raise RefusedError(_too_many(count, length))
        if name == b"stts" or name == b"ctts":
            count = _sum_of_counts(box, place + 12, count)
        if name == b"stsc":
            count = max((int.from_bytes(box[at : at + 4], "big") for at in _fourths(place + 12, count)), default=0)
        found[name] += count
    return _entries(box, found, length) if any(found.values()) else 0


def _fourths(start: int, count: int) -> range:
    """Tell where the second numbers of a list of three stand."""
    return range(start + 4, start + 12 * count, 12)


def _sum_of_counts(box: bytes, start: int, count: int) -> int:
    return sum(int.from_bytes(box[at : at + 4], "big") for at in range(start, start + 8 * count, 8))


def _entries(box: bytes, found: dict[bytes, int], length: int) -> int:
    samples = max(found[b"stsz"] + found[b"stz2"] + found[b"trun"], found[b"ctts"])
    if _is_plain_sound(box):
        chunks = found[b"stco"] + found[b"co64"]
        return max(samples, found[b"stsc"] * chunks) // _SOUND_SAMPLES + chunks
    samples = max(samples, found[b"stts"])
    if samples > length + _SPARE_SAMPLES:
        raise RefusedError(_too_many(samples, length))
    edits = found[b"elst"]
    return samples * (edits if edits > _FREE_EDITS else 1)


def _is_plain_sound(box: bytes) -> bool:
    """Tell whether a track is sound that is not compressed, of which each value is counted as a sample."""
    description = box.find(b"stsd")
    return (
        description >= 0
        and box.count(b"stsd") == 1
        and box[description + 8 : description + 12] == b"\0\0\0\1"
        and box[description + 16 : description + 20] in _PLAIN_SOUND
    )


def _too_many(count: int, length: int) -> str:
    return f"is broken: a table counts {count} samples in a file of {length} bytes."
