"""The config's keys of images and videos: each reaches the processor, and takes precedence over the environment."""

from __future__ import annotations

import argparse
import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from paddlemix.configuration.arguments import DataArguments, MediaArguments
from paddlemix.configuration.file import ConfigError, load_config
from paddlemix.configuration.groups import SAMPLE_KEYS
from paddlemix.configuration.help import help_text
from paddlemix.models.qwen2_vl.processing import Qwen2VLProcessor
from paddlemix.processors import settings
from paddlemix.tools.evaluate import model_and_sets
from paddlemix.training.finetune import Run

ALL_KEYS = tuple(one.name for one in fields(MediaArguments))
# Those of sizes, and of choices of frames; for those of opening see test_opening_keys.py.
KEYS = tuple(key for key in ALL_KEYS if key not in settings.OPENING_VARIABLES)
# A value of each key that no checkpoint and no default has, with what must stand beside it.
VALUES: dict[str, dict[str, Any]] = {
    "min_pixels": {"min_pixels": 1568},
    "max_pixels": {"max_pixels": 6272},
    "resized_height": {"resized_height": 84, "resized_width": 56},
    "resized_width": {"resized_height": 56, "resized_width": 84},
    "fps": {"fps": 0.5},
    "nframes": {"nframes": 6},
    "min_frames": {"min_frames": 2},
    "max_frames": {"max_frames": 10},
    "video_min_pixels": {"video_min_pixels": 1568},
    "video_max_pixels": {"video_max_pixels": 200704},
    "video_total_pixels": {"video_total_pixels": 401408},
}


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for variables in settings.VARIABLES.values():
        for variable in variables:
            monkeypatch.delenv(variable, raising=False)


def config_file(folder: Path, model: Path, **keys: Any) -> str:
    sets = {"train": [{"name": "chatml_dataset", "data_files": "train.json"}]}
    values = {"model_name_or_path": str(model), "output_dir": "out", "do_train": True, "dataset": sets, **keys}
    path = folder / "run.json"
    path.write_text(json.dumps(values, indent=1))
    return str(path)


def processor_of(folder: Path, model: Path, *flags: str, **keys: Any) -> Qwen2VLProcessor:
    config = load_config(config_file(folder, model, **keys), flags, has_gpu=True)
    return Run.of(config).processor


def setting(processor: Qwen2VLProcessor, key: str) -> Any:
    is_of_images = key in ("min_pixels", "max_pixels", "resized_height", "resized_width")
    owner = processor.image_processor if is_of_images else processor.video_processor
    return getattr(owner, key.removeprefix("video_"))


def test_the_keys_are_all_that_can_be_set_about_images_and_videos() -> None:
    assert set(KEYS) == set(settings.VARIABLES) == set(VALUES)
    assert set(ALL_KEYS) - set(KEYS) == set(settings.OPENING_VARIABLES)


@pytest.mark.parametrize("key", KEYS)
def test_a_key_reaches_the_processor_and_changes_what_measured_sizes_are_kept_under(
    key: str, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    usual, changed = processor_of(tmp_path, tiny_checkpoint), processor_of(tmp_path, tiny_checkpoint, **VALUES[key])
    assert setting(usual, key) != setting(changed, key) == VALUES[key][key]
    assert usual.fingerprint() != changed.fingerprint()


@pytest.mark.parametrize("key", KEYS)
def test_a_key_takes_precedence_over_the_environment(
    key: str, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in VALUES[key].items():
        monkeypatch.setenv(settings.VARIABLES[name][0], str(value + 28))
    assert setting(processor_of(tmp_path, tiny_checkpoint), key) == VALUES[key][key] + 28
    assert setting(processor_of(tmp_path, tiny_checkpoint, **VALUES[key]), key) == VALUES[key][key]
    nothing = dict.fromkeys(VALUES[key])
    assert setting(processor_of(tmp_path, tiny_checkpoint, **nothing), key) == VALUES[key][key] + 28


def test_a_way_of_choosing_frames_takes_precedence_over_the_environments_other_way(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NFRAMES", "8")
    videos = processor_of(tmp_path, tiny_checkpoint, fps=1).video_processor
    assert (videos.fps, videos.nframes) == (1.0, None)
    assert processor_of(tmp_path, tiny_checkpoint, "--nframes", "4").video_processor.nframes == 4


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize(("value", "shown"), [(0, "0"), (-2, "-2"), ("4", '"4"'), (True, "true")])
def test_a_bad_value_is_refused_with_key_and_line(key: str, value: Any, shown: str, tmp_path: Path) -> None:
    path = config_file(tmp_path, Path("m"), **{key: value})
    line = 1 + next(number for number, text in enumerate(Path(path).read_text().split("\n")) if f'"{key}"' in text)
    with pytest.raises(ConfigError) as caught:
        load_config(path, has_gpu=True)
    expected = "a number" if key == "fps" else "a whole number"
    assert str(caught.value.problems[0]).startswith(
        f"{path}:{line}: `{key}` is {shown}; expected {expected}, more than 0."
    )


@pytest.mark.parametrize("key", sorted(set(KEYS) - {"fps"}))
def test_all_but_a_rate_are_whole_numbers(key: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"`{key}` is 1\.5; expected a whole number, more than 0\."):
        load_config(config_file(tmp_path, Path("m"), **{key: 1.5}), has_gpu=True)


@pytest.mark.parametrize("key", KEYS)
def test_a_family_without_them_refuses_each(key: str, tiny_qwen_vl: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"`{key}`.* cannot be set: Qwen-VL stretches every image"):
        processor_of(tmp_path, tiny_qwen_vl, **VALUES[key])


@pytest.mark.parametrize("key", KEYS)
def test_a_run_that_is_resumed_must_share_it_and_the_help_shows_it(key: str) -> None:
    assert key in SAMPLE_KEYS and f"  {key}: " in help_text()


def test_settings_hold_each_key_by_its_own_name() -> None:
    given = replace(DataArguments(), **{key: number + 1 for number, key in enumerate(KEYS)})
    opening = dict.fromkeys(settings.OPENING_VARIABLES)
    assert given.media_settings == {key: number + 1 for number, key in enumerate(KEYS)} | opening


def test_evaluation_of_a_config_takes_its_settings(tmp_path: Path) -> None:
    sets = {"eval": [{"name": "chatml_dataset", "data_files": "eval.json"}]}
    path = config_file(tmp_path, Path("m"), dataset=sets, do_train=False, do_eval=True, fps=0.5, max_length=99)
    args = argparse.Namespace(config_or_model=path, dataset=None, model_name_or_path=None)
    _, _, bounds = model_and_sets(args)
    assert (bounds["fps"], bounds["nframes"], bounds["max_length"]) == (0.5, None, 99)
