"""Which checkpoints count, which are used and which are deleted."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest

from paddlemix.checkpoints.manifest import find_damage, write_manifest
from paddlemix.checkpoints.store import CheckpointStore, choose_checkpoint
from paddlemix.staging import name_beside


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

    monkeypatch.setattr("paddlemix.staging.shutil.rmtree", watch)
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
    out, elsewhere = store.output_dir, store.output_dir.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "kept").touch()
    final = name_beside(out / "model.safetensors")
    final.write_bytes(b"half a model")
    name_beside(out / "merged_base").mkdir()
    (out / ".checkpoint-0.removed").mkdir()
    (out / ".checkpoint-3.staging").symlink_to(elsewhere)
    (out / ".checkpoint-4.staging").write_text("a file")
    (out / ".checkpoint-5.ab12.removed").symlink_to("nowhere")
    (out / ".model-00001-of-00002.4711.safetensors").touch()  # as earlier releases named it
    for name in (".checkpoint-mine", ".notes.2024.txt"):
        (out / name).mkdir()
    assert len(store.clear_leftovers()) == 8 and not final.exists()
    assert names(store) == [".checkpoint-mine", ".notes.2024.txt", "checkpoint-1"]
    assert (elsewhere / "kept").exists()


def test_two_runs_in_one_folder_do_not_write_under_one_name(tmp_path):
    stores = [CheckpointStore(tmp_path / "out") for _ in range(2)]
    for number, one in enumerate(stores):
        stage(one, 2, text=f"run {number}")
    for number, one in enumerate(stores):
        one.publish(2)
        assert (one.folder(2) / "model.safetensors").read_text() == f"run {number} 2"
        assert find_damage(one.folder(2)) is None
    assert names(stores[0]) == ["checkpoint-2"]


def test_what_only_has_the_name_of_a_checkpoint_is_named(store):
    save(store, 1)
    store.check_names()
    for make, what in ((Path.touch, "a file"), (lambda path: path.symlink_to("nowhere"), "a link that leads nowhere")):
        path = store.folder(2)
        make(path)
        assert store.newest_whole() == store.folder(1)
        with pytest.raises(ValueError, match=rf"checkpoint-2 has the name of a checkpoint, but is {what}; expected"):
            store.check_names()
        path.unlink()


def test_a_checkpoint_that_is_a_link_is_replaced_and_removed_without_what_it_leads_to(store, tmp_path):
    save(store, 1, 2, 3)
    moved = tmp_path / "moved"
    store.folder(1).rename(moved)
    store.folder(1).symlink_to(moved)
    assert find_damage(store.folder(1)) is None
    store.remove_older(3, 2)
    assert names(store) == ["checkpoint-2", "checkpoint-3"] and find_damage(moved) is None


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
