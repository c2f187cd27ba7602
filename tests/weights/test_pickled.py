from __future__ import annotations

import io
import os
import pickle
from collections import OrderedDict
from pathlib import Path

import pytest

from paddlemix.weights.pickled import LONGEST_TEXT, Name, PickleRefusal, Span, read_pickle


class Runs:
    """Runs a shell command in whoever unpickles it."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def read(data: bytes, calls=None, persistent=None):
    return read_pickle(io.BytesIO(data), calls or {}, persistent)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_data_of_every_protocol_is_what_was_pickled(protocol):
    data = {
        "texts": ["", "名字", "a" * 300],
        "numbers": [0, 255, 256, -1, 70_000, 2**31, -(2**40), 1.5],
        "nested": ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), [[]], {"a": {}}),
        "constants": [None, True, False],
    }
    data["again"] = data["texts"]
    many = {f"key {number}": number for number in range(3000)}  # more than a byte can number
    assert read(pickle.dumps(data, protocol)) == data
    assert read(pickle.dumps([many, list(many)], protocol)) == [many, list(many)]


def test_bytes_stay_where_they_lie():
    small, large = b"few", bytes(range(256)) * 300
    data = pickle.dumps([small, large], 4)
    spans = read(data)
    assert [type(span) for span in spans] == [Span, Span]
    assert [data[span.offset : span.offset + span.length] for span in spans] == [small, large]


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_a_pickle_that_runs_a_command_is_refused_and_runs_nothing(tmp_path, protocol):
    data = pickle.dumps({"weight": Runs(tmp_path / "marker")}, protocol)
    with pytest.raises(PickleRefusal):
        read(data, {"collections.OrderedDict": dict})
    assert not (tmp_path / "marker").exists()
    pickle.loads(data)
    assert (tmp_path / "marker").exists(), "the pickle is harmless, so that the test shows nothing"


def test_the_refusal_names_what_would_have_been_called(tmp_path):
    with pytest.raises(PickleRefusal, match=r"asks to call posix\.system, which is never done"):
        read(pickle.dumps(Runs(tmp_path / "marker"), 4))


@pytest.mark.parametrize(
    "code",
    [
        b"(cos\nsystem\nS'true'\no.",  # OBJ
        b"(S'true'\nios\nsystem\n.",  # INST
        b"\x80\x02cos\nsystem\n)\x81.",  # NEWOBJ
        b"\x80\x04cos\nsystem\n)}\x92.",  # NEWOBJ_EX
        b"\x80\x02\x82\x01.",  # EXT1
        b"\x80\x05\x97.",  # NEXT_BUFFER
    ],
)
def test_every_other_instruction_that_makes_objects_is_refused(code):
    with pytest.raises(PickleRefusal, match="holds more than tensors"):
        read(code)


def test_a_name_that_is_not_called_stays_text():
    assert read(b"\x80\x02cos\nsystem\n.") == Name("os", "system")


def test_only_the_callers_table_is_called():
    data = pickle.dumps(OrderedDict(a=1), 2)
    assert read(data, {"collections.OrderedDict": dict}) == {"a": 1}
    with pytest.raises(PickleRefusal, match=r"collections\.OrderedDict"):
        read(data, {"collections.defaultdict": dict})


def test_states_reach_only_objects_that_expect_one():
    class Holder:
        def set_state(self, state):
            self.state = state

    build = b"\x80\x02cmy\nHolder\n)RK\x07b."
    assert read(build, {"my.Holder": Holder}).state == 7
    with pytest.raises(PickleRefusal):
        read(build, {"my.Holder": object})
    with pytest.raises(PickleRefusal):
        read(b"\x80\x02cos\nsystem\n}b.")


def test_a_persistent_id_is_the_callers_to_explain():
    assert read(b"\x80\x02K\x07Q.", persistent=lambda identity: identity + 1) == 8
    with pytest.raises(PickleRefusal, match="objects outside of it"):
        read(b"\x80\x02K\x07Q.")


def test_keys_that_are_no_texts_are_refused():
    for key in (b"K\x01", b"N", b")\x85", b"cos\nsystem\n"):
        with pytest.raises(PickleRefusal, match="keys are no texts"):
            read(b"\x80\x02}" + key + b"Ns.")


def test_a_text_longer_than_any_name_is_refused_before_it_is_read():
    with pytest.raises(PickleRefusal, match=f"a text of {LONGEST_TEXT + 1} bytes"):
        read(b"\x80\x02X" + (LONGEST_TEXT + 1).to_bytes(4, "little"))


def test_wherever_it_is_cut_off_a_pickle_is_refused():
    whole = pickle.dumps({"a": [1, (2, 3)], "b": b"bytes", "c": OrderedDict(d=2.5)}, 4)
    calls = {"collections.OrderedDict": dict}
    assert len(whole) > 50 and read(whole, calls)["c"] == {"d": 2.5}
    for length in range(len(whole)):
        with pytest.raises(PickleRefusal):
            read(whole[:length], calls)


@pytest.mark.parametrize(
    "code", [b".", b"(.", b"NN.", b"R.", b"u.", b"h\x05.", b"q\x05.", b"]t.", b"Na.", b"X\x01\0\0\0\xff."]
)
def test_nonsense_is_refused(code):
    with pytest.raises(PickleRefusal):
        read(b"\x80\x02" + code)
