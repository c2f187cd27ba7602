"""The preview tool on a tiny model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from paddlemix.configuration.file import load_config
from paddlemix.conversation import Conversation
from paddlemix.models.qwen2_vl.chat_template import Qwen2VLChatTemplate
from paddlemix.tools import preview_data
from paddlemix.training.finetune import Run

from ..families import FamilyCase, each_family


@pytest.fixture
def config(tmp_path: Path, shapes: Path, tiny_checkpoint: Path) -> str:
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"query": "q<b>", "response": "a"}\n{"query": "<image>", "response": "a"}\n{"query": "r"}')
    sets = {
        "train": [
            {"name": "auto", "data_files": str(shapes / "train_grounding.json")},
            {"name": "ms_swift_2", "data_files": str(bad)},
        ],
        "eval": [{"name": "vqa_dataset", "data_files": str(shapes / "eval_vqa.json"), "max_samples": 1}],
    }
    path = tmp_path / "config.json"
    # bf16 is for a GPU; records are looked at without one.
    values = {"model_name_or_path": str(tiny_checkpoint), "output_dir": "out", "bf16": True, "do_train": True}
    path.write_text(json.dumps({**values, "dataset": sets}))
    return str(path)


def test_the_first_records_of_each_set_are_on_the_page(config, tmp_path, capsys):
    output = tmp_path / "new" / "page.html"
    preview_data.main([config, "--output", str(output), "--records", "2", "--max_length", "4096"])
    page = output.read_text("utf-8")
    assert "<h2>train: chatml_dataset, recognised (" in page
    assert page.count("<article>") == 2 + 2 + 1
    assert page.count('src="data:image/jpeg;base64,') == 3
    assert "q&lt;b&gt;" in page and "q<b>" not in page
    assert "the turns have 1 `&lt;image&gt;`, but `images` lists 0" in page
    assert str(output) in capsys.readouterr().out


def test_the_template_that_a_config_chooses_writes_prompts(config, tmp_path, tiny_checkpoint):
    folder = shutil.copytree(tiny_checkpoint, tmp_path / "model")
    words = ["--model_name_or_path", str(folder), "--chat_template", "terse"]
    with pytest.raises(ValueError, match="`chat_template` is 'terse'; the checkpoint has default"):
        Run.of(load_config(config, words, has_gpu=True))
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "terse.jinja").write_text("{{ messages[0].content }}")
    chosen = Run.of(load_config(config, words, has_gpu=True)).processor
    chosen.save_pretrained(tmp_path / "saved")
    saved = Qwen2VLChatTemplate.from_pretrained(tmp_path / "saved")
    assert chosen.chat_template.source == saved.source == "{{ messages[0].content }}"


def test_no_records_are_refused(config):
    with pytest.raises(ValueError, match="--records is 0; expected 1 or more"):
        preview_data.main([config, "--records", "0"])


@each_family
def test_a_model_answers_to_the_records_next_to_the_right_answer(
    case: FamilyCase, config: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    asked: list[tuple[Conversation, int]] = []
    given = preview_data.answer

    def answer(model, processor, questions, settings):
        asked.extend((one, settings.max_new_tokens) for one in questions)
        return given(model, processor, questions, settings)

    monkeypatch.setattr(preview_data, "answer", answer)
    words = [config, "--output", str(tmp_path / "page.html"), "--records", "1", "--max_length", "4096", "--answers"]
    words += ["--model_name_or_path", str(case.folder(request)), "--max_new_tokens", "3"]
    preview_data.main(words)
    page = (tmp_path / "page.html").read_text("utf-8")
    assert page.count("Right answer") == page.count("The model's answer") == 3
    assert [(question.turns[-1].role, longest) for question, longest in asked] == [("user", 3)] * 3
