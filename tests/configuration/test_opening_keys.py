"""The keys of how images are opened reach every family's processor, and what it shows a model is saved with it."""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from paddlemix.auto import AutoProcessorMIX
from paddlemix.configuration.file import ConfigError, load_config
from paddlemix.configuration.groups import FREE_KEYS, SAMPLE_KEYS
from paddlemix.configuration.help import help_text
from paddlemix.conversation import Conversation, RecordError, RecordId, Text, Turn
from paddlemix.conversation import Image as Shown
from paddlemix.media.kept import last_refetch
from paddlemix.media.opening import ImageOpening
from paddlemix.processors.settings import OPENING_VARIABLES, log_once
from paddlemix.tools.evaluate import model_and_sets
from paddlemix.training.finetune import Run
from paddlemix.visualization.preview import view_record

VALUES: dict[str, Any] = {"image_range": "min_max", "image_pixel_limit": 2000}
FIELDS = {"image_range": "range", "image_pixel_limit": "pixel_limit"}
FAMILIES = ("tiny_checkpoint", "tiny_qwen2_5_vl", "tiny_qwen_vl")


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for (variable,) in OPENING_VARIABLES.values():
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture(params=FAMILIES)
def folder(request: pytest.FixtureRequest) -> Path:
    """A checkpoint of each family."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def dark(tmp_path: Path) -> str:
    """12 bits in 16: by bit depth almost black."""
    path = str(tmp_path / "dark.png")
    Image.fromarray(np.linspace(0, 4095, 40 * 40).astype(np.uint16).reshape(40, 40)).save(path)
    return path


def config_file(tmp_path: Path, model: Path, **keys: Any) -> str:
    sets = {"train": [{"name": "chatml_dataset", "data_files": "train.json"}]}
    values = {"model_name_or_path": str(model), "output_dir": "out", "do_train": True, "dataset": sets, **keys}
    path = tmp_path / "run.json"
    path.write_text(json.dumps(values, indent=1))
    return str(path)


def processor_of(tmp_path: Path, model: Path, *flags: str, **keys: Any) -> Any:
    return Run.of(load_config(config_file(tmp_path, model, **keys), flags, has_gpu=True)).processor


def record(path: str) -> Conversation:
    return Conversation(
        (Turn("user", (Shown(path), Text("q"))), Turn("assistant", (Text("a"),))), RecordId("a.json", 0)
    )


@pytest.mark.parametrize("key", VALUES)
def test_a_key_reaches_the_processor_of_each_family_and_changes_what_sizes_are_kept_under(key, folder, tmp_path):
    usual, changed = processor_of(tmp_path, folder), processor_of(tmp_path, folder, **{key: VALUES[key]})
    assert usual.image_opening == ImageOpening()
    assert changed.image_opening == ImageOpening(**{FIELDS[key]: VALUES[key]})
    assert usual.fingerprint() != changed.fingerprint()


def test_a_flag_takes_precedence_over_the_file_that_over_the_environment_and_that_over_the_checkpoint(
    folder, tmp_path, monkeypatch
):
    def range_of(*flags: str, **keys: Any) -> str:
        return processor_of(tmp_path, tmp_path / "saved", *flags, **keys).image_opening.range

    saved = AutoProcessorMIX.from_pretrained(folder, image_range="min_max")
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "config.json").write_bytes((folder / "config.json").read_bytes())
    saved.save_pretrained(tmp_path / "saved")
    assert range_of() == range_of(image_range=None) == "min_max"
    monkeypatch.setenv("IMAGE_RANGE", " bit_depth ")
    assert range_of() == "bit_depth"
    assert range_of(image_range="min_max") == "min_max"
    assert range_of("--image_range", "bit_depth", image_range="min_max") == "bit_depth"


def test_asking_uses_the_range_of_training_but_the_limit_of_the_machine(folder, tmp_path, dark):
    trained = AutoProcessorMIX.from_pretrained(folder, image_range="min_max", image_pixel_limit=2000)
    trained.save_pretrained(tmp_path)
    asked = type(trained).from_pretrained(tmp_path)
    assert asked.image_opening == ImageOpening(range="min_max")
    assert np.asarray(asked.open_image(dark)).max() == 255
    trained.image_opening = ImageOpening()
    trained.save_pretrained(tmp_path)
    assert type(trained).from_pretrained(tmp_path).image_opening == ImageOpening()


def test_samples_prompts_calls_and_previews_show_the_image_alike(folder, dark):
    def pixels(processor: Any) -> list[np.ndarray]:
        text = processor.apply_chat_template(
            [{"role": "user", "content": [{"type": "image", "image": dark}, {"type": "text", "text": "q"}]}]
        )
        calls = [processor(text=text, images=[one], return_tensors="np") for one in (dark, Image.open(dark))]
        samples = [
            processor.encode(record(dark)),
            processor.encode_prompt(Conversation(record(dark).turns[:1], RecordId("", 0))),
        ]
        return [*(sample.media["pixel_values"] for sample in samples), *(call["pixel_values"] for call in calls)]

    usual = pixels(AutoProcessorMIX.from_pretrained(folder))
    stretched = pixels(AutoProcessorMIX.from_pretrained(folder, image_range="min_max"))
    for one, other in zip(usual, stretched, strict=True):
        np.testing.assert_array_equal(one, usual[0])
        np.testing.assert_array_equal(other, stretched[0])
    assert stretched[0].mean() > usual[0].mean() + 1
    view = view_record(record(dark), AutoProcessorMIX.from_pretrained(folder, image_range="min_max"))
    assert not view.problem and len(view.thumbnails) == 1


def test_an_image_above_the_limit_is_refused_while_records_are_measured(folder, tmp_path, dark):
    processor = AutoProcessorMIX.from_pretrained(folder, image_pixel_limit=1599)
    with pytest.raises(RecordError, match=r"has 40 x 40 pixels; at most 1599 are read\. Raise `image_pixel_limit`"):
        processor.measure(record(dark))
    assert AutoProcessorMIX.from_pretrained(folder, image_pixel_limit=1600).measure(record(dark)).images == 1


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [("image_range", "auto", 'one of "bit_depth", "min_max"'), ("image_pixel_limit", 0, "a whole number, more than 0")],
)
def test_a_bad_value_of_a_key_is_refused_with_its_line(key, value, expected, tmp_path):
    path = config_file(tmp_path, Path("m"), **{key: value})
    with pytest.raises(ConfigError) as caught:
        load_config(path, has_gpu=True)
    assert f"`{key}` is {json.dumps(value)}; expected {expected}" in str(caught.value.problems[0])


@pytest.mark.parametrize(("variable", "value"), [("IMAGE_RANGE", "wide"), ("IMAGE_PIXEL_LIMIT", "many")])
def test_a_bad_value_of_a_variable_is_refused_with_its_name(variable, value, tiny_checkpoint, monkeypatch):
    monkeypatch.setenv(variable, value)
    with pytest.raises(ValueError, match=rf"\({variable}\) is '{value}'; expected"):
        AutoProcessorMIX.from_pretrained(tiny_checkpoint)


def test_a_misspelled_argument_is_named_with_the_nearest(tiny_checkpoint):
    with pytest.raises(TypeError, match="`image_ranges` is nothing .* Did you mean `image_range`?"):
        AutoProcessorMIX.from_pretrained(tiny_checkpoint, image_ranges="min_max")


def test_what_is_not_as_usual_is_logged_once(tiny_checkpoint, caplog):
    log_once.cache_clear()
    with caplog.at_level(logging.INFO, logger="paddlemix"):
        for _ in range(2):
            AutoProcessorMIX.from_pretrained(tiny_checkpoint, image_range="min_max")
    told = [one.getMessage() for one in caplog.records if "image_range" in one.getMessage()]
    assert told == ["images: of more than 8 bits shown by `image_range` min_max; at most 89478485 pixels"]


@pytest.mark.parametrize("key", VALUES)
def test_a_run_that_is_resumed_must_share_it_and_the_help_shows_it(key):
    assert key in SAMPLE_KEYS and f"  {key}: " in help_text()


class TestRefetch:
    @pytest.fixture(autouse=True)
    def cache_of_its_own(self, tmp_path, monkeypatch):
        monkeypatch.setenv("PADDLEMIX_CACHE", str(tmp_path / "cache"))

    def test_a_run_that_asks_for_it_has_addresses_asked_anew_and_others_do_not(self, tiny_checkpoint, tmp_path):
        processor_of(tmp_path, tiny_checkpoint)
        assert last_refetch() == 0
        processor_of(tmp_path, tiny_checkpoint, "--refetch", "true")
        first = last_refetch()
        assert first > 0
        processor_of(tmp_path, tiny_checkpoint)
        assert last_refetch() == first
        processor_of(tmp_path, tiny_checkpoint, refetch=True)
        assert last_refetch() > first

    def test_evaluation_of_a_config_takes_it(self, tmp_path):
        sets = {"eval": [{"name": "chatml_dataset", "data_files": "eval.json"}]}
        keys = {"dataset": sets, "do_train": False, "do_eval": True, "image_range": "min_max"}
        path = config_file(tmp_path, Path("m"), refetch=True, **keys)
        _, _, bounds = model_and_sets(argparse.Namespace(config_or_model=path, dataset=None, model_name_or_path=None))
        assert last_refetch() > 0 and bounds["image_range"] == "min_max" and "refetch" not in bounds

    def test_a_resumed_run_may_change_it(self):
        assert "refetch" in FREE_KEYS and "refetch" not in SAMPLE_KEYS
