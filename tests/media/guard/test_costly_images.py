"""Images that cost far more than their size and bytes tell are refused by their headers, soon and without memory."""

import base64
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from paddlemix.media.guard.formats import checked_kind
from paddlemix.media.guard.heif import check_heif
from paddlemix.media.guard.regular import RefusedError, TooLargeError
from paddlemix.media.images import ImageError, image_size, open_image
from paddlemix.media.opening import MAX_PIXELS
from paddlemix.media.video import VideoError, open_video

from .bounded import refusal_of


@pytest.fixture(scope="module", autouse=True)
def warm(tmp_path_factory):
    """Have the decoders loaded before memory is counted."""
    path = tmp_path_factory.mktemp("warm") / "a.png"
    Image.new("RGB", (64, 64)).save(path)
    Image.init()
    with open_video(str(path)):
        open_image(str(path))


def saved(kind, size=(64, 64), mode="RGB", **options):
    file = io.BytesIO()
    grey = np.asarray(Image.linear_gradient("L").resize(size))
    Image.fromarray(grey).convert(mode).save(file, kind, **options)
    return file.getvalue()


def chunk(kind, content=b""):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(*chunks, size=(64, 64), pixels=None):
    """A PNG, with chunks before its pixels."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, 8, 0, 0, 0, 0))
    pixels = zlib.compress(bytes((size[0] + 1) * size[1])) if pixels is None else pixels
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + chunk(b"IDAT", pixels) + chunk(b"IEND")


def directory(*entries, order="<", behind=b""):
    """A TIFF of one directory: tags, kinds, counts and the four bytes of each value."""
    body = b"".join(
        struct.pack(f"{order}HHL", tag, kind, count)
        + (value if isinstance(value, bytes) else struct.pack(f"{order}L", value))
        for tag, kind, count, value in entries
    )
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}L", 8)
    return head + struct.pack(f"{order}H", len(entries)) + body + bytes(4) + behind


def tiff(*more, size=(64, 64), compression=1, behind=bytes(64 * 64), without=()):
    """A grey TIFF; entries of `more` take the place of those of the same tag."""
    place = 8 + 2 + 4
    entries = {
        tag: (tag, kind, 1, value)
        for tag, kind, value in (
            (256, 4, size[0]), (257, 4, size[1]), (258, 4, 8), (259, 4, compression), (262, 4, 1), (277, 4, 1),
            (273, 4, 0), (278, 4, size[1]), (279, 4, len(behind)),
        )
        if tag not in without
    } | {entry[0]: entry for entry in more}  # fmt: skip
    if 273 in entries and entries[273][2] == 1:
        entries[273] = (273, 4, 1, place + 12 * len(entries))
    return directory(*(entries[tag] for tag in sorted(entries)), behind=behind)


def segment(marker, content):
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(content) + 2) + content


def of_scans(count, size=(640, 480), before=b""):
    """A progressive JPEG that goes `count` times over its pixels, with segments before the scans that are added."""
    body = saved("JPEG", size, progressive=True)
    last = body.rindex(b"\xff\xda")
    return body[:-2] + (before + body[last:-2]) * (count - 10) + b"\xff\xd9"


def jpeg_with(*segments):
    body = saved("JPEG")
    return body[:2] + b"".join(segments) + body[2:]


def gif(*blocks, size=(64, 64)):
    """A GIF of one colour, with blocks before its frame."""
    head = b"GIF89a" + struct.pack("<HH", *size) + b"\x80\0\0" + bytes(6)
    frame = b"," + struct.pack("<HHHHB", 0, 0, *size, 0) + b"\x02\x02\x44\x01\0"
    return head + b"".join(blocks) + frame + b";"


def webp_chunk(kind, content):
    return kind + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)


def webp(*chunks):
    body = b"WEBP" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def canvas(width, height, flags=0):
    return webp_chunk(
        b"VP8X", bytes([flags, 0, 0, 0]) + struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    )


def box(kind, content):
    return struct.pack(">I", len(content) + 8) + kind + content


def heif(brand, *boxes):
    return box(b"ftyp", brand + bytes(4) + brand + b"mif1") + b"".join(boxes)


def sizes_of(*sizes):
    return box(b"meta", bytes(4) + b"".join(box(b"ispe", bytes(4) + struct.pack(">II", *size)) for size in sizes))


def bmp(width=64, height=64, bits=8, compression=0, header=40, behind=b""):
    head = struct.pack("<IiiHHIIiiII", header, width, height, 1, bits, compression, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + len(behind), 0, 0, 54) + head + behind


OVERLAPPING = [(40000 + tag, 7, 60000, 200) for tag in range(1500)]
REFUSED = {
    # What is decoded is far larger than what is shown.
    "a TIFF of one huge tile": (
        lambda: tiff(
            *((322, 4, 1, 40960), (323, 4, 1, 40960), (324, 4, 1, 134), (325, 4, 1, 11)),
            compression=8,
            without=(273, 278, 279),
            behind=zlib.compress(bytes(64)),
        ),
        "has tiles of 40960 x 40960 pixels for an image of 64 x 64",
    ),
    "a TIFF that lists far more strips than it has": (
        lambda: tiff((273, 4, 1 << 20, 8), behind=bytes(1 << 22)),
        "lists 1048576 strips or tiles where it has 1",
    ),
    "a TIFF whose strips lie over one another": (
        lambda: tiff((278, 4, 1, 1), (273, 4, 4096, 8), (279, 4, 4096, 8), size=(64, 4096), behind=b"@\0\1\0" * 65536),
        "its strips or tiles claim",
    ),
    "a TIFF whose values lie over one another": (
        lambda: tiff(*OVERLAPPING, behind=bytes(70000)),
        "is made to be slow: its directory claims",
    ),
    "a TIFF of too many entries": (
        lambda: tiff(*((40000 + tag, 4, 1, 0) for tag in range(5000))),
        "has a directory of 5009 entries",
    ),
    "a TIFF of a kind of compression that starts other decoders": (
        lambda: tiff(compression=34712),
        "is a TIFF of compression 34712",
    ),
    "a TIFF that names a tag twice": (
        lambda: directory((256, 4, 1, 64), (256, 4, 1, 60000), (257, 4, 1, 64)),
        "has the tag 256 twice",
    ),
    "a TIFF of few bytes": (lambda: tiff(size=(9000, 9000)), "too few for its 9000 x 9000 pixels"),
    "a JPEG in a TIFF of 3,000 scans": (
        lambda: tiff(compression=7, behind=b"\xff\xd8" + b"\xff\xda\0\x08" * 3000),
        "is stored in more than 100 scans",
    ),
    # JPEG
    "a JPEG of 2,000 scans": (lambda: of_scans(2000), "is stored in more than 100 scans"),
    "a large JPEG of 60 scans": (lambda: of_scans(60, (9000, 9000)), "is stored in more than 26 scans"),
    "a JPEG of 2,000 scans, the end of an image in a comment before each": (
        lambda: of_scans(2000, before=segment(0xFE, b"\xff\xd9")),
        "is stored in more than 100 scans",
    ),
    "a JPEG of many segments between scans": (
        lambda: of_scans(20, before=segment(0xFE, b"") * 100_000),
        "has more than 2000 segments between its scans",
    ),
    "a JPEG of many segments": (
        lambda: jpeg_with(segment(0xE5, b"") * 5000),
        "has more than 512 segments of metadata",
    ),
    "a JPEG with junk between segments": (
        lambda: jpeg_with(segment(0xE5, b""), bytes(1 << 22)),
        "more than 4096 bytes between its segments",
    ),
    "a JPEG of fill bytes": (lambda: jpeg_with(b"\xff" * (1 << 22)), "more than 4096 bytes between its segments"),
    "a JPEG of much EXIF": (
        lambda: jpeg_with(*(segment(0xE1, b"Exif\0\0" + bytes(65000)) for _ in range(20))),
        "has more than 1 MB of EXIF",
    ),
    "a JPEG whose EXIF lies over itself": (
        lambda: jpeg_with(segment(0xE1, b"Exif\0\0" + directory(*OVERLAPPING, behind=bytes(40000)))),
        "is made to be slow: its EXIF claims",
    ),
    "a JPEG whose list of images lies over itself": (
        lambda: jpeg_with(segment(0xE2, b"MPF\0" + directory(*OVERLAPPING, behind=bytes(40000)))),
        "is made to be slow: its list of images claims",
    ),
    "a JPEG of few bytes": (
        lambda: saved("JPEG").replace(struct.pack(">HH", 64, 64), struct.pack(">HH", 9000, 9000), 1),
        "too few for its 81000000 pixels",
    ),
    # PNG
    "a PNG of 1.6 million chunks": (lambda: png(chunk(b"teSt") * 1_600_000), "chunks; save it anew"),
    "a PNG of few bytes": (
        lambda: png(size=(9000, 9000), pixels=zlib.compress(b"")),
        "the 8 bytes of its pixels are too few for its size",
    ),
    "a PNG of much text": (
        lambda: png(struct.pack(">I", 1 << 31) + b"tEXt"),
        "bytes of metadata; at most",
    ),
    # GIF
    "a GIF of few bytes": (lambda: gif(size=(9000, 9000)), "too few for its 9000 x 9000 pixels"),
    "a GIF of long comments": (
        lambda: gif(b"!\xfe" + (b"\xff" + b"c" * 255) * 4000 + b"\0"),
        "bytes of comments",
    ),
    "a GIF of many blocks": (lambda: gif(b"!\xf9\x04\0\0\0\0\0" * 200_000), "blocks or more"),
    # WebP, AVIF
    "a large WebP": (lambda: webp(canvas(16000, 16000)), "has 16000 x 16000 pixels; at most 89478485 are read. Raise"),
    "a WebP of many chunks": (
        lambda: webp(canvas(64, 64), webp_chunk(b"UNKN", b"") * 200_000),
        "has more than 20100 chunks",
    ),
    "a large AVIF": (lambda: heif(b"avif", sizes_of((64, 64), (60000, 60000))), "has 60000 x 60000 pixels; at most"),
    "an AVIF of many boxes": (lambda: heif(b"avif", box(b"free", b"") * 200_000), "has more than 10000 boxes"),
    "an AVIF of a long list": (
        lambda: heif(b"avif", box(b"meta", bytes(1 << 23))),
        "lists its images in 8388616 bytes",
    ),
    # BMP, PNM
    "a BMP of few bytes": (lambda: bmp(9000, 9000), "too few for its 9000 x 9000 pixels"),
    "a large compressed BMP": (lambda: bmp(9000, 9000, compression=1, behind=b"\xff\0" * 400_000), "decoded slowly"),
    "a BMP of an unknown header": (lambda: bmp(header=1 << 30), "a BMP has no header of 1073741824 bytes"),
    "a PNM of few bytes": (lambda: b"P6 9000 9000 255\n" + bytes(100), "too few for its 9000 x 9000 pixels"),
    "a large PNM of digits": (lambda: b"P2 9000 9000 255\n" + b"1 " * 100, "is a PNM of digits and decoded slowly"),
    "a large PNM of odd steps": (lambda: b"P5 3000 3000 100\n" + bytes(9_000_000), "is a PNM of values up to 100"),
    "a PNM without an end of its header": (lambda: b"P6 " + b"#" * (1 << 22), "expected the kind, width, height"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_costly_image_is_refused_by_its_header(tmp_path, what):
    make, problem = REFUSED[what]
    path = tmp_path / "a.jpg"
    path.write_bytes(make())
    told = refusal_of(lambda: image_size(str(path)), ImageError)
    assert told.startswith(f"image {path} ") and problem in told


def test_what_is_refused_in_a_file_is_refused_at_an_address_and_in_a_data_url_too():
    url = "data:image/jpeg;base64," + base64.b64encode(of_scans(2000)).decode()
    assert "is stored in more than 100 scans" in refusal_of(lambda: open_image(url), ImageError)


@pytest.mark.parametrize("brand", [b"heic", b"mif1", b"avif"])
def test_sizes_are_looked_for_in_heic_as_in_avif(brand):
    body = heif(brand, sizes_of((60000, 60000)))
    with pytest.raises(TooLargeError, match="has 60000 x 60000 pixels"):
        check_heif(io.BytesIO(body), len(body), MAX_PIXELS)


def test_files_that_a_decoder_takes_whole_are_bounded(tmp_path):
    """Sparse: nothing of them is read."""
    for head in (heif(b"avif"), webp(canvas(64, 64))):
        path = tmp_path / "a"
        with open(path, "wb") as file:
            file.write(head)
            file.truncate(1 << 40)
        with open(path, "rb") as file, pytest.raises(RefusedError, match="has 1099511627776 bytes; of a"):
            checked_kind(file, MAX_PIXELS)


def apng(frames, size):
    """An animated PNG whose frames, but for the first, hold no pixels."""

    def place(order):
        return chunk(b"fcTL", struct.pack(">IIIIIHHBB", order, *size, 0, 0, 1, 10, 0, 0))

    still = png(chunk(b"acTL", struct.pack(">II", frames, 0)), place(0), size=size)
    behind = (place(2 * one - 1) + chunk(b"fdAT", struct.pack(">I", 2 * one) + bytes(1100)) for one in range(1, frames))
    return still[:-12] + b"".join(behind) + still[-12:]


def animated_webp(frames, size):
    still = saved("WEBP", (16, 16))[12:]
    place = bytes(6) + (struct.pack("<I", 15)[:3]) * 2 + b"\x64\0\0\0"
    return webp(canvas(*size, flags=2), webp_chunk(b"ANIM", bytes(6)), *[webp_chunk(b"ANMF", place + still)] * frames)


def animated_gif(frames, size):
    whole = gif(size=size)
    return whole[:-1] + whole[19:-1] * (frames - 1) + b";" + bytes(size[0] * size[1] // 4096)


@pytest.mark.parametrize("make", [apng, animated_webp, animated_gif])
@pytest.mark.parametrize(("frames", "size"), [(15_000, (16, 16)), (2000, (1000, 1000))])
def test_an_animated_image_of_too_many_frames_is_no_video(tmp_path, make, frames, size):
    path = tmp_path / "a.gif"
    path.write_bytes(make(frames, size))
    told = refusal_of(lambda: open_video(str(path)).__enter__(), VideoError)
    assert f"has {frames} frames of {size[0]} x {size[1]} pixels" in told


@pytest.mark.parametrize("kind", ["PNG", "GIF", "WEBP"])
def test_an_ordinary_animation_is_read_as_pillow_reads_it(tmp_path, kind):
    frames = [Image.fromarray(np.full((48, 64, 3), 40 * place, np.uint8)) for place in range(6)]
    path = str(tmp_path / "a.gif")
    frames[0].save(path, kind, save_all=True, append_images=frames[1:], duration=100, lossless=True)
    with Image.open(path) as image:
        expected = [np.asarray((image.seek(place), image.convert("RGB"))[1]) for place in range(6)]
    with open_video(path) as video:
        assert video.info.frames == 6
        assert np.array_equal(np.stack(list(video.read(range(6)))), np.stack(expected))


def test_images_near_the_bounds_are_read(tmp_path):
    """Long metadata, many chunks, the emptiest large images and progressive ones of encoders are no attacks."""
    near = {
        "scans": of_scans(40),
        "a video behind a photograph": saved("JPEG", progressive=True) + b"\xff\xda\0\1" * 100_000,
        "a row a chunk": png(*(chunk(b"teSt", bytes(250)) for _ in range(4500))),
        "segments": jpeg_with(*(segment(0xE5, bytes(65000)) for _ in range(100))),
        "chunks": png(*(chunk(b"teSt", bytes(8000)) for _ in range(1000))),
        "comments": gif(b"!\xfe" + (b"\xff" + b"c" * 255) * 1000 + b"\0"),
        "blank png": saved("PNG", (2000, 1500)),
        "blank jpeg": saved("JPEG", (2000, 1500)),
        "blank webp": saved("WEBP", (2000, 1500)),
    }
    for kind in ("PNG", "JPEG", "GIF", "TIFF", "WEBP"):
        options = {"compression": "tiff_adobe_deflate"} if kind == "TIFF" else {}
        Image.new("L", (4000, 4000)).save(blank := io.BytesIO(), kind, **options)
        near[f"one colour {kind}"] = blank.getvalue()
    for name, body in near.items():
        path = Path(tmp_path, name)
        path.write_bytes(body)
        with Image.open(path) as image:
            assert image_size(str(path)) == image.size, name
