"""Images and videos that change between two starts, and those that only decoding finds broken."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage

from paddlemix.contract import SampleSize
from paddlemix.conversation import Conversation, Image, RecordError, RecordId, Text, Turn, Video, VideoSettings
from paddlemix.datasets.loading import decoding, processes
from paddlemix.datasets.loading.checking import Start
from paddlemix.datasets.loading.load import load_set
from paddlemix.datasets.loading.media_table import MediaTable, digest_of, file_status
from paddlemix.datasets.mix_dataset import MixDataset
from paddlemix.datasets.spec import DatasetSpec
from paddlemix.media.records import image_sizes


class Watched:
    """As many tokens as the images are wide; names what it measures and encodes."""

    def __init__(self):
        self.measured, self.encoded = [], []

    def measure(self, conversation):
        self.measured.append(conversation.source.index)
        return SampleSize(1 + sum(width for width, _ in image_sizes(conversation)), 0, 1)

    def encode(self, conversation):
        self.encoded += [video.path for video in conversation.videos]
        raise RecordError(conversation.source, "no video can be decoded here")

    def fingerprint(self):
        return "watched"


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PADDLEMIX_CACHE", str(tmp_path / "cache"))


def draw(path: Path, width: int = 20, *, cut: int = 0) -> Path:
    noise = np.random.default_rng(width).integers(0, 256, (20, width, 3), dtype=np.uint8)
    PILImage.fromarray(noise).save(path)
    if cut:
        path.write_bytes(path.read_bytes()[:-cut])
    return path


def write(folder: Path, shown: list[str], **keys) -> DatasetSpec:
    records = [{"conversations": [[f"{number}?", "a"]], "image": name} for number, name in enumerate(shown)]
    (folder / "a.json").write_text(json.dumps(records))
    return DatasetSpec("chatml_dataset", str(folder / "a.json"), **keys)


def load(spec: DatasetSpec, start: Start | None = None):
    processor = Watched()
    loaded = load_set(spec, processor, start)
    return loaded, processor.measured


def replace(path: Path, with_image: Path) -> None:
    shutil.copy(with_image, path)
    os.utime(path, ns=(1, 1))


class TestSecondStart:
    @pytest.fixture
    def spec(self, tmp_path):
        for name, width in (("a.png", 20), ("b.png", 30), ("c.png", 40)):
            draw(tmp_path / name, width)
        return write(tmp_path, ["a.png", "b.png", "a.png", "c.png", "missing.png"])

    def test_records_are_measured_again_exactly_where_a_file_has_changed(self, tmp_path, spec):
        assert load(spec)[1] == [0, 1, 2, 3, 4]
        replace(tmp_path / "a.png", draw(tmp_path / "new.png", 25))
        loaded, measured = load(spec)
        assert measured == [0, 2, 4]
        assert [size.tokens for size in loaded.sizes] == [26, 31, 26, 41]
        assert load(spec)[1] == [4]

    def test_a_file_that_has_vanished_is_found_and_one_that_has_come(self, tmp_path, spec):
        load(spec)
        (tmp_path / "b.png").rename(tmp_path / "missing.png")
        loaded, measured = load(spec)
        assert measured == [1, 4]
        assert [error.source.index for error in loaded.errors] == [1]
        assert [size.tokens for size in loaded.sizes] == [21, 21, 41, 31]

    def test_the_same_bytes_written_anew_are_looked_at_again(self, tmp_path, spec):
        load(spec)
        os.utime(tmp_path / "c.png", ns=(5, 5))
        assert load(spec)[1] == [3, 4]

    def test_a_start_from_another_folder_finds_the_same_files(self, tmp_path, spec, monkeypatch):
        load(spec)
        monkeypatch.chdir(tmp_path)
        assert load(DatasetSpec("chatml_dataset", "a.json"))[1] == [4]
        draw(tmp_path / "b.png", 50)
        monkeypatch.chdir("/")
        assert load(spec)[1] == [1, 4]

    def test_ranks_of_one_start_agree_whatever_happens_between_them(self, tmp_path, spec):
        first, _ = load(spec, Start(token="one"))
        (tmp_path / "b.png").unlink()
        second, measured = load(spec, Start(token="one"))
        assert measured == [] and [str(error) for error in first.errors] == [str(error) for error in second.errors]
        assert np.array_equal(first.sizes.table, second.sizes.table)
        assert load(spec, Start(token="two"))[1] == [1, 4]

    def test_many_records_and_files_are_found_by_several_processes(self, tmp_path, monkeypatch):
        monkeypatch.setattr(processes, "usable_cores", lambda: 2)
        paths = [draw(tmp_path / f"{number}.png", 20 + number) for number in range(50)]
        spec = write(tmp_path, [paths[number % 50].name for number in range(9000)])
        load(spec)
        replace(paths[7], paths[8])
        loaded, measured = load(spec)
        assert measured == list(range(7, 9000, 50))
        assert [size.tokens for size in loaded.sizes][:9] == [21, 22, 23, 24, 25, 26, 27, 29, 29]


def shows(*parts) -> Conversation:
    return Conversation((Turn("user", parts), Turn("assistant", (Text("a"),))), RecordId("a.json", 0))


class TestTable:
    def table(self, *conversations):
        return MediaTable.of(enumerate(conversations))

    def test_listed_frames_are_files_and_so_are_those_of_a_folder(self, tmp_path):
        frames = [str(draw(tmp_path / f"{number}.png")) for number in range(3)]
        (tmp_path / "folder").mkdir()
        inside = draw(tmp_path / "folder" / "0.png")
        table = self.table(shows(Video(tuple(frames))), shows(Video(str(tmp_path / "folder"))), shows(Image(frames[0])))
        assert len(table) == 4 and table.changed("").tolist() == [False] * 4
        os.utime(inside, ns=(1, 1))
        assert table.users(table.changed("")).tolist() == [1]
        os.utime(frames[0], ns=(1, 1))
        assert table.users(table.changed("")).tolist() == [0, 1, 2]

    def test_what_is_not_on_this_machine_is_never_looked_for(self):
        table = self.table(shows(Image("data:image/png;base64,AAAA"), Image("https://example.com/a.png")))
        assert len(table) == 2 and len(table.paths) == 0 and not table.changed("").any()

    def test_a_name_that_no_file_can_have_is_missing(self):
        assert file_status("a\0b") == file_status("\ud800") == file_status("/no/such") == (-1, -1)
        assert not self.table(shows(Image("a\0\ud800图"))).changed("").any()

    def test_one_video_with_two_settings_is_decoded_twice(self):
        settings = VideoSettings(nframes=4)
        assert digest_of(Video("a.mp4")) != digest_of(Video("a.mp4", settings))
        assert digest_of(Video("a.mp4", settings)) == digest_of(Video(os.path.abspath("a.mp4"), settings))

    def test_joined_tables_know_each_file_once_and_whose_it_is(self, tmp_path):
        names = [str(draw(tmp_path / f"{number}.png", 20 + number)) for number in range(4)]
        parts = [
            (self.table(*(shows(Image(names[number])) for number in numbers)), np.array(places))
            for numbers, places in (((0, 1), (0, 1)), ((2, 1, 0), (2, 3, 4)), ((3,), (5,)), ((), ()))
        ]
        table = MediaTable.joined(parts)
        assert len(table) == 4
        found: list[int] = []
        for name, places in zip(names, ((0, 4), (1, 3), (2,), (5,)), strict=True):
            os.utime(name, ns=(1, 1))
            found = sorted([*found, *places])
            assert table.users(table.changed("")).tolist() == found
        left = table.without(np.array([0, 1, 3, 4]))
        assert len(left) == 2 and sorted(set(left.uses[:, 0].tolist())) == [2, 5]

    def test_a_file_found_in_two_states_is_looked_at_again(self, tmp_path):
        path = draw(tmp_path / "a.png")
        first = self.table(shows(Image(str(path))))
        os.utime(path, ns=(1, 1))
        second = self.table(shows(Image(str(path))))
        table = MediaTable.joined([(first, np.array([0])), (second, np.array([1]))])
        assert len(table) == 1 and table.changed("").all()


class TestFullCheck:
    FULL = Start(check_media="full")

    @pytest.fixture
    def spec(self, tmp_path):
        draw(tmp_path / "good.png")
        draw(tmp_path / "cut.png", 30, cut=400)
        return write(tmp_path, ["good.png", "cut.png", "good.png", "cut.png"])

    def test_headers_alone_do_not_find_an_image_that_breaks_off(self, spec):
        assert load(spec)[0].errors == ()

    def test_an_image_that_breaks_off_is_found_with_all_its_records(self, spec):
        loaded, _ = load(spec, self.FULL)
        assert [error.source.index for error in loaded.errors] == [1, 3]
        assert all("cut.png is broken or cut off" in str(error) for error in loaded.errors)
        assert [conversation.source.index for conversation in loaded.conversations] == [0, 2]

    def test_the_policy_decides_what_becomes_of_it(self, spec):
        with pytest.raises(ValueError, match=r"^2 of 4 records cannot be used:\n.*record 1: .*\n.*record 3: "):
            MixDataset.load([spec], Watched(), start=self.FULL)
        assert len(MixDataset.load([spec], Watched(), "skip", start=self.FULL)) == 2

    def test_each_image_is_decoded_once_and_again_only_where_it_has_changed(self, tmp_path, spec, monkeypatch):
        opened: list[str] = []
        monkeypatch.setattr(decoding, "open_image", lambda path: opened.append(Path(path).name))
        for wanted in (["good.png", "cut.png"], []):
            opened.clear()
            load(spec, self.FULL)
            assert opened == wanted
        os.utime(tmp_path / "good.png", ns=(1, 1))
        load(spec)  # headers alone
        load(spec, self.FULL)
        assert opened == ["good.png"]

    def test_what_was_decoded_before_somebody_stopped_it_is_not_decoded_again(self, tmp_path, monkeypatch):
        for number in range(100):
            draw(tmp_path / f"{number}.png", 20 + number)
        spec = write(tmp_path, [f"{number}.png" for number in range(100)])
        opened: list[str] = []

        def stop(path):
            opened.append(path)
            if path.endswith("/90.png"):
                raise KeyboardInterrupt

        monkeypatch.setattr(decoding, "open_image", stop)
        with pytest.raises(KeyboardInterrupt):
            load(spec, self.FULL)
        opened.clear()
        monkeypatch.setattr(decoding, "open_image", opened.append)
        assert load(spec, self.FULL)[1] == [] and len(opened) == 100 - 64

    def test_a_mended_image_is_found_to_be_good(self, tmp_path, spec):
        load(spec, self.FULL)
        draw(tmp_path / "cut.png", 30)
        assert load(spec, self.FULL)[0].errors == ()

    def test_several_processes_find_the_same(self, tmp_path, monkeypatch):
        monkeypatch.setattr(processes, "usable_cores", lambda: 2)
        names = [draw(tmp_path / f"{n}.png", 20 + n % 7, cut=300 * (n % 50 == 9)).name for n in range(600)]
        loaded, _ = load(write(tmp_path, names), self.FULL)
        assert [error.source.index for error in loaded.errors] == list(range(9, 600, 50))

    def test_videos_are_decoded_as_the_processor_does_it(self, tmp_path):
        record = {"conversations": [["<video>a.mp4</video>What?", "a"]]}
        (tmp_path / "a.mp4").write_bytes(b"")
        (tmp_path / "a.json").write_text(json.dumps([record, record]))
        processor = Watched()
        loaded = load_set(DatasetSpec("chatml_dataset", str(tmp_path / "a.json")), processor, self.FULL)
        assert processor.encoded == [str(tmp_path / "a.mp4")]
        assert [error.problem for error in loaded.errors] == ["no video can be decoded here"] * 2

    def test_another_word_is_refused(self):
        with pytest.raises(ValueError, match='`check_media` is \'all\'; expected "headers" or "full"'):
            Start(check_media="all")
