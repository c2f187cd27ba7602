"""Processor, memory, fonts, decoders and folders."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest

from paddlemix.doctor import media, places, processor

GIB = 1 << 30


@pytest.fixture
def room(monkeypatch):
    def put(free):
        monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=free))

    return put


@pytest.mark.parametrize(("free", "mark"), [(200 * GIB, "ok"), (5 * GIB, "see"), (1 << 20, "STOP")])
def test_a_full_disk_stops_and_a_small_one_is_told(room, free, mark):
    room(free)
    assert places.check_disk().mark == mark


@pytest.mark.parametrize(("free", "mark"), [(8 * GIB, "ok"), (64 << 20, "see")])
def test_the_shared_memory_of_a_plain_container_is_too_small(room, tmp_path, free, mark):
    room(free)
    found = places.check_shared_memory(tmp_path)
    assert found.mark == mark and ("--shm-size" in found.advice) == (mark == "see")


def test_a_cache_that_cannot_be_written_to_is_told_and_none_is_made(monkeypatch, tmp_path):
    monkeypatch.setenv("PADDLEMIX_CACHE", str(tmp_path / "not" / "there"))
    assert places.check_cache().mark == "ok" and not (tmp_path / "not").exists()
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PADDLEMIX_CACHE", str(tmp_path / "file" / "cache"))
    found = places.check_cache()
    assert found.mark == "see" and "PADDLEMIX_CACHE" in found.advice and "cannot be written to" in found.found


def test_a_cache_of_the_hub_without_room_is_told_unless_nothing_is_fetched(monkeypatch, room):
    room(GIB)
    monkeypatch.setattr(places.constants, "HF_HUB_OFFLINE", False)
    assert places.check_hub()[1].mark == "see" and "HF_HOME" in places.check_hub()[1].advice
    monkeypatch.setattr(places.constants, "HF_HUB_OFFLINE", True)
    hub, cache = places.check_hub()
    assert cache.mark == "ok" and "offline (HF_HUB_OFFLINE)" in hub.found


@pytest.mark.parametrize("token", ["hf_secret", None])
def test_of_the_token_only_whether_there_is_one_is_told(monkeypatch, token):
    monkeypatch.setattr(places, "get_token", lambda: token)
    found = str(places.check_hub()[0])
    assert ("a token is set" in found) == bool(token) and "hf_secret" not in found


def test_a_processor_without_avx_stops(monkeypatch):
    monkeypatch.setattr(processor.platform, "machine", lambda: "x86_64")
    text = "model name\t: Old One\nflags\t\t: fpu sse2 {}\n"
    assert processor.check_processor(text.format("")).stops
    found = processor.check_processor(text.format("avx avx2"))
    assert not found.stops and "Old One, AVX2" in found.found


def test_more_threads_than_cores_are_told_with_the_variable(monkeypatch):
    for name in processor.THREAD_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MKL_NUM_THREADS", "1000")
    assert "unset MKL_NUM_THREADS" in processor.check_processor("flags : avx").advice


def test_a_containers_limit_is_told(monkeypatch, tmp_path):
    (tmp_path / "memory.max").write_text(f"{GIB // 2}\n")
    monkeypatch.setattr(processor, "_LIMITS", (tmp_path / "memory.max", tmp_path / "none"))
    found = processor.check_memory()
    assert "this container may use 0.5" in found.found and found.mark == "see"
    (tmp_path / "memory.max").write_text("max\n")
    assert "container" not in processor.check_memory().found


def test_settings_that_change_runs_are_listed_and_no_others(monkeypatch):
    monkeypatch.setenv("FLAGS_cudnn_deterministic", "1")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    found = processor.check_settings().found
    assert "FLAGS_cudnn_deterministic=1" in found and "secret" not in found


def test_no_chinese_font_is_told_with_what_to_install(monkeypatch):
    def no_font(text, size):
        warnings.warn(f"no font here has {text!r}", stacklevel=2)

    assert "Chinese too" in media.check_fonts().found  # noto-cjk is installed with paddlemix
    monkeypatch.setattr(media, "font_for", no_font)
    found = media.check_fonts()
    assert found.mark == "see" and "noto-cjk" in found.advice


@pytest.mark.parametrize(
    ("there", "mark", "told"),
    [(("av", "cv2"), "ok", "PyAV 1.0, OpenCV 1.0"), (("cv2",), "see", "no PyAV"), ((), "see", "not decoded")],
)
def test_video_decoders_are_told_with_why_one_is_not_there(monkeypatch, there, mark, told):
    def load(module):
        if module not in there:
            raise ImportError("libGL.so.1: cannot open shared object file")
        return SimpleNamespace(__version__="1.0")

    monkeypatch.setattr(media, "import_module", load)
    (found,) = media.check_videos()
    assert found.mark == mark and told in found.found and ("libGL.so.1" in found.found) == (mark == "see")


def test_a_pillow_without_a_decoder_and_heic_are_told(monkeypatch):
    monkeypatch.setattr(media.features, "check", lambda code: code != "webp")
    monkeypatch.setattr(media, "version_of", lambda name: None)
    images, heic = media.check_images()
    assert "Without WebP" in images.advice and "pip install pillow-heif" in heic.advice
    monkeypatch.setattr(media.features, "check", lambda code: True)
    monkeypatch.setattr(media, "version_of", lambda name: "1.1.0")
    assert [one.mark for one in media.check_images()] == ["ok", "ok"]


def test_a_folder_for_temporary_files_is_needed(monkeypatch):
    def none():
        raise FileNotFoundError("No usable temporary directory found")

    assert str(Path("/")) in places.check_temporary().found
    monkeypatch.setattr(places.tempfile, "gettempdir", none)
    assert places.check_temporary().stops
