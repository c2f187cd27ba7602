from __future__ import annotations

import random
import struct
import time
import tracemalloc

import numpy as np
import pytest
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from paddlemix.weights.safetensors_file import MOST_HEADER, read_safetensors_file
from paddlemix.weights.stored_tensor import MOST_TENSORS

EMPTY = b'{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'


def write(folder, header, numbers=b"", *, length=None):
    file = folder / "model.safetensors"
    file.write_bytes(struct.pack("<Q", len(header) if length is None else length) + header + numbers)
    return file


def many(count, end=b"}"):
    return b"{" + b",".join(b'"%d":' % number + EMPTY for number in range(count)) + end


def about(dtype=b'"F32"', shape=b"[1]", place=b"[0,4]", more=b""):
    return b'{"a":{"dtype":%s,"shape":%s,"data_offsets":%s%s}}' % (dtype, shape, place, more)


@pytest.mark.parametrize("length", [2**63, 2**64 - 1, 2**32, 3])
def test_a_header_that_would_end_behind_the_file_is_refused(tmp_path, length):
    with pytest.raises(ValueError, match=r"model\.safetensors: damaged or cut off, fetch it again \(its header would"):
        read_safetensors_file(write(tmp_path, b"{}", length=length))


def test_a_header_larger_than_any_models_is_refused_before_it_is_read(tmp_path):
    file = write(tmp_path, b"", length=MOST_HEADER + 1)
    with open(file, "r+b") as opened:
        opened.truncate(1 << 40)  # a terabyte of nothing
    tracemalloc.start()
    started = time.process_time()
    with pytest.raises(ValueError, match=f"said to have {MOST_HEADER + 1} bytes, .*Fetch it again"):
        read_safetensors_file(file)
    assert time.process_time() - started < 0.05 and tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


HEADERS = {
    "many tensors": (many(MOST_TENSORS + 2), f"more than {MOST_TENSORS} keys"),
    "many texts beside the tensors": (
        b'{"__metadata__":{' + b",".join(b'"%d":""' % number for number in range(MOST_TENSORS + 2)) + b"}}",
        f"more than {MOST_TENSORS} keys",
    ),
    "something behind many tensors": (many(60_000, b"}x"), "something follows"),
    "spaces": (b" " * MOST_HEADER, "from byte 0 on"),
    "lists in one another": (b'{"a":' + b"[" * 8_000_000, "from byte 5 on"),
    "objects in one another": (b'{"a":' * 3_000_000, "from byte 5 on"),
    "lists in one another inside of a tensor": (about(shape=b"[" * 400 + b"]" * 400), "no shape"),
    "a name without an end": (b'{"' + b"a" * 15_000_000, "does not end"),
    "a name without an end, of escapes": (b'{"' + b'\\"' * 7_000_000, "does not end"),
    "backslashes": (b'{"' + b"\\" * 4_000_000 + b'":1}', "from byte"),
    "a tensor twice": (b'{"a":' + EMPTY + b',"a":' + EMPTY + b"}", "'a' stands there twice"),
    "metadata twice": (b'{"__metadata__":{},"__metadata__":{}}', "twice"),
    "a dtype twice": (about(more=b',"dtype":"F32"'), "a key twice"),
    "NaN": (about(shape=b"[NaN]"), "no shape"),
    "a fraction": (about(shape=b"[1.0]"), "no shape"),
    "a size below zero": (about(shape=b"[-1]"), "no shape"),
    "many axes": (about(shape=b"[1,1,1,1,1,1,1,1,1]"), "no shape"),
    "sizes that overflow": (about(shape=b"[4294967296,4294967296,4294967296]"), "no shape"),
    "a size of many digits": (about(shape=b"[" + b"1" * 900 + b"]"), "no shape"),
    "a shape that its bytes are not of": (about(shape=b"[2]"), "another number of bytes"),
    "an end before the begin": (about(place=b"[4,0]"), "another number of bytes"),
    "a place behind the file": (about(place=b"[4611686018427387904,4611686018427387908]"), "does not begin where"),
    "a place of one number": (about(place=b"[0]"), "no data_offsets"),
    "an unknown dtype": (about(dtype=b'"F33"'), "no dtype of the format"),
    "a dtype that is no text": (about(dtype=b"[]"), "no dtype of the format"),
    "overlapping tensors": (about()[:-1] + b',"b":' + about()[5:], "does not begin where"),
    "a gap": (about(place=b"[4,8]"), "does not begin where"),
    "not UTF-8": (b'{"\xff":' + EMPTY + b"}", "no"),
    "half of a pair of surrogates": (b'{"\\ud800":' + EMPTY + b"}", "no name of a tensor"),
    "a name of control characters": (b'{"\\u001b[31m":' + EMPTY + b"}", "no name of a tensor"),
    "a long name": (b'{"' + b"a" * 513 + b'":' + EMPTY + b"}", "no name of a tensor"),
}  # fmt: skip


@pytest.mark.parametrize(("header", "said"), HEADERS.values(), ids=HEADERS)
def test_a_header_of_no_model_is_refused_in_time_by_a_short_sentence(tmp_path, header, said):
    file = write(tmp_path, header, bytes(4) if len(header) < 1000 and EMPTY not in header else b"")
    started = time.process_time()
    with pytest.raises(ValueError, match=said) as caught:
        read_safetensors_file(file)
    assert time.process_time() - started < 2  # 0.5 s at most where nothing else runs
    text = str(caught.value)
    assert text.startswith(f"{file}: ") and text.isprintable() and len(text) < len(str(file)) + 300


@pytest.mark.parametrize(
    "attack", ["many tensors", "many texts beside the tensors", "spaces", "objects in one another"]
)
def test_a_header_takes_no_more_memory_than_its_file_and_a_few_megabytes(tmp_path, attack):
    file = write(tmp_path, HEADERS[attack][0])
    tracemalloc.start()
    with pytest.raises(ValueError, match="damaged"):
        read_safetensors_file(file)
    # Names and places of as many tensors as are allowed.
    assert tracemalloc.get_traced_memory()[1] < file.stat().st_size + (24 << 20)
    tracemalloc.stop()


def test_what_writers_put_beside_tensors_is_passed_over(tmp_path):
    texts = {"format": "np", "notes": '{"a": "}\\\\", "b": ["\\""]} \n é' * 1000}
    file = tmp_path / "model.safetensors"
    file.write_bytes(save({"a": np.zeros([2])}, texts))
    [stored] = read_safetensors_file(file)
    assert stored.in_paddles_order


def test_mutated_headers_are_read_as_the_library_reads_them(tmp_path):
    chance, file = random.Random(0), tmp_path / "model.safetensors"
    arrays = {"a": np.zeros((2, 3), np.float32), "b.weight": np.zeros(4, np.float16), "é": np.zeros((), np.int64)}
    whole = save(arrays, {"format": "pt", "k": 'x"}\\'})
    length = int.from_bytes(whole[:8], "little")
    alike = {True: 0, False: 0}
    for _ in range(3000):
        header = bytearray(whole[8 : 8 + length])
        for _ in range(chance.choice((0, 1, 1, 2))):
            at = chance.randrange(len(header))
            header[at : at + chance.randrange(3)] = bytes(
                chance.choices(b'0123456789{}[]",:-e.\\ F\xff', k=chance.randrange(3))
            )
        write(tmp_path, bytes(header), whole[8 + length :])
        try:
            with safe_open(file, framework="np") as opened:
                wanted = {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
        except (SafetensorError, UnicodeDecodeError):
            wanted = None
        try:
            found = {stored.name: stored.shape for stored in read_safetensors_file(file)}
        except ValueError as error:
            # Stricter: names that a terminal would obey, and keys that stand there twice.
            found = wanted if "no name of a tensor" in str(error) or "twice" in str(error) else None
        assert found == wanted, bytes(header)
        alike[found is None] += 1
    assert min(alike.values()) > 200
