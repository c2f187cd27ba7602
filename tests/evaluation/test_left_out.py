"""Records that cannot be used are left out of the scores, counted and named; or the first of them ends all."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from paddlemix.auto import AutoModelMIX, AutoProcessorMIX
from paddlemix.conversation import RecordError
from paddlemix.datasets.mix_dataset import MixDataset
from paddlemix.datasets.spec import DatasetSpec
from paddlemix.evaluation.evaluate import evaluate_model
from paddlemix.evaluation.report import report_of
from paddlemix.generation import GenerationConfig

CUT, MISSING = 2, 4


@pytest.fixture
def evaluate(tmp_path: Path, tiny_checkpoint: Path):
    """Score six questions, of which one shows an image that breaks off and one an image that is not there."""
    for number in range(6):
        noise = np.random.default_rng(number).integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{number}.png")
    (tmp_path / f"{CUT}.png").write_bytes((tmp_path / f"{CUT}.png").read_bytes()[:-1500])
    (tmp_path / f"{MISSING}.png").unlink()
    records = [{"image": f"{number}.png", "question": "What?", "answer": f"{number}"} for number in range(6)]
    (tmp_path / "a.json").write_text(json.dumps(records))

    def run(policy: str, **keys):
        processor = AutoProcessorMIX.from_pretrained(tiny_checkpoint)
        spec = DatasetSpec("vqa_dataset", str(tmp_path / "a.json"), **keys)
        mix = MixDataset.load([spec], processor, policy)  # type: ignore[arg-type]
        model = AutoModelMIX.from_pretrained(tiny_checkpoint)
        return evaluate_model(model, processor, mix, GenerationConfig(max_new_tokens=3), batch_size=2)

    return run


def test_skip_leaves_them_out_counts_and_names_them(evaluate, caplog):
    report, predictions = evaluate("skip")
    assert report["left_out"] == 2 and report["predictions"] == report["vqa"]["questions"] == 4
    assert [one.source.index for one in predictions] == [0, 1, 3, 5]
    assert [one.gold_answers for one in predictions] == [("0",), ("1",), ("3",), ("5",)]
    (named,) = (message for message in caplog.messages if "record 2: image" in message)
    assert named.endswith("it is left out of the evaluation.")
    assert any("record 4: image" in message for message in caplog.messages)


def test_answers_of_the_others_are_those_that_they_have_alone(evaluate):
    together = {one.source.index: one.text for one in evaluate("skip")[1]}
    alone = {one.source.index: one.text for one in evaluate("skip", splits=["0:1", "1:2", "3:4", "5:6"])[1]}
    assert together == alone


def test_raise_names_the_record(evaluate):
    with pytest.raises(ValueError, match="record 4: image"):
        evaluate("raise")
    with pytest.raises(RecordError, match=r"record 2: image .* is broken or cut off"):
        evaluate("raise", max_samples=4)
    assert "left_out" not in evaluate("raise", max_samples=2)[0]


def test_nothing_that_is_left_is_an_error_that_says_so(evaluate):
    with pytest.raises(ValueError, match="none of 1 records can be used"):
        evaluate("skip", splits="2:3")
    with pytest.raises(ValueError, match="0 predictions"):
        report_of([], None)
