from __future__ import annotations

import pytest

from paddlemix.conversation import RecordError, RecordId
from paddlemix.datasets.records.recognise import FIRST, recognise
from paddlemix.datasets.spec import DatasetSpec

SAID = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
LLAVA = {"image": "a.jpg", "conversations": [{"from": "human", "value": "<image>q"}, SAID[1]]}
MESSAGES = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
BOX = {"image": "a.jpg", "phrase": "p"}


def name_of(*records: object, **keys: object) -> str:
    return recognise(DatasetSpec("auto", "a.json", **keys), [("a.json", list(records))]).name  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("records", "name"),
    [
        ([LLAVA], "messages"),
        ([{"conversations": SAID}], "messages"),
        ([{"conversations": SAID}, LLAVA], "messages"),
        ([{"messages": MESSAGES}], "messages"),
        ([{"messages": MESSAGES}, {"messages": MESSAGES, "images": ["a.jpg"]}], "messages"),
        ([{"conversations": SAID, "images": ["a.jpg"]}], "messages"),
        ([{**BOX, "bbox": [5, 5, 9, 2]}], "grounding_xywh"),
        ([LLAVA, {"broken": 1}, RecordError(RecordId("a.json", 2), "no JSON")], "messages"),
        ([{"conversations": [["<img>a.jpg</img>q", "<box>(1,2),(3,4)</box>"]]}], "chatml_dataset"),
        ([{**LLAVA, "conversations": [SAID[0], {"from": "gpt", "value": "<box>(1,2),(3,4)</box>"}]}], "chatml_dataset"),
        ([{**LLAVA, "foo": 1}], "messages"),
        ([{"query": "q", "response": "a"}], "query_response"),
        ([{"instruction": "q", "output": "a"}], "alpaca"),
        ([{"file_name": "a.jpg", "text": "c"}], "caption_dataset"),
    ],
)
def test_the_format_that_reads_most_and_as_the_others_do_is_taken(records, name):
    assert name_of(*records) == name


@pytest.mark.parametrize(
    ("records", "candidates"),
    [
        ([{**BOX, "bbox": [1, 2, 3, 4]}], "grounding_xyxy, grounding_xywh"),
        # The second box is none as corners; one such box must not decide for all the others.
        ([{**BOX, "bbox": [1, 2, 3, 4]}, {**BOX, "bbox": [5, 5, 5, 2]}], "grounding_xyxy, grounding_xywh"),
        ([LLAVA, {"query": "q", "response": "a"}], "messages, chatml_dataset, query_response"),
    ],
)
def test_records_that_could_be_in_several_formats_are_refused_with_the_candidates(records, candidates):
    with pytest.raises(ValueError, match=f"^a.json: .*expected one of {candidates} as `name`, in place of 'auto'"):
        name_of(*records)


def test_records_in_no_format_are_refused_with_the_nearest_formats():
    with pytest.raises(ValueError, match="^a.json: the first records are in no format that is known") as caught:
        name_of({"image": "a.jpg", "question": "q"})
    lines = str(caught.value).splitlines()
    assert len(lines) == 5
    assert lines[1].startswith("  vqa_dataset: key `answer` is missing in the record, which has `image`, `question`;")
    assert lines[-1].endswith("keys that it calls otherwise in `columns`.")


def test_a_prompt_leaves_the_formats_that_take_one():
    record = {"image": "a.jpg", "caption": "c"}
    assert name_of(record, prompt="P") == "caption_dataset"
    with pytest.raises(ValueError, match="messages: `prompt` is not read"):
        name_of(LLAVA, prompt="P")


def test_only_the_first_records_decide():
    assert name_of(*[LLAVA] * FIRST, {"query": "q", "response": "a"}) == "messages"
    with pytest.raises(ValueError, match="in different ways"):
        name_of(*[LLAVA] * (FIRST - 1), {"query": "q", "response": "a"})


@pytest.mark.parametrize(
    ("files", "name"),
    [
        (
            {"c.json": {"images": [{"id": 7, "file_name": "a"}], "annotations": [{"image_id": 7, "caption": "c"}]}},
            "caption_dataset",
        ),
        ({"t.json": {"data": [{"image_id": "a", "question": "q", "answers": ["a"]}]}}, "textvqa"),
        (
            {
                "q.json": {"data_subtype": "s", "questions": [{"question_id": 1, "image_id": 2, "question": "q"}]},
                "a.json": {"annotations": [{"question_id": 1, "answers": [{"answer": "a"}]}]},
            },
            "vqa_dataset",
        ),
    ],
)
def test_files_that_are_tables_are_recognised(files, name):
    assert recognise(DatasetSpec("auto", list(files)), list(files.items())).name == name


def test_splits_in_one_file_are_refused_with_their_names():
    books = {str(split): {"image": "a", "questions": ["q"], "answers": ["a"], "split": split} for split in (1, 3)}
    with pytest.raises(ValueError, match="expected one of ocrvqa_train, ocrvqa_test as `name`"):
        recognise(DatasetSpec("auto", "d.json"), [("d.json", books)])
