from __future__ import annotations

import re
from pathlib import Path

import pytest

from paddlemix.conversation import Box, Image, RecordError, RecordId, Reference, Text, Turn
from paddlemix.datasets.formats.caption import DEFAULT_PROMPT, expand, parse
from paddlemix.datasets.reading.context import Reading

SOURCE = RecordId("captions.json", 5)
ROOT = Path("图")

GOOD = [
    ({"image": "a.jpg", "caption": "A bus."}, (Text("A bus."),), "A bus."),
    ({"image": "a.jpg", "caption": "一辆红色巴士。", "image_id": 7}, (Text("一辆红色巴士。"),), "一辆红色巴士。"),
    (
        {"image": "a.jpg", "caption": "A <ref>bus</ref><box>(1,2),(3,4)</box> waits."},
        (Text("A "), Reference("bus"), Box(1, 2, 3, 4, "thousandth", 0), Text(" waits.")),
        "A bus waits.",
    ),
]

BAD = [
    ({}, "key `caption` is missing in the record, which has no key at all;"),
    ({"caption": "c"}, "key `image` is missing in the record, which has `caption`; expected"),
    ({"image": "a.jpg"}, "key `caption` is missing"),
    ({"image": 3, "caption": "c"}, "`image` is the number 3; expected a text that is not blank"),
    ({"image": None, "caption": "c"}, "key `image` is missing in the record, which has `caption`; expected"),
    ({"image": "", "caption": "c"}, "key `image` is missing in the record, which has `caption`; expected"),
    ({"image": "a.jpg", "caption": " "}, '`caption` of the record is the text " "'),
    ({"image": "a.jpg", "caption": {"en": "c"}}, '`caption` of the record is the object {"en":"c"}'),
    ({"image": "a.jpg", "caption": False}, "`caption` of the record is false"),
    ({"image": "a.jpg", "caption": "<ref>bus"}, "tag `<ref>`"),
    (
        {"image": "a.jpg", "caption": "c", "conversations": [["q", "a"]]},
        "`conversations` (turns) would be ignored; this format reads `images`,",
    ),
    ({"image": "a.jpg", "caption": "<ref>bus</ref><box>(9,9),(1,1)</box>"}, "has no area"),
]


@pytest.mark.parametrize(("record", "caption", "answer"), GOOD)
def test_a_good_record_asks_for_the_caption_of_its_image(record, caption, answer):
    conversation = parse(record, Reading(SOURCE, ROOT))
    assert conversation.turns == (
        Turn("user", (Image(str(ROOT / "a.jpg")), Text(DEFAULT_PROMPT))),
        Turn("assistant", caption),
    )
    assert (conversation.source, conversation.answers, conversation.task) == (SOURCE, (answer,), "caption")


@pytest.mark.parametrize(("record", "problem"), BAD)
def test_a_bad_record_is_refused_with_what_is_wrong_in_it(record, problem):
    with pytest.raises(RecordError) as caught:
        parse(record, Reading(SOURCE, ROOT))
    assert str(caught.value).startswith("captions.json, record 5: ")
    assert problem in str(caught.value)


def test_the_prompt_of_the_set_replaces_the_default_one():
    conversation = parse({"image": "a.jpg", "caption": "c"}, Reading(SOURCE, ROOT), prompt="描述这张图片。")
    assert conversation.turns[0].parts[1] == Text("描述这张图片。")


def test_every_annotation_of_a_coco_file_becomes_a_record_of_its_image():
    document = {
        "info": {},
        "images": [{"id": 7, "file_name": "七.jpg"}, {"id": 8, "file_name": "b.jpg"}],
        "annotations": [
            {"id": 1, "image_id": 8, "caption": "one"},
            {"id": 2, "image_id": 7, "caption": "two"},
            {"id": 3, "image_id": 8, "caption": "three"},
        ],
    }
    records = [entry for entry, _ in expand({"captions.json": document}) if isinstance(entry, dict)]
    assert [(record["image"], record["caption"]) for record in records] == [
        ("b.jpg", "one"),
        ("七.jpg", "two"),
        ("b.jpg", "three"),
    ]


@pytest.mark.parametrize(
    ("annotation", "problem"),
    [
        ({"image_id": 9, "caption": "c"}, "`image_id` is the number 9; expected the `id` of an entry of `images`"),
        ({"caption": "c"}, "`image_id` is null"),
        ({"image_id": [7], "caption": "c"}, "`image_id` is the list [7]"),
        ("caption", 'the record is the text "caption"; expected an object'),
    ],
)
def test_a_bad_annotation_does_not_hide_the_others(annotation, problem):
    good = {"image_id": 7, "caption": "c"}
    document = {"images": [{"id": 7, "file_name": "a.jpg"}], "annotations": [good, annotation, good]}
    (first, _), (error, source), (last, _) = expand({"captions.json": document})
    assert first == last == {**good, "image": "a.jpg"}
    assert isinstance(error, RecordError) and error.source == source
    assert str(error).startswith("captions.json, record 1: ")
    assert problem in str(error)


IMAGES = [{"id": 7, "file_name": "a.jpg"}]
ANNOTATIONS = [{"image_id": 7, "caption": "c"}]


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ({"image": "a.jpg", "caption": "c"}, "or a file that is one list of records"),
        ({"images": IMAGES}, "`annotations` is null"),
        ({"images": [], "annotations": ANNOTATIONS}, "`images` is the list []"),
        ({"images": IMAGES, "annotations": {}}, "`annotations` is the object {}"),
        ({"images": [*IMAGES, {"id": 8}], "annotations": ANNOTATIONS}, '`images[1]` is the object {"id":8}'),
        ({"images": [{"id": [7], "file_name": "a.jpg"}], "annotations": ANNOTATIONS}, "`images[0]`"),
        (
            {"images": [*IMAGES, {"id": 7, "file_name": "b.jpg"}], "annotations": ANNOTATIONS},
            "`images[1]` has the `id` the number 7 of a row before it",
        ),
        ({"images": ["a.jpg"], "annotations": ANNOTATIONS}, '`images[0]` is the text "a.jpg"'),
    ],
)
def test_a_file_without_cocos_tables_is_refused_by_name(document, problem):
    with pytest.raises(ValueError, match=rf"^captions\.json: .*{re.escape(problem)}"):
        list(expand({"captions.json": document}))
