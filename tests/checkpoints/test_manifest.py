"""Manifests of any shape but the right one make a checkpoint a damaged one, and open nothing outside it."""

from __future__ import annotations

import json
import logging
import os
import threading
from pathlib import Path

import pytest

from paddlemix.checkpoints import manifest
from paddlemix.checkpoints.manifest import find_damage, write_manifest
from paddlemix.checkpoints.store import CheckpointStore, choose_checkpoint

SHA = "0" * 64


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "out" / "checkpoint-2"
    (folder / "part").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(os.urandom(100_000))
    (folder / "part" / "empty").touch()
    write_manifest(folder)
    return folder


SHAPES = {
    "no object": [],
    "no files": {},
    "files are a list": {"files": [1]},
    "lists nothing": {"files": {}},
    "another key": {"files": {"a": {"bytes": 1, "sha256": SHA}}, "more": 1},
    "an entry is a number": {"files": {"model.safetensors": 5}},
    "a key is misspelled": {"files": {"model.safetensors": {"bytds": 1, "sha256": SHA}}},
    "bytes are a text": {"files": {"model.safetensors": {"bytes": "1", "sha256": SHA}}},
    "bytes are true": {"files": {"model.safetensors": {"bytes": True, "sha256": SHA}}},
    "bytes are negative": {"files": {"model.safetensors": {"bytes": -1, "sha256": SHA}}},
    "digest is short": {"files": {"model.safetensors": {"bytes": 1, "sha256": "00"}}},
    "digest is null": {"files": {"model.safetensors": {"bytes": 1, "sha256": None}}},
    "above": {"files": {"../secret": {"bytes": 6, "sha256": SHA}}},
    "above within": {"files": {"part/../../secret": {"bytes": 6, "sha256": SHA}}},
    "absolute": {"files": {"/dev/zero": {"bytes": 0, "sha256": SHA}}},
    "the folder": {"files": {".": {"bytes": 0, "sha256": SHA}}},
    "no name": {"files": {"": {"bytes": 0, "sha256": SHA}}},
    "no name of a file": {"files": {"a\0b": {"bytes": 0, "sha256": SHA}}},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_any_other_shape_cannot_be_read_and_the_checkpoint_before_is_taken(
    checkpoint: Path, shape: str, caplog: pytest.LogCaptureFixture
) -> None:
    (checkpoint.parent / "secret").write_text("secret")
    store = CheckpointStore(checkpoint.parent)
    staged = store.staging(1)
    staged.mkdir()
    (staged / "model.safetensors").touch()
    before = store.publish(1)
    (checkpoint / "manifest.json").write_text(json.dumps(SHAPES[shape]))
    with caplog.at_level(logging.WARNING):
        assert choose_checkpoint(store, True) == before
    assert "manifest.json cannot be read" in caplog.text


@pytest.mark.parametrize(
    "text",
    [b"[" * 100_000, b'{"files": {"a": {"bytes": 1, "bytes": 2}}}', b"\xff", b"", b"1" * 5000, b" " * (9 << 20)],
    ids=["deep", "a key twice", "no text", "empty", "a long number", "large"],
)
def test_any_other_text_cannot_be_read(checkpoint: Path, text: bytes) -> None:
    (checkpoint / "manifest.json").write_bytes(text)
    assert "manifest.json cannot be read" in (find_damage(checkpoint) or "")


def test_every_flipped_bit_of_a_manifest_is_damage(checkpoint: Path) -> None:
    file = checkpoint / "manifest.json"
    whole = file.read_bytes()
    meant = json.loads(whole)
    unseen = 0
    for place in range(len(whole) * 8):
        flipped = bytearray(whole)
        flipped[place // 8] ^= 1 << place % 8
        file.write_bytes(flipped)
        if find_damage(checkpoint) is None:  # a space that has become another means the same
            unseen += 1
            assert json.loads(bytes(flipped)) == meant
    assert unseen < len(whole)


@pytest.mark.parametrize("kind", ["device", "pipe", "folder"])
def test_what_is_no_file_is_not_opened(checkpoint: Path, kind: str) -> None:
    make = {"device": lambda path: path.symlink_to("/dev/zero"), "pipe": os.mkfifo, "folder": Path.mkdir}[kind]
    for name in ("part/empty", "manifest.json"):
        (checkpoint / name).unlink()
        make(checkpoint / name)
        assert f"{name} cannot be read" in (find_damage(checkpoint) or "")


def test_files_are_digested_by_several_threads(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both = threading.Barrier(2, timeout=20)
    digest = manifest._sha256

    def meet(file: Path) -> str:
        both.wait()
        return digest(file)

    monkeypatch.setattr(manifest, "usable_cores", lambda: 2)
    monkeypatch.setattr(manifest, "_sha256", meet)
    assert find_damage(checkpoint) is None
