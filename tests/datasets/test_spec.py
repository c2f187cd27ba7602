from __future__ import annotations

import re
from pathlib import Path

import pytest

from paddlemix.conversation import RecordId, Text
from paddlemix.datasets.spec import DatasetSpec


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"name": "coco_kaption"}, "Did you mean 'coco_caption'?"),
        ({"data_files": ""}, "`data_files` is ''; expected one path or a list of paths"),
        ({"data_files": []}, "`data_files` is []"),
        ({"data_files": ["a.json", ""]}, "`data_files` is ['a.json', '']"),
        ({"name": "vqa_dataset", "prompt": "Q"}, "vqa_dataset: `prompt` is not read"),
        ({"name": "chatml_dataset", "prompt": "Q"}, "chatml_dataset: `prompt` is not read"),
        ({"name": "refcoco", "prompt": "Find it"}, "refcoco: `prompt` is 'Find it'; expected `{phrase}` in it"),
        ({"name": "auto", "data_files": []}, "auto: `data_files` is []"),
        ({"name": "auto", "prompt": " "}, "`prompt` is blank"),
        ({"prompt": " "}, "`prompt` is blank"),
        ({"max_samples": 0}, "`max_samples` is 0; expected 1 or more"),
        ({"max_samples": -1}, "`max_samples` is -1"),
        ({"train_on": "user"}, "`train_on` is 'user'; expected one of assistant, last, all"),
    ],
)
def test_a_value_that_cannot_be_used_is_refused_when_the_spec_is_made(values, problem):
    with pytest.raises(ValueError, match=re.escape(problem)):
        DatasetSpec(**{"name": "caption_dataset", "data_files": "a.json", **values})


@pytest.mark.parametrize(
    ("data_files", "files"), [("a.json", ("a.json",)), (["a.json", "b.json"], ("a.json", "b.json"))]
)
def test_one_file_and_several_are_given_the_same_way(data_files, files):
    assert DatasetSpec("chatml_dataset", data_files).files == files


def test_images_are_looked_for_beside_the_record_file_unless_image_root_is_set():
    assert DatasetSpec("vqa_dataset", "数据/a.json").media_root("数据/a.json") == Path("数据")
    assert DatasetSpec("vqa_dataset", "数据/a.json", image_root="图").media_root("数据/a.json") == Path("图")


def test_parse_asks_with_the_prompt_of_the_set():
    spec = DatasetSpec("caption_dataset", "a.json", prompt="Was ist das?")
    conversation = spec.read({"image": "a.jpg", "caption": "c"}, RecordId("a.json", 0))
    assert conversation.turns[0].parts[1] == Text("Was ist das?")
