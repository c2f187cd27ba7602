"""What a pickle may ask for: time and memory in proportion to its bytes, whatever its instructions are."""

from __future__ import annotations

import io
import pickle
import random
import struct
import time
import tracemalloc

import pytest

from paddlemix.weights import paddle_file, torch_file
from paddlemix.weights.pickled import (
    _INSTRUCTIONS,
    DEEPEST,
    LONGEST_TEXT,
    LONGEST_WORD,
    MOST_STACKED,
    MOST_STREAM,
    Name,
    PickleRefusal,
    read_pickle,
)

SECONDS = 1.0  # of computing, for what takes a twentieth of it
TOO_MUCH = "more than any model's list of tensors"
DEEP = f"nested more than {DEEPEST} deep"
DAMAGED = "damaged or cut off"
CALLS = {**torch_file._CALLS, **paddle_file._CALLS, "my.dict": dict}
START = b"\x80\x04"


def read(data):
    return read_pickle(io.BytesIO(data), CALLS, torch_file._storage)


def text(word):
    return b"X" + struct.pack("<I", len(word)) + word


def doubled_tuples(times):
    """A tuple that holds the one before it twice: printed, compared or hashed it is 2 ** times long."""
    return b")\x94" + b"".join(b"h" + bytes([one]) + b"h" + bytes([one]) + b"\x86\x94" for one in range(times))


ATTACKS = {
    "a name of tuples": (doubled_tuples(25) + b"N\x93)R.", DAMAGED),
    "a name of deep tuples": (b")" + b"\x85" * 30 + b"\x8c\x01a\x93)R.", DAMAGED),
    "an empty name": (b"c\n\n.", DAMAGED),
    "a name without an end": (b"c" + b"a" * 1_000_000, DAMAGED),
    "a long name": (text(b"a" * (LONGEST_WORD + 1)) + text(b"a") + b"\x93.", DAMAGED),
    "tuples in one another": (b")" + b"\x85" * 1_000_000 + b".", DEEP),
    "lists in one another": (b"]" * 100 + b"a" * 99 + b".", DEEP),
    "dicts in one another": (b"".join(b"}\x8c\x01a" for _ in range(100)) + b"N" + b"s" * 100 + b".", DEEP),
    "lists that are put together from outside inwards": (
        b"]\x94" * 100 + b"".join(b"h" + bytes([one]) + b"h" + bytes([one + 1]) + b"a" for one in range(99)) + b".",
        DAMAGED,
    ),
    "a list in itself": (b"]\x94h\x00a.", DAMAGED),
    "a dict in itself": (b"}\x94\x8c\x01ah\x00s.", DAMAGED),
    "a list in a tuple in itself": (b"]\x94h\x00\x85a.", DAMAGED),
    "marks": (b"(" * 1_000_000 + b".", DEEP),
    "a mark that is left": (b"(N(}.", DAMAGED),
    "a large stack": (b"N" * (MOST_STACKED + 1), TOO_MUCH),
    "pairs on a large stack": (b"N" * 60_000 + b"NN\x86" * 5_000 + b".", DAMAGED),
    "a tuple that grows on a large stack": (b"N" * 60_000 + b"\x86" * 5_000 + b".", DEEP),
    "dicts": (b"](" + (b"}" * 60_000 + b"e(") * 16, TOO_MUCH),
    "a memo": (b"N" + b"\x94" * 2_000_000, TOO_MUCH),
    "a memo with a gap": (b"Nr\xff\xff\xff\x7f.", DAMAGED),
    "protocols": (START * (MOST_STREAM // 2 + 1), TOO_MUCH),
    "a text of 100 MB": (text(b"a" * (100 << 20)), "a text of 104857600 bytes"),
    "a text of 4 GB": (b"X\xff\xff\xff\xffa", "a text of 4294967295 bytes"),
    "wide texts": (b"](" + text("😀".encode() * (LONGEST_TEXT // 4)) * 4000, TOO_MUCH),
    "a frame of 2^64 bytes": (b"\x95" + b"\xff" * 8 + b"N.", "cut off"),
    "bytes of 2^64 bytes": (b"\x8e" + b"\xff" * 8 + b".", "cut off"),
    "long numbers": ((b"\x8a\xff" + b"\x7f" * 255) * 60_000 + b".", DAMAGED),
    "a list copied again and again": (
        b"](" + b"N" * 60_000 + b"e\x94cbuiltins\ntuple\n\x94" + b"h\x01h\x00\x85R" * 50_000 + b".",
        DAMAGED,
    ),
    "a call with many arguments, again and again": (
        b"(" + b"N" * 60_000 + b"t\x94cnumpy\ndtype\n\x94" + b"h\x01h\x00R" * 50_000 + b".",
        DAMAGED,
    ),
    "a state that is no tuple": (b"cnumpy\ndtype\n\x8c\x02f4\x85R\x8c\x05<<<<<b.", DAMAGED),
}


@pytest.mark.parametrize(("attack", "said"), ATTACKS.values(), ids=ATTACKS)
def test_an_attack_is_refused_in_time(attack, said):
    started = time.process_time()
    with pytest.raises(PickleRefusal, match=said) as caught:
        read(START + attack)
    assert time.process_time() - started < SECONDS
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("attack", ["dicts", "wide texts", "a memo", "long numbers", "a large stack", "protocols"])
def test_an_attack_takes_no_more_memory_than_its_file_and_a_few_megabytes(attack):
    data = START + ATTACKS[attack][0]
    stream = io.BytesIO(data)
    tracemalloc.start()
    try:
        with pytest.raises(PickleRefusal):
            read_pickle(stream, CALLS, torch_file._storage)
        assert tracemalloc.get_traced_memory()[1] < len(data) + (10 << 20)
    finally:
        tracemalloc.stop()


# Each makes as many objects, or calls, as fit; of a file that is large beside its pickle more of them do.
DTYPE = b"cnumpy\ndtype\n"
FLOODS = {
    "bytes": (b"", b"C\0"),
    "texts": (b"", b"\x8c\0"),
    "integers": (b"", b"\x8a\x02ab"),
    "names": (b"", b"ca\nb\n"),
    "names of texts": (b"\x8c\x01a\x94", b"h\0h\0\x93"),
    "calls": (DTYPE + b"\x94\x8c\x02f4\x85\x94", b"h\0h\x01R"),
    "states": (DTYPE + b"\x8c\x02f4\x85R\x94K\x03\x8c\x01<\x86\x94", b"h\0h\x01b"),
    "dicts": (b"\x8c\x01a\x94", b"}h\0Ns"),
}


def flood(name):
    before, once = FLOODS[name]
    return START + before + b"](" + (once * 60_000 + b"e](") * 20


@pytest.mark.parametrize("name", FLOODS)
def test_objects_and_calls_of_a_large_file_take_a_second_at_most(name):
    started = time.process_time()
    with pytest.raises(PickleRefusal, match=TOO_MUCH):
        read_pickle(io.BytesIO(flood(name)), CALLS, file_size=1 << 40)
    assert time.process_time() - started < 1.5  # 1 where nothing else runs


def test_objects_take_less_memory_than_they_are_charged():
    data = flood("names")
    tracemalloc.start()
    with pytest.raises(PickleRefusal, match=TOO_MUCH):
        read_pickle(io.BytesIO(data), CALLS, file_size=1 << 40)
    assert tracemalloc.get_traced_memory()[1] < 40 << 20
    tracemalloc.stop()


def test_what_is_nested_as_deep_as_is_allowed_is_read():
    assert read(START + b")" + b"\x85" * (DEEPEST - 1) + b".") is not None
    with pytest.raises(PickleRefusal, match=DEEP):
        read(START + b")" + b"\x85" * DEEPEST + b".")


def test_a_list_may_stand_in_many_places_and_is_then_whole():
    shared = ["a", ("b", [1])]
    data = {"one": shared, "other": shared, "both": [shared, shared]}
    for level in (2, 4):
        assert read(pickle.dumps(data, level)) == data


def test_a_name_that_would_be_printed_is_cut_and_escaped():
    with pytest.raises(PickleRefusal) as caught:
        read(START + b"c" + b"a\x1b[31m" * 30 + b"\nb\n)R.")
    assert str(caught.value).isprintable() and len(str(caught.value)) < 200


# Arguments that let instructions meet: texts, numbers, places of the memo.
ARGUMENTS = {
    b"\x80": b"\x04", b"\x95": bytes(8), b"J": b"\x02\0\0\0", b"K": b"\x03", b"M": b"\x04\0", b"G": bytes(8),
    b"\x8a": b"\x02\xff\x7f", b"\x8c": b"\x02f4", b"X": b"\x01\0\0\0a", b"C": b"\x01x", b"B": b"\x01\0\0\0x",
    b"\x8e": b"\x01" + bytes(7) + b"x",
}  # fmt: skip
NAMES = [name.replace(".", "\n").encode() for name in ("my.dict", "numpy.dtype", "builtins.tuple", "os.system")]
NAMES += [b"torch._utils\n_rebuild_tensor_v2", b"numpy\nndarray", b"numpy._core.multiarray\n_reconstruct"]
# As many values are put on the stack as are taken from it, so that programs get somewhere.
WEIGHTS = {b".": 0.2, b"N": 2, b"K": 4, b"\x8c": 6, b"(": 3, b"c": 3, b"}": 6, b"]": 6, b")": 4, b"s": 3, b"a": 6}


def program(chance, length, most_remembered=20):
    codes = list(_INSTRUCTIONS)
    pieces = []
    for code in chance.choices(codes, weights=[WEIGHTS.get(code, 1) for code in codes], k=length):
        if code == b"c":
            pieces.append(code + chance.choice(NAMES) + b"\n")
        elif code in b"hq":
            pieces.append(code + bytes([chance.randrange(most_remembered)]))
        elif code in b"jr":
            pieces.append(code + struct.pack("<I", chance.randrange(most_remembered)))
        else:
            pieces.append(code + ARGUMENTS.get(code, b""))
    return b"".join(pieces)


def depth(value, above=()):
    """Return how deep containers stand in one another; that none holds itself is checked on the way."""
    assert id(value) not in above
    if type(value) not in (dict, list, tuple):
        return 0
    inner = value.values() if type(value) is dict else value
    return 1 + max((depth(one, (*above, id(value))) for one in inner), default=0)


def test_every_random_program_gives_data_or_a_refusal():
    chance = random.Random(0)
    outcomes, unclear = {"data": 0, "refused": 0, "nested": 0}, []
    for _ in range(20_000):
        inside = program(chance, chance.randrange(1, 25))
        data = START + chance.choice((inside, b"](" + inside + b"e")) + b"."
        try:
            found = read(data)
        except PickleRefusal as refusal:
            outcomes["refused"] += 1
            unclear += [data] if not str(refusal).isprintable() or len(str(refusal)) > 300 else []
        else:
            outcomes["data"] += 1
            outcomes["nested"] += depth(found) > 2
            assert depth(found) <= DEEPEST
    assert not unclear
    assert outcomes["data"] > 400 and outcomes["refused"] > 4000 and outcomes["nested"] > 20, outcomes


def stacked(chance):
    """A program that leaves one value more than it found."""
    small = [b"N", b"]", b"}", b")", b"NN\x86", b"]]a", b"}\x8c\x01aNs", b"(NN)t", b"](NNe"]
    return chance.choice([*small, b"h\x00", b"h\x00\x85", b"]h\x00a"])


def test_the_time_of_a_program_grows_as_its_length():
    chance = random.Random(1)
    for _ in range(40):
        body = b"".join(stacked(chance) for _ in range(chance.randrange(1, 6)))
        end = chance.choice([b"", b"\x85", b"\x86", b"\x87", b"(t", b"](Ne"])
        seconds = []
        for length in (60_000, 120_000):
            data = START + b"(" + b"N" * 5000 + b"t\x94" + (body + end) * (length // len(body + end)) + b"."
            started = time.process_time()
            with pytest.raises(PickleRefusal):
                read(data)
            seconds.append(time.process_time() - started)
        # A copy of the stack at each instruction takes 100 times as long.
        assert max(seconds) < SECONDS, (body, end, seconds)


def test_programs_have_every_instruction():
    chance = random.Random(2)
    assert set(_INSTRUCTIONS) <= {bytes([byte]) for byte in program(chance, 5000)}
    assert read(START + b"cos\nsystem\n.") == Name("os", "system")
