from __future__ import annotations

import re

import pytest

from paddlemix.datasets.formats import FORMATS, caption, chatml, find_format, vqa


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("chatml_dataset", chatml.FORMAT),
        ("caption_dataset", caption.FORMAT),
        ("coco_caption", caption.FORMAT),
        ("vqa_dataset", vqa.FORMAT),
        ("coco_vqa", vqa.FORMAT),
    ],
)
def test_every_name_of_a_config_finds_its_format(name, expected):
    assert find_format(name) is expected


@pytest.mark.parametrize(
    ("name", "nearest"), [("chatlm_dataset", "chatml_dataset"), ("coco_captions", "coco_caption"), ("vqa", "vqav2")]
)
def test_an_unknown_name_is_refused_with_the_nearest_and_all_known_ones(name, nearest):
    message = f"no record format is named {name!r}. Did you mean {nearest!r}? Known: {', '.join(FORMATS)}"
    with pytest.raises(ValueError, match=re.escape(message)):
        find_format(name)
