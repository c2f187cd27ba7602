from __future__ import annotations

from pathlib import Path

import pytest

from paddlemix.conversation import Image, RecordId, Text, Turn
from paddlemix.datasets.formats.alpaca import parse
from paddlemix.datasets.reading.context import Reading

SOURCE, ROOT = RecordId("train.jsonl", 3), Path("root")
RECORD = {"instruction": "<image>What?", "output": "A box.", "images": ["a.jpg"]}


@pytest.mark.parametrize(
    ("keys", "question"),
    [
        ({}, "What?"),
        ({"input": ""}, "What?"),
        ({"input": None}, "What?"),
        ({"input": "One word."}, "What?\nOne word."),
    ],
)
def test_the_question_is_the_instruction_and_its_input(keys, question):
    conversation = parse({**RECORD, **keys}, Reading(SOURCE, ROOT))
    shown = Turn("user", (Image("root/a.jpg"), Text(question)))
    assert conversation.turns == (shown, Turn("assistant", (Text("A box."),)))


def test_the_history_and_the_system_text_come_before_the_question():
    record = {"instruction": "q", "output": "a", "system": "s", "history": [["Hello", "Hi"]]}
    roles = [(turn.role, turn.parts[0].text) for turn in parse(record, Reading(SOURCE, ROOT)).turns]
    assert roles == [("system", "s"), ("user", "Hello"), ("assistant", "Hi"), ("user", "q"), ("assistant", "a")]


BAD = {
    "nothing": ({}, "key `instruction` is missing"),
    "no output": ({"instruction": "q"}, "`output` of the record is null"),
    "an input that is a list": ({**RECORD, "input": ["x"]}, '`input` of the record is the list ["x"]'),
    "a query too": ({**RECORD, "query": "q"}, "`query` (a question and its answer) would be ignored"),
    "half a pair": ({**RECORD, "history": [["q"]]}, '`history[0]` is the list ["q"]'),
}


@pytest.mark.parametrize(("record", "problem"), BAD.values(), ids=BAD)
def test_a_bad_record_is_refused_with_what_is_wrong_in_it(record, problem, check_refused):
    check_refused(parse, record, problem)
