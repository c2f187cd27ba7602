"""The config's key of the form of boxes and points: from the config to the processor, and on with the saved model."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from paddlemix.auto import AutoProcessorMIX
from paddlemix.configuration.file import ConfigError, load_config
from paddlemix.configuration.groups import SAMPLE_KEYS
from paddlemix.configuration.help import help_text
from paddlemix.contract import PlaceSizes, Processor, ShownSize
from paddlemix.conversation import Box, Conversation, Image, Point, RecordId, Reference, Text, Turn
from paddlemix.tools import evaluate
from paddlemix.tools.answering import AskedModel, add_model_flags
from paddlemix.training.finetune import Run

JSON = '[{"bbox_2d": [14, 14, 28, 28], "label": "猫"}, {"point_2d": [28, 42], "label": "猫"}]'
TAGGED = (
    "<|object_ref_start|>猫<|object_ref_end|><|box_start|>(14,14),(28,28)<|box_end|><|box_start|>(28,42)<|box_end|>"
)


def shown_sizes(sizes):
    return [ShownSize(size) for size in sizes]


def config_file(folder: Path, model: Path, **keys: Any) -> str:
    sets = {"train": [{"name": "chatml_dataset", "data_files": "train.json"}]}
    path = folder / "run.json"
    path.write_text(
        json.dumps({"model_name_or_path": str(model), "output_dir": "out", "do_train": True, "dataset": sets, **keys})
    )
    return str(path)


def processor_of(folder: Path, model: Path, **keys: Any) -> Processor:
    return Run.of(load_config(config_file(folder, model, **keys), has_gpu=True)).processor


@pytest.fixture
def record(save_image) -> Conversation:
    """A record about an image of 112 x 112 pixels, which the tiny model sees in 56 x 56."""
    asked = Turn("user", (Image(save_image(112, 112)), Text("Find it.")))
    said = Turn("assistant", (Reference("猫"), Box(28, 28, 56, 56), Point(56, 84)))
    return Conversation((asked, said), RecordId("a.json", 0))


def answer(processor: Processor, record: Conversation) -> str:
    """What a model is trained to say."""
    text = processor.decode(processor.encode(record).input_ids)
    return text.split("<|im_start|>assistant\n")[1].removesuffix("<|im_end|>\n").removesuffix("<|im_end|>")


@pytest.mark.parametrize(("form", "said"), [(None, JSON), ("json", JSON), ("tagged", TAGGED)])
def test_the_key_decides_how_boxes_are_trained_and_read(
    form: str | None, said: str, tiny_qwen2_5_vl: Path, tmp_path: Path, record: Conversation
) -> None:
    processor = processor_of(tmp_path, tiny_qwen2_5_vl, grounding=form)
    raw = answer(processor, record)
    assert raw == said
    assert processor.measure(record).tokens == len(processor.encode(record).input_ids)
    ((box,),), ((point,),) = (
        processor.grounding.parse(raw, shown_sizes([(112, 112)])),
        processor.grounding.parse_points(raw, shown_sizes([(112, 112)])),
    )
    assert (box.label, box.box, point.label, point.point) == ("猫", (28, 28, 56, 56), "猫", (56, 84))


def test_tags_are_control_tokens_in_the_tagged_form_alone(
    tiny_qwen2_5_vl: Path, tmp_path: Path, record: Conversation
) -> None:
    tagged, listed = (processor_of(tmp_path, tiny_qwen2_5_vl, grounding=form) for form in ("tagged", "json"))
    tag = tagged.tokenizer.token_id("<|box_start|>")
    assert list(tagged.encode(record).input_ids).count(tag) == 2
    assert tag not in listed.encode(record).input_ids
    assert tagged.fingerprint() != listed.fingerprint()
    assert listed.fingerprint() == processor_of(tmp_path, tiny_qwen2_5_vl).fingerprint()


def test_numbers_of_the_tagged_form_are_clipped_to_the_image_and_may_have_five_digits(
    tiny_qwen2_5_vl: Path, tmp_path: Path
) -> None:
    tagged = processor_of(
        tmp_path, tiny_qwen2_5_vl, grounding="tagged", resized_height=28, resized_width=10080, max_pixels=28 * 10080
    ).grounding
    size = (10080, 28)
    turn = Turn("assistant", (Box(10010, -1, 20000, 28), Point(10010, 5)))
    text = "".join(piece.text for piece in tagged.write(turn, PlaceSizes.of_images([size])))
    assert text == "<|box_start|>(10010,0),(10080,28)<|box_end|><|box_start|>(10010,5)<|box_end|>"
    ((found,),) = tagged.parse("<|box_start|>(10010,0),(99999,28)<|box_end|>", shown_sizes([size]))
    assert found.box == (10010, 0, 10080, 28)


def test_a_form_is_saved_with_the_model_and_found_again(
    tiny_qwen2_5_vl: Path, tmp_path: Path, record: Conversation
) -> None:
    saved = tmp_path / "saved"
    shutil.copytree(tiny_qwen2_5_vl, saved)
    processor_of(tmp_path, tiny_qwen2_5_vl, grounding="tagged").save_pretrained(saved)
    assert answer(AutoProcessorMIX.from_pretrained(saved), record) == TAGGED
    assert answer(processor_of(tmp_path, saved), record) == TAGGED
    # A key takes precedence, and what it names is saved in turn.
    back = processor_of(tmp_path, saved, grounding="json")
    assert answer(back, record) == JSON
    back.save_pretrained(saved)
    assert answer(AutoProcessorMIX.from_pretrained(saved), record) == JSON
    assert "grounding" not in json.loads((saved / "preprocessor_config.json").read_text())


def test_a_saved_form_that_does_not_exist_is_refused(tiny_qwen2_5_vl: Path, tmp_path: Path) -> None:
    saved = tmp_path / "saved"
    shutil.copytree(tiny_qwen2_5_vl, saved)
    path = saved / "preprocessor_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "grounding": "xml"}))
    with pytest.raises(ValueError, match=r"preprocessor_config.json: `grounding` is .xml.; expected one of json, tag"):
        AutoProcessorMIX.from_pretrained(saved)


def test_the_processors_files_name_the_class_of_the_published_ones(tiny_qwen2_5_vl: Path) -> None:
    for name in ("preprocessor_config.json", "video_preprocessor_config.json"):
        assert json.loads((tiny_qwen2_5_vl / name).read_text())["processor_class"] == "Qwen2_5_VLProcessor"


@pytest.mark.parametrize("form", ["json", "tagged"])
@pytest.mark.parametrize(("model", "name"), [("tiny_checkpoint", "Qwen2VL"), ("tiny_qwen_vl", "QwenVL")])
def test_a_family_with_one_form_refuses_the_key(
    model: str, name: str, form: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    with pytest.raises(ValueError, match=rf"`grounding` is '{form}', but {name}Processor has only one form of boxes"):
        processor_of(tmp_path, request.getfixturevalue(model), grounding=form)


def test_a_value_that_is_no_form_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match='`grounding` is "legacy"; expected one of "json", "tagged"'):
        load_config(config_file(tmp_path, Path("m"), grounding="legacy"), has_gpu=True)


def test_a_run_that_is_resumed_must_share_it_and_the_help_shows_it() -> None:
    assert "grounding" in SAMPLE_KEYS and "  grounding: " in help_text()


@pytest.mark.parametrize(
    ("key", "flags", "form"),
    [(None, [], None), ("tagged", [], "tagged"), ("tagged", ["--grounding", "json"], "json")],
)
def test_evaluation_takes_the_key_and_a_flag_takes_precedence(
    key: str | None, flags: list[str], form: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets = {"eval": [{"name": "chatml_dataset", "data_files": "eval.json"}]}
    path = config_file(tmp_path, Path("m"), dataset=sets, do_train=False, do_eval=True, grounding=key)

    class Asked(Exception):
        pass

    def asked(name: str, **settings: Any) -> None:
        raise Asked(settings["grounding"])

    monkeypatch.setattr(evaluate.AutoProcessorMIX, "from_pretrained", asked)
    monkeypatch.setattr("sys.argv", ["evaluate.py", path, *flags])
    with pytest.raises(Asked) as caught:
        evaluate.main()
    assert caught.value.args == (form,)


@pytest.mark.parametrize("form", [None, "tagged"])
def test_who_asks_a_model_may_name_the_form(form: str | None, tiny_qwen2_5_vl: Path) -> None:
    parser = argparse.ArgumentParser()
    add_model_flags(parser, str(tiny_qwen2_5_vl))
    flags = ["--dtype", "float32", *(["--grounding", form] if form else [])]
    processor: Any = AskedModel.of(parser.parse_args(flags)).load().processor
    assert processor.grounding_form == (form or "json")
