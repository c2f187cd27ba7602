"""What may happen to an output folder that is not empty."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from paddlemix.configuration.arguments import DataArguments, FinetuneConfig, ModelArguments
from paddlemix.configuration.output_dir import check_output_dir, clear_output_dir
from paddlemix.configuration.problems import ConfigError


def config_for(folder: Path, *, model: str = "m", **training: object) -> FinetuneConfig:
    switches = {"do_train": True, "overwrite_output_dir": False, "resume_from_checkpoint": None}
    return FinetuneConfig(
        model=ModelArguments(model_name_or_path=model),
        data=DataArguments(),
        training={"output_dir": str(folder), **switches, **training},
        source="run.json",
    )


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x", encoding="utf-8")


def names_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def old_run(tmp_path: Path) -> Path:
    """The folder of an ended run, with some things in it that the run did not write."""
    touch(tmp_path, "checkpoint-10/model.safetensors", "checkpoint-20/trainer_state.json", "trainer_state.json")
    touch(tmp_path, "model-00001-of-00002.safetensors", "model.safetensors.index.json", "all_results.json")
    touch(tmp_path, "notes.txt", "checkpoint-best/model.safetensors", "runs/log", "my_results.json")
    return tmp_path


def test_a_folder_that_is_absent_or_empty_is_accepted(tmp_path):
    check_output_dir(config_for(tmp_path / "new"))
    check_output_dir(config_for(tmp_path))


def test_a_folder_with_something_in_it_is_refused(old_run):
    with pytest.raises(ConfigError, match=r"^run\.json: `output_dir` .* is not empty.*`overwrite_output_dir`"):
        check_output_dir(config_for(old_run))


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path):
    touch(tmp_path, "out")
    with pytest.raises(ConfigError, match="a file; expected a folder"):
        check_output_dir(config_for(tmp_path / "out", overwrite_output_dir=True))


def test_a_folder_that_cannot_be_written_to_is_refused_whether_it_exists_or_not(tmp_path, monkeypatch):
    def refuse(dir: Path) -> None:
        assert dir == tmp_path
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    for folder in (tmp_path, tmp_path / "new" / "deep"):
        with pytest.raises(ConfigError, match="cannot be written to: Read-only file system"):
            check_output_dir(config_for(folder, resume_from_checkpoint=True))


@pytest.mark.parametrize(
    "switch", [{"overwrite_output_dir": True}, {"resume_from_checkpoint": True}, {"do_train": False}]
)
def test_overwriting_resuming_and_evaluating_accept_it_and_the_check_deletes_nothing(old_run, switch):
    before = names_in(old_run)
    check_output_dir(config_for(old_run, **switch))
    assert names_in(old_run) == before


def test_only_the_first_process_looks(old_run, monkeypatch):
    monkeypatch.setenv("PADDLE_TRAINER_ID", "1")
    before = names_in(old_run)
    check_output_dir(config_for(old_run))
    assert clear_output_dir(config_for(old_run, overwrite_output_dir=True)) == []
    assert names_in(old_run) == before


def test_overwriting_deletes_what_a_run_wrote_and_nothing_else(old_run):
    deleted = clear_output_dir(config_for(old_run, overwrite_output_dir=True))
    assert len(deleted) == 6
    assert names_in(old_run) == {"notes.txt", "checkpoint-best/model.safetensors", "runs/log", "my_results.json"}


@pytest.mark.parametrize(
    "switch",
    [
        {"overwrite_output_dir": False},
        {"overwrite_output_dir": True, "resume_from_checkpoint": True},
        {"overwrite_output_dir": True, "do_train": False},
    ],
)
def test_nothing_is_deleted_unless_a_new_run_overwrites(old_run, switch):
    before = names_in(old_run)
    assert clear_output_dir(config_for(old_run, **switch)) == []
    assert names_in(old_run) == before


def test_weights_in_a_folder_without_traces_of_a_run_are_kept(tmp_path):
    touch(tmp_path, "model.safetensors", "config.json")
    assert clear_output_dir(config_for(tmp_path, overwrite_output_dir=True)) == []
    assert names_in(tmp_path) == {"model.safetensors", "config.json"}


@pytest.mark.parametrize("inside", [".", "model", "checkpoint-10"])
def test_the_model_to_train_is_never_overwritten(old_run, inside):
    touch(old_run, "model/model.safetensors")
    config = config_for(old_run, model=str(old_run / inside), overwrite_output_dir=True)
    with pytest.raises(ConfigError, match="holds the model to train"):
        check_output_dir(config)


def test_a_folder_named_like_a_checkpoint_that_holds_none_stops_overwriting(tmp_path):
    touch(tmp_path, "checkpoint-7/holiday.jpg")
    with pytest.raises(ConfigError, match="has the name of a checkpoint but none of its files"):
        check_output_dir(config_for(tmp_path, overwrite_output_dir=True))
    assert clear_output_dir(config_for(tmp_path, overwrite_output_dir=True)) == []
    assert names_in(tmp_path) == {"checkpoint-7/holiday.jpg"}


def test_a_link_named_like_a_checkpoint_is_not_followed(tmp_path):
    touch(tmp_path, "elsewhere/model.safetensors")
    out = tmp_path / "out"
    out.mkdir()
    (out / "checkpoint-1").symlink_to(tmp_path / "elsewhere")
    clear_output_dir(config_for(out, overwrite_output_dir=True))
    assert names_in(tmp_path / "elsewhere") == {"model.safetensors"}


def test_a_list_of_bad_records_goes_with_its_run_and_is_no_reason_to_delete_weights(tmp_path):
    touch(tmp_path, "model.safetensors", "bad_records.jsonl")
    assert clear_output_dir(config_for(tmp_path, overwrite_output_dir=True)) == [tmp_path / "bad_records.jsonl"]
    assert names_in(tmp_path) == {"model.safetensors"}
