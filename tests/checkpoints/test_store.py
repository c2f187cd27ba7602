"""Which checkpoints count, which are used and which are deleted."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest

from paddlemix.checkpoints.manifest import find_damage, write_manifest
from paddlemix.checkpoints.store import CheckpointStore, choose_checkpoint


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "out")


def stage(store: CheckpointStore, step: int, text: str = "weights") -> Path:
    folder = store.staging(step)
    (folder / "part").mkdir(parents=True)
    (folder / "model.safetensors").write_text(f"{text} {step}")
    (folder / "part" / "state.json").write_text("{}")
    return folder


def save(store: CheckpointStore, *steps: int) -> None:
    for step in steps:
        stage(store, step)
        store.publish(step)


def names(store: CheckpointStore) -> list[str]:
    return sorted(path.name for path in store.output_dir.iterdir())


def test_a_checkpoint_appears_when_it_is_published_and_not_before(store):
    staged = stage(store, 10)
    assert store.checkpoints() == [] and store.newest_whole() is None
    assert store.publish(10) == store.folder(10) and not staged.exists()
    assert find_damage(store.folder(10)) is None and names(store) == ["checkpoint-10"]


def test_publishing_replaces_a_damaged_checkpoint_of_the_same_step(store):
    save(store, 10)
    (store.folder(10) / "model.safetensors").unlink()
    save(store, 10)
    assert find_damage(store.folder(10)) is None and names(store) == ["checkpoint-10"]


def test_no_reader_finds_a_replaced_checkpoint_missing_for_as_long_as_it_is_deleted(store, monkeypatch):
    save(store, 10)
    whole_when_deleting = []
    delete = shutil.rmtree

    def watch(folder: Path) -> None:
        whole_when_deleting.append(store.newest_whole())
        delete(folder)

    monkeypatch.setattr("paddlemix.checkpoints.store.shutil.rmtree", watch)
    save(store, 10)
    assert whole_when_deleting == [store.folder(10)]


def shorten(folder: Path) -> None:
    (folder / "model.safetensors").write_text("weigh")


def flip(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"9")


DAMAGES = {
    r"model.safetensors has 5 bytes, expected 10": shorten,
    r"model.safetensors has another SHA-256 than when it was written": flip,
    r"part/state.json is missing": lambda folder: (folder / "part" / "state.json").unlink(),
    r"manifest.json is missing": lambda folder: (folder / "manifest.json").unlink(),
    r"manifest.json cannot be read": lambda folder: (folder / "manifest.json").write_text('{"files": '),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_named_with_what_differs_and_the_one_before_it_used(store, caplog, damage):
    save(store, 9, 10)
    DAMAGES[damage](store.folder(10))
    with caplog.at_level(logging.WARNING):
        assert choose_checkpoint(store, True) == store.folder(9)
    assert f"{store.folder(10)} is damaged and not used: {damage}" in caplog.text


def test_where_every_checkpoint_is_damaged_nothing_is_begun_anew(store):
    save(store, 1, 2)
    for step in (1, 2):
        shorten(store.folder(step))
    with pytest.raises(ValueError, match=r"no checkpoint is whole \(checkpoint-2: .* bytes.*; checkpoint-1: "):
        choose_checkpoint(store, True)


def test_true_begins_anew_where_there_is_no_checkpoint_and_says_so(store, caplog):
    assert choose_checkpoint(store, True) is None and "training begins at its start" in caplog.text
    assert choose_checkpoint(store, None) is None and choose_checkpoint(store, False) is None


def test_a_named_checkpoint_must_be_whole(store):
    save(store, 1)
    assert choose_checkpoint(store, str(store.folder(1))) == store.folder(1)
    flip(store.folder(1))
    with pytest.raises(ValueError, match=r"no whole checkpoint: model.safetensors has another SHA-256"):
        choose_checkpoint(store, str(store.folder(1)))
    with pytest.raises(ValueError, match=r"checkpoint-7, which is no whole checkpoint: there is no such folder"):
        choose_checkpoint(store, str(store.folder(7)))


def test_a_named_checkpoint_with_newer_ones_in_the_output_folder_is_refused(store, tmp_path):
    save(store, 1, 2)
    with pytest.raises(ValueError, match=r"checkpoint-2 is newer"):
        choose_checkpoint(store, str(store.folder(1)))
    other = CheckpointStore(tmp_path / "other")
    assert choose_checkpoint(other, str(store.folder(1))) == store.folder(1)


def test_what_a_killed_save_or_deletion_left_is_cleared_and_nothing_else(store):
    save(store, 1)
    stage(store, 2)
    (store.output_dir / ".checkpoint-0.removed").mkdir()
    (store.output_dir / ".checkpoint-mine").mkdir()
    assert [path.name for path in store.clear_leftovers()] == [".checkpoint-0.removed", ".checkpoint-2.staging"]
    assert names(store) == [".checkpoint-mine", "checkpoint-1"]


def test_the_limit_deletes_the_oldest_and_keeps_the_newest_and_the_best(store):
    save(store, 1, 2, 3, 4)
    assert store.remove_older(4, None) == [] and store.remove_older(4, 9) == []
    store.remove_older(4, 2, best=store.folder(1))
    assert names(store) == ["checkpoint-1", "checkpoint-4"]
    save(store, 5)
    store.remove_older(5, 1, best=store.folder(1))
    assert names(store) == ["checkpoint-1", "checkpoint-5"]


def test_the_limit_counts_no_damaged_checkpoint_for_a_good_one(store):
    save(store, 1, 2, 3, 9)
    shorten(store.folder(2))
    store.remove_older(3, 2)
    assert names(store) == ["checkpoint-1", "checkpoint-3", "checkpoint-9"]


def test_the_limit_never_deletes_a_folder_that_no_run_wrote(store):
    save(store, 2, 3)
    (store.output_dir / "checkpoint-1").mkdir()
    store.remove_older(3, 1)
    assert names(store) == ["checkpoint-1", "checkpoint-3"]


def test_a_manifest_lists_every_file_below_its_folder(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c.txt").write_text("x")
    write_manifest(tmp_path)
    assert find_damage(tmp_path) is None
    (tmp_path / "a" / "b" / "c.txt").write_text("y")
    assert find_damage(tmp_path, contents=False) is None and "a/b/c.txt" in (find_damage(tmp_path) or "")
