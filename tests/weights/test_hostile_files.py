"""Files that no writer of weights writes: zips that contradict themselves, indexes, pipes, files that shrink."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import time
import zipfile

import numpy as np
import pytest
from safetensors.numpy import save_file

from paddlemix.conversion.parts import MODEL_STEMS, read_parts
from paddlemix.weights import files as weight_files
from paddlemix.weights.files import INDEX_FILE, stored_tensors
from paddlemix.weights.paddle_file import read_paddle_file
from paddlemix.weights.safetensors_file import read_safetensors_file
from paddlemix.weights.stored_tensor import StoredTensor
from paddlemix.weights.torch_file import read_torch_file

READERS = (read_torch_file, read_paddle_file, read_safetensors_file)


def number(value):
    encoded = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(encoded)]) + encoded


def text(word):
    return b"X" + struct.pack("<I", len(word.encode())) + word.encode()


def numbers(values):
    return b"(" + b"".join(map(number, values)) + b"t"


def state_dict(name="w", key="0", first=0, shape=(2, 2), strides=(2, 1), count=1):
    storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text(key) + text("cpu") + b"K\x04tQ"
    tensor = (
        b"ctorch._utils\n_rebuild_tensor_v2\n("
        + storage
        + number(first)
        + numbers(shape)
        + numbers(strides)
        + b"\x89}tR"
    )
    names = [name] if count == 1 else [f"{name}{index}" for index in range(count)]
    return b"\x80\x02}(" + b"".join(text(one) + tensor for one in names) + b"u."


def zipped(pickled, *more, data=bytes(16), compression=zipfile.ZIP_STORED, wide=False):
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", compression) as archive:
        for name, content in (("m/data.pkl", pickled), ("m/data/0", data), *more):
            with archive.open(name, "w", force_zip64=wide) as entry:
                entry.write(content)
    return target.getvalue()


def changed(content, form, offset, *values):
    """Change fields of the last entry of a zip's list."""
    whole = bytearray(content)
    struct.pack_into(form, whole, whole.rfind(b"PK\x01\x02") + offset, *values)
    return bytes(whole)


GOOD = zipped(state_dict())
END = struct.Struct("<4s4HLLH")
END_64, LOCATOR = struct.Struct("<4sQ2H2L4Q"), struct.Struct("<4sLQL")


def with_wide_end(count=1 << 62, place=None):
    """Put an end of 64-bit numbers, which contradict the list, before the end."""
    wide = END_64.pack(b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, 1 << 62, 1 << 62)
    locator = LOCATOR.pack(b"PK\x06\x07", 0, len(GOOD) - END.size if place is None else place, 1)
    return GOOD[: -END.size] + wide + locator + END.pack(b"PK\x05\x06", 0, 0, 65535, 65535, 2**32 - 1, 2**32 - 1, 0)


def with_extra_fields(extra):
    """Give each of two hundred entries extra fields in the list, which have to be gone through one by one."""
    entries = [(f"m/data/{number}", bytes(16)) for number in range(200)]
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in (("m/data.pkl", state_dict()), *entries):
            archive.writestr(name, content)
        for entry in archive.filelist:
            entry.extra = extra
    return target.getvalue()


ZIPS = {
    "a first number below zero": (zipped(state_dict(first=-1)), "damaged"),
    "strides below zero": (zipped(state_dict(strides=(-2, 1))), "damaged"),
    "strides of zero": (zipped(state_dict(shape=(4, 4), strides=(0, 0))), "does not lie row by row"),
    "sizes that overflow": (zipped(state_dict(shape=(1 << 40, 1 << 40), strides=(1 << 40, 1))), "damaged"),
    "a first number that overflows": (zipped(state_dict(first=(1 << 63) - 1)), "damaged"),
    "many axes": (zipped(state_dict(shape=(1,) * 9, strides=(1,) * 9)), "damaged"),
    "a storage that is not there": (zipped(state_dict(key="7")), "damaged"),
    "a storage outside of its folder": (zipped(state_dict(key="../0"), ("m/data/../0", bytes(16))), "damaged"),
    "a name of control characters": (zipped(state_dict("w\x1b[31m\n")), "no name of a tensor"),
    "a long name": (zipped(state_dict("w" * 2000)), "no name of a tensor"),
    "a long name of what is refused": (zipped(state_dict("w\n" * 1000, strides=(1, 5))), "does not lie row by row"),
    "a hundred thousand tensors": (zipped(state_dict(count=100_000)), "more than any model"),
    "a pickle of 20 MB": (zipped(bytes(20 << 20)), "data.pkl of 20971520 bytes"),
    "an order of bytes of 1 MB": (zipped(state_dict(), ("m/byteorder", bytes(1 << 20))), "byteorder of 1048576 bytes"),
    "an entry twice": (zipped(state_dict(), ("m/data/0", bytes(16))), "share a name"),
    "a bomb": (zipped(bytes(100 << 20), compression=zipfile.ZIP_DEFLATED), "compressed"),
    "entries that share bytes": (changed(GOOD, "<L", 42, 0), "share a name or their bytes"),
    "an entry behind the file": (changed(GOOD, "<L", 42, 0xFFFFFFF0), "share a name or their bytes"),
    "an entry larger than the file": (changed(GOOD, "<LL", 20, 0xFFFFFFF0, 0xFFFFFFF0), "share a name or their bytes"),
    "an entry of 64-bit numbers that are not there": (changed(GOOD, "<LL", 20, 0xFFFFFFFF, 0xFFFFFFFF), "share a name"),
    "an encrypted entry": (changed(GOOD, "<H", 8, 1), "damaged"),
    "a content that its checksum is not of": (GOOD.replace(b"FloatStorage", b"HalfStorage\n"), "damaged"),
    "a list of 2^62 entries": (with_wide_end(), "damaged"),
    "a list of 70000 entries": (with_wide_end(70_000), "damaged"),
    "an end that lies elsewhere": (with_wide_end(2, place=0), "damaged"),
    "long extra fields": (with_extra_fields(bytes(65_532)), "damaged"),
    "bytes before it": (b"#!/bin/sh\n" + GOOD, "damaged"),
    "bytes behind it": (GOOD + b"\n", "damaged"),
    "another count": (GOOD[: -END.size] + END.pack(b"PK\x05\x06", 0, 0, 9, 9, 100, len(GOOD) - 100, 0), "damaged"),
}  # fmt: skip


@pytest.fixture(autouse=True)
def in_bounds():
    started = time.process_time()
    yield
    assert time.process_time() - started < 4  # with the making of the files


def refusal(read, file):
    """Return what a reader says of a file, which must be a short sentence about it."""
    started = time.process_time()
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        read(file)
    assert time.process_time() - started < 2  # 0.3 s at most where nothing else runs
    said = str(caught.value)
    assert said.startswith(str(file)) and said.isprintable() and len(said) < 3 * len(str(file)) + 500
    return said.removeprefix(str(file))


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(("content", "said"), ZIPS.values(), ids=ZIPS)
def test_a_zip_that_no_pytorch_writes_is_refused(tmp_path, content, said):
    (tmp_path / "m.bin").write_bytes(content)
    assert said in refusal(read_torch_file, tmp_path / "m.bin")


@pytest.mark.parametrize("wide", [False, True])
def test_a_zip_as_pytorch_writes_it_is_read(tmp_path, wide):
    (tmp_path / "m.bin").write_bytes(
        zipped(state_dict(first=1, shape=(3,), strides=(1,)), data=bytes(12) + b"\0\0\x80?", wide=wide)
    )
    [stored] = read_torch_file(tmp_path / "m.bin")
    target = np.empty([1, 3], np.float32)
    stored.read_into(target)
    assert target.tolist() == [[0, 0, 1]]


@pytest.mark.parametrize("shape", [(0, 1 << 46), (1 << 46, 0)])
def test_an_empty_tensor_is_read_at_once_however_long_its_other_axis(tmp_path, shape):
    (tmp_path / "m.bin").write_bytes(zipped(state_dict(shape=shape, strides=(1, 1))))
    [stored] = read_torch_file(tmp_path / "m.bin")
    stored.read_into(np.empty(stored.matrix_shape, np.float32))


ARRAY = b"cnumpy._core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85C\x01btR"
FLOAT = b"cnumpy\ndtype\nX\x02\0\0\0f4\x89\x88\x87R(K\x03X\x01\0\0\0<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"


@pytest.mark.parametrize(
    "shape", [(-1,), (1 << 48,), (1 << 40, 1 << 40), (1,) * 9, (1 << 62, 1 << 62, 0), (3,)], ids=str
)
def test_an_array_whose_shape_is_none_is_refused(tmp_path, shape):
    array = ARRAY + b"(K\x01" + numbers(shape) + FLOAT + b"\x89C\x04\0\0\0\0tb"
    (tmp_path / "m.pdparams").write_bytes(b"\x80\x04}X\x01\0\0\0w" + array + b"s.")
    assert "damaged" in refusal(read_paddle_file, tmp_path / "m.pdparams")


def test_an_array_of_objects_is_refused(tmp_path):
    (tmp_path / "m.pdparams").write_bytes(pickle.dumps({"w": np.array([{"a": 1}], dtype=object)}, 4))
    assert "floating-point" in refusal(read_paddle_file, tmp_path / "m.pdparams")


@pytest.mark.parametrize("read", READERS)
def test_what_is_no_file_is_refused_without_waiting(tmp_path, read):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name in ("pipe", "link", "zero"):
        assert "expected a file" in refusal(read, tmp_path / name)
    assert "expected a file" in refusal(read, tmp_path)


@pytest.mark.parametrize(
    "name", ["model.safetensors", INDEX_FILE, "pytorch_model.bin", "model_state.pdparams.index.json"]
)
def test_a_pipe_in_a_models_folder_is_named(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(ValueError, match=rf"{name}:? .*pipe"):
        stored_tensors(tmp_path)


def test_a_file_that_shrinks_while_it_is_read_is_named(tmp_path):
    for read, file in (
        (read_safetensors_file, "m.safetensors"),
        (read_torch_file, "m.bin"),
        (read_paddle_file, "m.pd"),
    ):
        save_file({"w": np.ones([400, 1000], np.float32)}, tmp_path / "m.safetensors")
        (tmp_path / "m.bin").write_bytes(
            zipped(state_dict(shape=(400, 1000), strides=(1000, 1)), data=bytes(1_600_000))
        )
        (tmp_path / "m.pd").write_bytes(pickle.dumps({"w": np.ones([400, 1000], np.float32)}, 4))
        [stored] = read(tmp_path / file)
        os.truncate(tmp_path / file, 1_000_000)
        with pytest.raises(ValueError, match=rf"{file}: ends within w; fetch it again"):
            stored.read_into(np.empty([400, 1000], np.float32))


def one_file(count, name="model-00001-of-00001.safetensors"):
    return json.dumps({"weight_map": {f"model.layers.{index}.mlp.weight": name for index in range(count)}}).encode()


MANY = {f"model.layers.{index}": f"model-{index:05}.bin" for index in range(50_000)}
INDEXES = {
    "a million tensors": (one_file(1_000_000), "expected at most"),
    "many files": (json.dumps({"weight_map": MANY}).encode(), "names 50000 files"),
    "pairs of 24 bytes": (
        b'{"weight_map":{' + b",".join(b'"%09d":"%09d"' % (number, number) for number in range(650_000)) + b"}}",
        "expected at most",
    ),
    "as many files as tensors": (
        json.dumps({"weight_map": {f"layer{number}": f"{number}/a" for number in range(130_000)}}).encode(),
        "names 130000 files",
    ),
    "one wide letter in a long text": (one_file(1, "a" * 15_000_000 + "😀"), "no index"),
    "lists": (b'{"weight_map":[' + b"[]," * 4_000_000, "no index"),
    "short texts": (b'{"weight_map":{' + b'"a":"b",' * 1_900_000, "no index"),
    "lists in one another": (b'{"weight_map":' + b"[" * 990, "nested more than"),
    "objects in one another": (b'{"a":' * 100_000, "nested more than"),
    "a long name": (one_file(1, "a" * 1_000_000), "names 'aaa"),
    "a name longer than a file's may be": (one_file(1, "图" * 100), "names '图"),
    "a name of control characters": (one_file(1, "a\x1b[31m\n"), r"names 'a\\u001b"),
    "a name with a zero": (one_file(1, "a\x00b"), "names 'a"),
    "half of a pair of surrogates": (b'{"weight_map":{"a":"\\ud800"}}', "half of a surrogate pair"),
    "a number": (b'{"weight_map":{"a":1}}', "damaged"),
    "a number of many digits": (b'{"weight_map":' + b"1" * 5000 + b"}", "thousands of digits"),
    "NaN": (b'{"weight_map":NaN}', "finite number"),
    "not UTF-8": (b'{"weight_map":{"a":"\xff"}}', "not UTF-8"),
    "a file in another folder": (one_file(1, "../model.safetensors"), "no file of this folder"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "said"), INDEXES.values(), ids=INDEXES)
def test_an_index_that_is_none_is_refused(tmp_path, content, said):
    (tmp_path / INDEX_FILE).write_bytes(content)
    assert said in refusal(lambda index: stored_tensors(index.parent), tmp_path / INDEX_FILE)


def test_an_index_may_name_one_file_for_all_tensors_and_missing_files_are_counted(tmp_path):
    (tmp_path / INDEX_FILE).write_bytes(one_file(50_000))
    save_file({"a": np.zeros([2])}, tmp_path / "model-00001-of-00001.safetensors")
    assert [stored.name for stored in stored_tensors(tmp_path)] == ["a"]
    names = {f"layer {index}": f"{'m' * 200}{index:04}.bin" for index in range(4000)}
    (tmp_path / INDEX_FILE).write_text(json.dumps({"weight_map": names}))
    assert "and 3997 others" in refusal(stored_tensors, tmp_path)


def test_tensors_of_all_files_together_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(weight_files, "MOST_TENSORS", 5)
    for name in ("a", "b"):
        save_file({f"{name}{index}": np.zeros([1]) for index in range(3)}, tmp_path / name)
    (tmp_path / INDEX_FILE).write_text(json.dumps({"weight_map": {"1": "a", "2": "b"}}))
    assert "more than 5 tensors" in refusal(stored_tensors, tmp_path)


def test_numbers_of_ranks_in_names_of_files_cannot_be_astronomic(tmp_path):
    save_file({"a": np.zeros([2])}, tmp_path / "model.tp999999999999.safetensors")
    assert "none of model" in refusal(lambda folder: read_parts(folder, MODEL_STEMS), tmp_path)
    save_file({"a": np.zeros([2])}, tmp_path / "model-00001-of-99999.safetensors")
    assert "and 99993 others is missing" in refusal(lambda folder: read_parts(folder, MODEL_STEMS), tmp_path)


def test_numbers_of_an_unknown_kind_are_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match=r"m: w is of F4; expected float64"):
        StoredTensor("w", tmp_path / "m", 0, (2,), "F4").read_into(np.empty([1, 2], np.float32))
