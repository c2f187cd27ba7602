"""Boxes in pixels, from record files to what each family is trained on."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest

from paddlemix.auto import AutoProcessorMIX
from paddlemix.contract import Processor, ShownSize
from paddlemix.datasets.mix_dataset import MixDataset
from paddlemix.datasets.spec import DatasetSpec
from paddlemix.names import IGNORED_LABEL

from ..families import FamilyCase, each_family

BOXES = {
    "wholly outside": [1400, 900, 1700, 1020],
    "sticks out": [600, 100, 700, 200],
    "rounded by a tool": [-0.4, 10, 50, 60],
    "inside": [10, 20, 640, 480],
    "narrow at the edge": [639.2, 20, 640.3, 100],
    "below": [100, 900, 300, 1000],
}
# In thousandths of 640 x 480 pixels.
THOUSANDTHS = ["(938,208),(999,417)", "(0,21),(78,125)", "(16,42),(999,999)", "(998,42),(999,208)"]


@pytest.fixture
def records(tmp_path: Path, save_image) -> str:
    """A file of a record for each box, all of one image."""
    path = tmp_path / "outside.jsonl"
    said = [{"role": "user", "content": "<image>Find <ref-object>"}, {"role": "assistant", "content": "<bbox>"}]
    path.write_text(
        "\n".join(
            json.dumps({"messages": said, "images": [save_image(640, 480)], "objects": {"ref": ["box"], "bbox": [box]}})
            for box in BOXES.values()
        )
    )
    return str(path)


@pytest.fixture
def processor(case: FamilyCase, request: pytest.FixtureRequest) -> Processor:
    return AutoProcessorMIX.from_pretrained(case.folder(request))


@each_family
def test_boxes_outside_are_bad_records_and_those_that_stick_out_are_clamped_and_told(
    case, processor, records, caplog
) -> None:
    del case
    with caplog.at_level(logging.WARNING, "paddlemix"):
        dataset = MixDataset.load([DatasetSpec("ms_swift_3", records)], processor, "skip")
    assert [error.source.index for error in dataset.skipped] == [0, 5]
    for error, box in zip(dataset.skipped, ("[1400, 900, 1700, 1020]", "[100, 900, 300, 1000]"), strict=True):
        assert f"box {box} in pixels lies outside its image" in error.problem
        assert "640 x 480 pixels: labelled on the image before it was resized?" in error.problem
    (told,) = [message for message in caplog.messages if "stick out" in message]
    assert told.startswith("ms_swift_3: 2 boxes, points and quads of 2 of 4 records stick out of their images")
    assert "record 1:" in told and "record 4:" in told


@each_family
def test_each_box_left_has_an_area_in_what_is_trained(case, processor, records) -> None:
    dataset = MixDataset.load([DatasetSpec("ms_swift_3", records)], processor, "skip")
    answers = [
        sample.input_ids[np.asarray(sample.labels) != IGNORED_LABEL] for sample in map(dataset.__getitem__, range(4))
    ]
    texts = [processor.decode(answer) for answer in answers]
    found = [processor.grounding.parse(text, [ShownSize((640, 480))])[0] for text in texts]
    assert [len(boxes) for boxes in found] == [1, 1, 1, 1]
    if case.model_type != "qwen2_5_vl":
        assert all(corners in text for corners, text in zip(THOUSANDTHS, texts, strict=True))


@each_family
def test_quads_are_learned_between_their_tags_or_refused_with_what_to_do(case, processor, tmp_path, save_image) -> None:
    said = [{"role": "user", "content": "<image>Where?"}, {"role": "assistant", "content": "<bbox>"}]
    quad = [64, 48, 320, 96, 300, 240, 32, 192]
    record = {"messages": said, "images": [save_image(640, 480)], "objects": {"ref": [], "bbox": [quad]}}
    (tmp_path / "quad.json").write_text(json.dumps([record]))
    spec = DatasetSpec("ms_swift_3", str(tmp_path / "quad.json"))
    if case.model_type == "qwen2_5_vl":
        with pytest.raises(ValueError, match="record 0: a quad has no form in JSON"):
            MixDataset.load([spec], processor)
        processor.choose_grounding("tagged")
    (sample,) = MixDataset.load([spec], processor)
    ((found,),) = processor.grounding.parse_quads(processor.decode(sample.input_ids), [ShownSize((640, 480))])
    # The tiny Qwen2.5-VL sees few pixels, and counts in them.
    assert found.corners == pytest.approx(quad, abs=12 if case.model_type == "qwen2_5_vl" else 1)
