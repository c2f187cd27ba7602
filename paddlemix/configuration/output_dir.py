"""Guards a run's output folder: an earlier run's files are neither lost by accident nor mixed with new ones."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from paddlemix.checkpoints.run_lock import FILE as RUN_LOCK
from paddlemix.checkpoints.store import CheckpointStore
from paddlemix.configuration.arguments import FinetuneConfig
from paddlemix.configuration.problems import ConfigError, Problem
from paddlemix.datasets.bad_records import FILE as BAD_RECORDS_FILE

_MERGED_BASE = "merged_base"
# What the trainer leaves at the top of its folder beside the weights.
_RUN_MARKS = ("trainer_state.json", "train_results.json", "eval_results.json", "all_results.json")
_RUN_LISTS = (BAD_RECORDS_FILE,)
_WEIGHTS = ("model*.safetensors", "model*.safetensors.index.json", "adapter_model.safetensors", "adapter_config.json")
# At least one of these is in every checkpoint that a run has begun to write.
_CHECKPOINT_MARKS = (
    *_WEIGHTS,
    "manifest.json",
    "trainer_state.json",
    "training_args.bin",
    "*.pdparams",
    "*.pdopt",
    "optimizer*",
)


def check_output_dir(config: FinetuneConfig) -> None:
    """Refuse an `output_dir` that a run must not write into. Deletes nothing.

    Only the first process looks: the others may find what it has written already.

    Args:
        config: a checked config.

    Raises:
        ConfigError: the folder is a file, a link that leads nowhere, or cannot be written to; or it is to be trained
            into, and something else in it has a checkpoint's name; or it is not empty and neither
            `overwrite_output_dir` nor `resume_from_checkpoint` is set; or overwriting it would delete the model to
            train or something that no run wrote.
    """
    folder = _folder(config)
    if not _is_first_process():
        return
    if os.path.lexists(folder) and not folder.is_dir():
        what = "a file" if folder.exists() else "a link that leads nowhere"
        raise _refusal(config, f"`output_dir` is {folder}, {what}; expected a folder. Choose another one.")
    _check_that_files_can_be_written(config, folder)
    if not config.training["do_train"] or not folder.exists():
        return
    try:
        CheckpointStore(folder).check_names()
    except ValueError as error:
        raise _refusal(config, str(error)) from None
    if config.training["resume_from_checkpoint"] or all(path.name == RUN_LOCK for path in folder.iterdir()):
        return
    if not config.training["overwrite_output_dir"]:
        raise _refusal(
            config,
            f"`output_dir` {folder} is not empty. Choose another one, or set `overwrite_output_dir` to true to delete "
            "the earlier run in it, or `resume_from_checkpoint` to true to go on with that run.",
        )
    _check_that_overwriting_is_safe(config, folder)


def clear_output_dir(config: FinetuneConfig) -> list[Path]:
    """Delete the earlier run that `overwrite_output_dir` gives up; call it after `check_output_dir`.

    Deleted are `checkpoint-<number>` folders that hold a checkpoint's files, the trainer's state and results, and, if
    there was any of these, the weights beside them: if they stayed, the trainer would count the old checkpoints among
    the new, and a broken run would seem to have ended. So is its list of bad records. Everything else stays, logs and
    files of others above all.
    Nothing is deleted while resuming, evaluating only, or in any but the first process.

    Args:
        config: a checked config.

    Returns:
        What was deleted.
    """
    training = config.training
    if not _is_first_process() or not (training["do_train"] and training["overwrite_output_dir"]):
        return []
    if training["resume_from_checkpoint"] or not _folder(config).is_dir():
        return []
    deleted = _files_of_a_run(_folder(config))
    for path in deleted:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return deleted


def merged_base_folder(config: FinetuneConfig) -> Path:
    """Tell where a run writes the model that earlier adapters have become a part of, as an absolute path."""
    return _folder(config).resolve() / _MERGED_BASE


def _folder(config: FinetuneConfig) -> Path:
    return Path(config.training["output_dir"]).expanduser()


def _is_first_process() -> bool:
    return os.environ.get("PADDLE_TRAINER_ID", "0") == "0"


def _refusal(config: FinetuneConfig, text: str) -> ConfigError:
    return ConfigError([Problem(config.place("output_dir"), text)])


def _check_that_files_can_be_written(config: FinetuneConfig, folder: Path) -> None:
    """Write into the folder, or the nearest existing one above: permissions alone do not tell of a read-only disk."""
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=nearest) as probe:
            probe.write(b"x")
    except OSError as error:
        raise _refusal(
            config,
            f"`output_dir` {folder} cannot be written to: {error.strerror}. Choose a folder with the right to write "
            "and room in it.",
        ) from None


def _check_that_overwriting_is_safe(config: FinetuneConfig, folder: Path) -> None:
    for name in (config.model.model_name_or_path, *config.model.lora_paths):
        model = Path(name).expanduser()
        if model.exists() and folder.resolve() in (model.resolve(), *model.resolve().parents):
            raise _refusal(
                config,
                f"`output_dir` {folder} holds the model to train, {model}, and `overwrite_output_dir` is true. Choose "
                "another `output_dir`.",
            )
    unknown = [path for path in _checkpoints(folder) if not _holds_any(path, _CHECKPOINT_MARKS)]
    if unknown:
        raise _refusal(
            config,
            f"{unknown[0]} has the name of a checkpoint but none of its files, so it is not deleted although "
            "`overwrite_output_dir` is true. Move it away, or choose another `output_dir`.",
        )


def _files_of_a_run(folder: Path) -> list[Path]:
    found = [path for path in _checkpoints(folder) if _holds_any(path, _CHECKPOINT_MARKS)]
    found += _matches(folder, _RUN_MARKS)
    found += _matches(folder, _WEIGHTS) if found else []
    return found + _matches(folder, _RUN_LISTS)


def _checkpoints(folder: Path) -> list[Path]:
    return [path for path in CheckpointStore(folder).checkpoints() if not path.is_symlink()]


def _holds_any(folder: Path, patterns: tuple[str, ...]) -> bool:
    return bool(_matches(folder, patterns))


def _matches(folder: Path, patterns: tuple[str, ...]) -> list[Path]:
    return sorted(path for pattern in patterns for path in folder.glob(pattern) if path.is_file())
