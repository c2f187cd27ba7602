from __future__ import annotations

import json
import logging
import pickle
import re
from pathlib import Path

import numpy as np
import pytest

from paddlemix.contract import Sample, SampleSize
from paddlemix.conversation import Conversation, RecordError, Text
from paddlemix.datasets.mix_dataset import BadRecordPolicy, DatasetSpec, MixDataset


class FakeProcessor:
    """One token a character; an image costs four and has to exist."""

    def encode(self, conversation: Conversation) -> Sample:
        if "broken" in text_of(conversation):
            raise RecordError(conversation.source, "the image breaks off")
        ids = np.array([ord(character) for character in text_of(conversation)], dtype=np.int64)
        return Sample(ids, ids, np.zeros((3, len(ids)), dtype=np.int64))

    def fingerprint(self) -> str:
        return "fake"

    def measure(self, conversation: Conversation) -> SampleSize:
        for image in conversation.images:
            if not Path(image.path).is_file():
                raise RecordError(conversation.source, f"no image {image.path}")
        tokens = len(text_of(conversation))
        return SampleSize(tokens, image_tokens=4 * len(conversation.images), target_tokens=1)


def text_of(conversation: Conversation) -> str:
    return "".join(part.text for part in conversation.parts if isinstance(part, Text))


def chat(question: str, answer: str = "a", **keys: object) -> dict[str, object]:
    return {"conversations": [[question, answer]], **keys}


def write(path: Path, records: object) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(records, ensure_ascii=False), encoding="utf-8")
    return str(path)


def load(*specs: DatasetSpec, on_bad_record: BadRecordPolicy = "raise") -> MixDataset:
    return MixDataset.load(specs, FakeProcessor(), on_bad_record)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "数据 set"
    folder.mkdir()
    (folder / "图.jpg").touch()
    return folder


def test_sets_of_all_formats_follow_one_another_in_order(folder):
    chats = write(folder / "chat.json", [chat("一"), chat("Picture 1: <img>图.jpg</img>\n二")])
    captions = write(folder / "captions.json", [{"image": "图.jpg", "caption": "三"}])
    coco = write(
        folder / "coco.json",
        {"images": [{"id": 1, "file_name": "图.jpg"}], "annotations": [{"image_id": 1, "caption": "四"}]},
    )
    questions = write(folder / "vqa.json", [{"image": "图.jpg", "question": "五", "answer": ["a", "b"]}])
    dataset = load(
        DatasetSpec("chatml_dataset", chats),
        DatasetSpec("caption_dataset", captions, prompt="P"),
        DatasetSpec("coco_caption", coco, prompt="P"),
        DatasetSpec("coco_vqa", questions),
    )
    texts = ["一a", "Picture 1: \n二a", "P三", "P四", "五a"]
    assert len(dataset) == 5
    assert [text_of(conversation) for conversation in dataset.conversations] == texts
    assert ["".join(map(chr, dataset[index].input_ids)) for index in range(5)] == texts
    assert [conversation.task for conversation in dataset.conversations] == [
        "chat",
        "chat",
        "caption",
        "caption",
        "vqa",
    ]
    assert [size.tokens for size in dataset.sizes] == [len(text) for text in texts]
    assert [size.image_tokens for size in dataset.sizes] == [0, 4, 4, 4, 4]


def test_summaries_tell_the_sets_apart(folder):
    first = write(folder / "a.json", [chat("1"), chat("22"), {}])
    second = write(folder / "b.json", [chat("333")])
    third = write(folder / "c.json", [chat("4444")])
    dataset = load(
        DatasetSpec("chatml_dataset", first), DatasetSpec("chatml_dataset", [second, third]), on_bad_record="skip"
    )
    one, two = dataset.set_summaries()
    assert (one.name, one.files, one.count, one.skipped) == ("chatml_dataset", (first,), 2, 1)
    assert (two.name, two.files, two.count, two.skipped) == ("chatml_dataset", (second, third), 2, 0)
    assert [size.tokens for size in (*one.sizes, *two.sizes)] == [2, 3, 4, 5]


def test_the_format_of_a_set_named_auto_is_recognised_and_named(folder):
    chats = write(folder / "chats" / "a.json", [chat("1")])
    write(folder / "chats" / "b.json", [chat("2")])
    captions = write(folder / "c.json", [{"image": "图.jpg", "caption": "三"}])
    dataset = load(
        DatasetSpec("auto", str(Path(chats).parent)), DatasetSpec("auto", captions, prompt="P", max_samples=1)
    )
    assert [text_of(conversation) for conversation in dataset.conversations] == ["1a", "2a", "P三"]
    assert [(one.name, one.is_recognised) for one in dataset.set_summaries()] == [
        ("messages", True),
        ("caption_dataset", True),
    ]
    assert dataset.conversations[2].images[0].path == str(folder / "图.jpg")


def test_max_samples_counts_over_all_files_of_a_set(folder):
    first = write(folder / "a.json", [chat("1"), chat("2")])
    second = write(folder / "b.json", [chat("3"), chat("4")])
    dataset = load(DatasetSpec("chatml_dataset", [first, second], max_samples=3))
    assert [text_of(conversation) for conversation in dataset.conversations] == ["1a", "2a", "3a"]
    assert [str(conversation.source) for conversation in dataset.conversations] == [
        f"{first}, record 0",
        f"{first}, record 1",
        f"{second}, record 0",
    ]


def test_image_root_replaces_the_record_files_folder(folder, tmp_path):
    file = write(tmp_path / "elsewhere" / "a.json", [chat("q", image="图.jpg")])
    with pytest.raises(ValueError, match="no image"):
        load(DatasetSpec("chatml_dataset", file))
    dataset = load(DatasetSpec("chatml_dataset", file, image_root=str(folder)))
    assert dataset.conversations[0].images[0].path == str(folder / "图.jpg")


def test_raise_names_bad_records_of_every_kind_and_every_set_in_one_error(folder):
    lines = folder / "a.jsonl"
    lines.write_text("\n".join([json.dumps(chat("q")), '{"conversations": ', "3"]), encoding="utf-8")
    other = write(folder / "b.json", [chat("q"), chat("q", image="missing.jpg"), chat("q", answer="")])
    with pytest.raises(ValueError, match=r"^4 of 6 records cannot be used:\n") as caught:
        load(DatasetSpec("chatml_dataset", str(lines)), DatasetSpec("chatml_dataset", other))
    message = str(caught.value)
    assert f"{lines}, record 1: malformed JSON at line 2" in message
    assert f"{lines}, record 2: the record is the number 3" in message
    assert f"{other}, record 1: no image {folder / 'missing.jpg'}" in message
    assert f"{other}, record 2: turn 1 (assistant) is blank" in message
    assert '`on_bad_record` to "skip"' in message


@pytest.mark.parametrize(("bad", "listed", "rest"), [(20, 20, None), (25, 20, "and 5 more")])
def test_raise_lists_at_most_twenty_records(folder, bad, listed, rest):
    file = write(folder / "a.json", [chat("q"), *({"id": index} for index in range(bad))])
    with pytest.raises(ValueError, match=f"^{bad} of {bad + 1} records") as caught:
        load(DatasetSpec("chatml_dataset", file))
    message = str(caught.value)
    assert message.count("key `messages` is missing") == listed
    assert ("more" in message) == (rest is not None)
    assert rest is None or rest in message


def test_skip_leaves_bad_records_out_and_names_them(folder, caplog):
    file = write(folder / "a.json", [chat("1"), {}, chat("2"), chat("3", image="missing.jpg"), chat("4")])
    with caplog.at_level(logging.WARNING):
        dataset = load(DatasetSpec("chatml_dataset", file), on_bad_record="skip")
    assert [text_of(conversation) for conversation in dataset.conversations] == ["1a", "2a", "4a"]
    assert [conversation.source.index for conversation in dataset.conversations] == [0, 2, 4]
    assert len(dataset.sizes) == len(dataset) == 3
    assert [(error.source.file, error.source.index) for error in dataset.skipped] == [(file, 1), (file, 3)]
    assert "2 of 5 records are left out" in caplog.text
    assert f"{file}, record 1: " in caplog.text
    assert f"{file}, record 3: " in caplog.text


def test_boxes_that_are_clamped_are_told_once_a_set_with_counts_and_records(folder, caplog, monkeypatch):
    def measure(conversation: Conversation) -> SampleSize:
        return SampleSize(1, 0, 1, clamped=text_of(conversation).count("out"))

    processor = FakeProcessor()
    monkeypatch.setattr(processor, "measure", measure)
    some = write(folder / "some.json", [chat("in"), chat("out"), chat("out out")])
    many, none = write(folder / "many.json", [chat("out")] * 25), write(folder / "none.json", [chat("in")])
    MixDataset.load([DatasetSpec("chatml_dataset", one) for one in (some, many, none)], processor)
    first, second = caplog.messages
    assert first.startswith("chatml_dataset: 3 boxes, points and quads of 2 of 3 records stick out of their images")
    assert f"  {some}, record 2: 2 of its boxes" in first and "record 0" not in first
    assert second.startswith("chatml_dataset: 25 ") and second.endswith("  and 5 more")


def test_nothing_is_logged_where_every_record_is_good(folder, caplog):
    dataset = load(DatasetSpec("chatml_dataset", write(folder / "a.json", [chat("q")])), on_bad_record="skip")
    assert dataset.skipped == []
    assert caplog.messages == []


def test_skip_does_not_train_on_a_set_of_which_nothing_is_left(folder):
    good = write(folder / "good.json", [chat("q")])
    bad = write(folder / "bad.json", [{}, {}])
    with pytest.raises(ValueError, match=r"bad\.json\): all 2 records are bad"):
        load(DatasetSpec("chatml_dataset", good), DatasetSpec("chatml_dataset", bad), on_bad_record="skip")


@pytest.mark.parametrize("on_bad_record", ["raise", "skip"])
@pytest.mark.parametrize(
    ("spec", "content", "problem"),
    [
        ({}, '[{"a": 1}', "the list is not closed by `]`"),
        ({}, "[]", "the list is empty"),
        ({}, '{"images": []}', "the file holds one object; chatml_dataset expects a list of records"),
        ({"name": "coco_caption"}, '{"images": []}', "`images` is the list []"),
        ({"image_root": "nowhere"}, '[{"a": 1}]', "`image_root` is 'nowhere'; expected a folder that exists"),
    ],
)
def test_what_spoils_a_whole_file_is_never_skipped(folder, on_bad_record, spec, content, problem):
    file = folder / "a.json"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=re.escape(problem)) as caught:
        load(DatasetSpec(**{"name": "chatml_dataset", "data_files": str(file), **spec}), on_bad_record=on_bad_record)
    assert "records cannot be used" not in str(caught.value)


def test_a_failure_that_is_no_bad_record_is_not_taken_for_one(folder):
    class Faulty(FakeProcessor):
        def measure(self, conversation: Conversation) -> SampleSize:
            raise ZeroDivisionError

    spec = DatasetSpec("chatml_dataset", write(folder / "a.json", [chat("q")]))
    with pytest.raises(ZeroDivisionError):
        MixDataset.load([spec], Faulty(), "skip")


def test_an_image_that_breaks_only_when_drawn_is_named_by_file_and_index(folder):
    file = write(folder / "a.json", [chat("fine"), chat("broken")])
    dataset = load(DatasetSpec("chatml_dataset", file))
    assert len(dataset[0].input_ids) == len("finea")
    with pytest.raises(RecordError, match=r"a\.json, record 1: the image breaks off") as caught:
        dataset[1]
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_order_survives_the_threads(folder):
    count = 2100
    file = write(folder / "a.json", [chat(str(index)) for index in range(count)])
    dataset = load(DatasetSpec("chatml_dataset", file))
    assert [text_of(conversation) for conversation in dataset.conversations] == [f"{index}a" for index in range(count)]


def test_no_set_and_an_unknown_policy_are_refused(folder):
    spec = DatasetSpec("chatml_dataset", write(folder / "a.json", [chat("q")]))
    with pytest.raises(ValueError, match="the data set list is empty"):
        load()
    with pytest.raises(ValueError, match='`on_bad_record` is \'ignore\'; expected "raise" or "skip"'):
        load(spec, on_bad_record="ignore")  # type: ignore[arg-type]
