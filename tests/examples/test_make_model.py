"""The small untrained models, as their command writes them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from paddlemix.auto import AutoModelMIX, AutoProcessorMIX
from paddlemix.conversation import Conversation, Image, RecordId, Text, Turn
from paddlemix.examples.demo import make_model, small_qwen2_5_vl
from paddlemix.generation import GenerationConfig
from paddlemix.generation.answer import answer
from paddlemix.models.qwen2_5_vl.vision import window_order


@pytest.mark.parametrize(
    ("family", "name"),
    [
        ("qwen2_vl", "Qwen2VLForConditionalGeneration"),
        ("qwen2_5_vl", "Qwen2_5_VLForConditionalGeneration"),
        ("qwen_vl", "QWenLMHeadModel"),
    ],
)
def test_a_small_model_of_each_family_loads_and_answers(
    monkeypatch: pytest.MonkeyPatch, shapes: Path, tmp_path: Path, family: str, name: str
) -> None:
    words = ["--family", family, "--corpus", shapes / "corpus.txt", "--output_dir", tmp_path, "--vocab_size", 320]
    monkeypatch.setattr(sys, "argv", ["make_model.py", *map(str, words)])
    make_model.main()
    model, processor = AutoModelMIX.from_pretrained(tmp_path), AutoProcessorMIX.from_pretrained(tmp_path)
    assert type(model).__name__ == name
    assert sum(parameter.size for parameter in model.parameters()) < 3e6
    shown = Image(str(shapes / "pictures/train/000000.jpg"))
    question = Conversation((Turn("user", (shown, Text("图中有什么？"))),), RecordId("test", 0))
    config = GenerationConfig(max_new_tokens=4, min_new_tokens=4)
    assert answer(model, processor, [question], config)[0]


def test_images_of_the_demo_are_several_windows_of_the_small_qwen2_5_vl(shapes: Path) -> None:
    model, processor = small_qwen2_5_vl.make(shapes / "corpus.txt", 320)
    tower = model.config.vision_config
    (side,) = {pixels // tower.patch_size for pixels in processor.image_processor.resized(224, 224)}
    _, cells = window_order([[1, side, side]], tower.spatial_merge_size, tower.window_side)
    assert cells == [4, 4, 4, 4]
    assert 0 < len(tower.fullatt_block_indexes) < tower.depth
