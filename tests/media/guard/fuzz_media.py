"""Mutates images and videos of each kind that is opened: each is accepted, or refused by one sentence that names it.

    python tests/media/guard/fuzz_media.py --files 20000 --seed 0

Files are read in forked processes, a batch in each, within 5 s and 1 GB a file; a process may not grow meanwhile.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import select
import signal
import struct
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
from bounded import resident

from paddlemix.media import video
from paddlemix.media.images import ImageError, image_size, open_image
from paddlemix.media.video import VideoError, open_video

SECONDS, BYTES, GROWTH = 5.0, 1 << 30, 64 << 20
BATCH = 250
FRAMES = 8
EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 9000, 65500)


def picture(width: int = 40, height: int = 30) -> Image.Image:
    """A smooth image with something in each channel."""
    grey = np.asarray(Image.linear_gradient("L").resize((width, height)))
    return Image.fromarray(np.stack([grey, grey[:, ::-1], 255 - grey], axis=-1))


def image_of(kind: str, **options: object) -> bytes:
    """The bytes of an image."""
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    with_exif = {"exif": exif} if kind in ("JPEG", "PNG", "WEBP", "TIFF") else {}
    picture().save(file, kind, **with_exif, **options)
    return file.getvalue()


def video_of(
    name: str, codec: str, size: tuple[int, int] = (48, 32), pixels: str | None = None, **options: str
) -> bytes:
    """The bytes of a video of ten frames, in the codec's pixels or others."""
    import av

    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, name))
        with av.open(path, "w", options=options) as container:
            stream = container.add_stream(codec, rate=25)
            stream.width, stream.height = size
            stream.pix_fmt = pixels or ("yuvj420p" if codec == "mjpeg" else "yuv420p")
            for place in range(10):
                pixels = np.roll(np.asarray(picture(*size)), 3 * place, axis=1)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")))
            container.mux(stream.encode())
        return Path(path).read_bytes()


def seeds() -> dict[str, bytes]:
    """A file of each kind."""
    moving = {"save_all": True, "append_images": [picture().rotate(90 * turn) for turn in range(1, 4)], "duration": 50}
    return {
        "a.jpg": image_of("JPEG"),
        "progressive.jpg": image_of("JPEG", progressive=True),
        "a.png": image_of("PNG", **moving),
        "a.gif": image_of("GIF", **moving),
        "a.webp": image_of("WEBP", **moving),
        "a.bmp": image_of("BMP"),
        "deflate.tiff": image_of("TIFF", compression="tiff_adobe_deflate"),
        "jpeg.tiff": image_of("TIFF", compression="jpeg"),
        "plain.tiff": image_of("TIFF"),
        "a.ppm": image_of("PPM"),
        "a.avif": image_of("AVIF"),
        "a.mp4": video_of("a.mp4", "mpeg4"),
        "parts.mp4": video_of("a.mp4", "mpeg4", movflags="frag_keyframe+empty_moov"),
        "a.mkv": video_of("a.mkv", "mpeg4"),
        "a.avi": video_of("a.avi", "mpeg4"),
        "a.ts": video_of("a.ts", "mpeg2video"),
        "a.flv": video_of("a.flv", "flv"),
    }


def mutated(content: bytes, chance: random.Random, others: list[bytes]) -> bytes:
    """Change a file in one to four places, more often near its beginning, where sizes and tables are."""
    body = bytearray(content)
    for _ in range(chance.randint(1, 4)):
        near = chance.random() < 0.6
        place = chance.randrange(min(len(body), 400) if near else len(body)) if body else 0
        how = chance.randrange(7)
        if how == 0:
            body[place : place + 1] = bytes([chance.randrange(256)])
        elif how in (1, 2):
            width, order = chance.choice((1, 2, 4)), chance.choice("<>")
            code = {1: "B", 2: "H", 4: "I"}[width]
            value = chance.choice(EXTREMES) & (256**width - 1)
            body[place : place + width] = struct.pack(order + code, value)
        elif how == 3:
            del body[place : place + chance.choice((1, 4, 100, len(body)))]
        elif how == 4:
            part = body[place : place + chance.choice((4, 16, 200))]
            body[place:place] = part * chance.choice((1, 3, 300))
        elif how == 5:
            other = chance.choice(others)
            start = chance.randrange(len(other))
            body[place:place] = other[start : start + chance.choice((8, 64, 1000))]
        else:
            body[place : place + 4] = bytes(4)
    return bytes(body)


def look(path: str, is_video: bool) -> None:
    """Read a file as training does: its header, and what it shows."""
    if is_video:
        with open_video(path) as opened:
            total = opened.info.frames
            list(opened.read(sorted({place * max(total - 1, 0) // FRAMES for place in range(FRAMES)})))
    else:
        image_size(path)
        open_image(path)


class Fuzzer:
    """Feeds mutated files to readers, and counts what becomes of them.

    Attributes:
        outcomes: how many were accepted and refused, by kind.
        failures: what should not have happened.
        slowest: seconds and the file's name.
        largest: bytes by which a reader grew at most, and the file's name.
    """

    def __init__(self, seed: int, folder: Path, look: Callable[[str, bool], None] = look) -> None:
        self.chance, self.folder, self.look = random.Random(seed), folder, look
        self.files = seeds()
        self.outcomes: Counter[str] = Counter()
        self.failures: list[str] = []
        self.slowest, self.largest = (0.0, ""), (0, "")

    def run(self, count: int) -> None:
        """Try `count` files."""
        for start in range(0, count, BATCH):
            self._run_batch([self._case() for _ in range(min(BATCH, count - start))])

    def _case(self) -> tuple[str, bytes, bool]:
        name = self.chance.choice(list(self.files))
        body = mutated(self.files[name], self.chance, list(self.files.values()))
        is_video = name.endswith((".mp4", ".mkv", ".avi", ".ts", ".flv")) or self.chance.random() < 0.2
        return name, body, is_video

    def _run_batch(self, cases: list[tuple[str, bytes, bool]]) -> None:
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            self._read_all(cases, writing)
        os.close(writing)
        answers, buffer = 0, b""
        while answers < len(cases):
            if not select.select([reading], [], [], SECONDS + 2)[0] or not (part := os.read(reading, 1 << 16)):
                break
            *lines, buffer = (buffer + part).split(b"\n")
            for line in lines:
                self._judge(cases[answers], *json.loads(line))
                answers += 1
        os.close(reading)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        if answers < len(cases):
            self._fail(cases[answers], "the reader died or took too long")
            self._run_batch(cases[answers + 1 :])

    def _read_all(self, cases: list[tuple[str, bytes, bool]], pipe: int) -> None:
        warnings.simplefilter("ignore")
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)  # what C libraries say of broken files
        first = None
        try:
            for place, (name, body, is_video) in enumerate(cases):
                path = str(self.folder / name)
                Path(path).write_bytes(body)
                Path("/proc/self/clear_refs").write_text("5")
                before, start, told, kind = resident(), time.monotonic(), "", "accepted"
                try:
                    self.look(path, is_video)
                except (ImageError, VideoError) as error:
                    kind, told = "refused", str(error)
                    if path not in told[: len(path) + 10] or "\n" in told or not told.endswith("."):
                        kind = "no sentence"
                except BaseException as error:
                    kind, told = "escaped", repr(error)
                seconds = time.monotonic() - start
                status = Path("/proc/self/status").read_text()
                peak = int(status.split("VmHWM:")[1].split()[0]) * 1024
                first = resident() if place == len(cases) // 4 else first
                growth = resident() - first if first else 0
                answer = [kind, told, seconds, max(peak - before, 0), growth if place == len(cases) - 1 else 0]
                os.write(pipe, json.dumps(answer).encode() + b"\n")
        finally:
            os._exit(0)

    def _judge(
        self, case: tuple[str, bytes, bool], kind: str, told: str, seconds: float, grown: int, kept: int
    ) -> None:
        self.slowest = max(self.slowest, (seconds, case[0]))
        self.largest = max(self.largest, (grown, case[0]))
        if kind not in ("accepted", "refused"):
            self._fail(case, f"{kind}: {told}")
        elif seconds > SECONDS or grown > BYTES or kept > GROWTH:
            self._fail(case, f"{kind} after {seconds:.1f} s, {grown >> 20} MB, {kept >> 20} MB kept: {told}")
        else:
            self.outcomes[kind] += 1
            self.outcomes[f"{kind} {case[0]}"] += 1

    def _fail(self, case: tuple[str, bytes, bool], what: str) -> None:
        place = self.folder / f"failure{len(self.failures)}_{case[0]}"
        place.write_bytes(case[1])
        self.failures.append(f"{place}{' as a video' if case[2] else ''}: {what}")


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--decoder", choices=["av", "cv2"], default="av", help="of videos")
    parser.add_argument("--folder", type=Path, help="where failures are left (default: a temporary one)")
    arguments = parser.parse_args()
    video.find_spec = lambda name: find_spec(name) if name == arguments.decoder else None
    folder = arguments.folder or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    one = Fuzzer(arguments.seed, folder)
    start = time.monotonic()
    one.run(arguments.files)
    print(json.dumps(dict(sorted(one.outcomes.items())), indent=1))
    print(f"{arguments.files} files in {time.monotonic() - start:.0f} s; slowest {one.slowest}, largest {one.largest}")
    for failure in one.failures:
        print(failure)
    sys.exit(bool(one.failures))


if __name__ == "__main__":
    main()
