from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from paddlemix.weights.dtypes import FLOAT_DTYPES, SAFETENSORS_CODES, STORED_DTYPES
from paddlemix.weights.safetensors_file import read_safetensors_file
from paddlemix.weights.safetensors_writer import Entry, write_safetensors
from paddlemix.weights.stored_tensor import ROWS_AT_ONCE, StoredTensor


def store(folder, array, dtype, before=b"header"):
    (folder / "file").write_bytes(before + array.astype(STORED_DTYPES[dtype]).tobytes() + b"behind")
    return StoredTensor("weight", folder / "file", len(before), array.shape, dtype)


@pytest.mark.parametrize("dtype", FLOAT_DTYPES)
@pytest.mark.parametrize("rows", [1, ROWS_AT_ONCE - 1, ROWS_AT_ONCE, 2 * ROWS_AT_ONCE + 5])
def test_a_matrix_is_read_and_converted_as_it_is_and_transposed(tmp_path, dtype, rows):
    array = (np.arange(rows * 3) % 200).reshape(rows, 3).astype(np.float64) / 4
    stored = store(tmp_path, array, dtype)
    straight, turned = np.empty([rows, 3], np.float32), np.empty([3, rows], np.float32)
    stored.read_into(straight)
    stored.read_into(turned.T)
    np.testing.assert_array_equal(straight, array)
    np.testing.assert_array_equal(turned, array.T)


@pytest.mark.parametrize("dtype", list(STORED_DTYPES))
def test_numbers_of_every_dtype_come_from_a_safetensors_file_to_the_bit(tmp_path, dtype):
    width = STORED_DTYPES[dtype].itemsize
    raw = np.random.default_rng(0).integers(0, 256, [70, 3 * width], np.uint8)
    array = (raw % 2 if dtype == "bool" else raw).view(STORED_DTYPES[dtype])
    assert array.shape == (70, 3) and dtype in SAFETENSORS_CODES
    write_safetensors(tmp_path / "file", [Entry("weight", dtype, array.shape, lambda: array)])
    [stored] = read_safetensors_file(tmp_path / "file")
    found = np.empty_like(array)
    stored.read_into(found)
    assert (stored.dtype, stored.shape) == (dtype, (70, 3)) and found.tobytes() == array.tobytes()


@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.uint8, np.int64, np.bool_])
def test_integers_that_safetensors_wrote_keep_their_values(tmp_path, dtype):
    array = np.array([[0, 1, 127], [5, 0, 3]]).astype(dtype)
    save_file({"weight": array}, tmp_path / "file")
    [stored] = read_safetensors_file(tmp_path / "file")
    own, wide = np.empty([2, 3], dtype), np.empty([3, 2], np.int64)
    stored.read_into(own)
    stored.read_into(wide.T)
    assert stored.dtype == np.dtype(dtype).name
    np.testing.assert_array_equal(own, array)
    np.testing.assert_array_equal(wide, array.T)


@pytest.mark.parametrize(("shape", "matrix"), [((), (1, 1)), ((7,), (1, 7)), ((2, 3, 4), (2, 12)), ((0, 3), (0, 0))])
def test_any_shape_is_rows_and_columns(tmp_path, shape, matrix):
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape)
    stored = store(tmp_path, array, "float32")
    assert stored.matrix_shape == matrix
    target = np.empty(matrix, np.float32)
    stored.read_into(target)
    np.testing.assert_array_equal(target, array.reshape(matrix))


def test_conversion_to_half_precision_rounds_to_the_nearest(tmp_path):
    array = np.array([1 + 2**-9, 1 + 2**-7 + 2**-9, -3.1415926], np.float32)
    target = np.empty([1, 3], ml_dtypes.bfloat16)
    store(tmp_path, array, "float32").read_into(target)
    np.testing.assert_array_equal(target[0].astype(np.float32), [1, 1 + 2**-7, -3.140625])


def test_a_file_that_became_shorter_is_named_with_the_tensor(tmp_path):
    stored = store(tmp_path, np.zeros([ROWS_AT_ONCE + 3, 5]), "float32")
    stored.file.write_bytes(stored.file.read_bytes()[:-10])
    with pytest.raises(ValueError, match=r"file: ends within weight"):
        stored.read_into(np.empty([ROWS_AT_ONCE + 3, 5], np.float32))


@pytest.mark.parametrize("rows", [slice(None), slice(0, 70), slice(70, 140)])
@pytest.mark.parametrize("columns", [slice(None), slice(0, 3), slice(3, 5)])
def test_rows_and_columns_are_read_alone(tmp_path, rows, columns):
    array = np.arange(140 * 5).reshape(140, 5).astype(np.float32)
    stored, wanted = store(tmp_path, array, "float32"), array[rows, columns]
    target = np.empty(wanted.shape, np.float64)
    stored.read_into(target, rows, columns)
    np.testing.assert_array_equal(target, wanted)


def test_nothing_is_read_behind_the_part_that_is_asked_for(tmp_path):
    array = np.arange(8 * 6).reshape(8, 6).astype(np.float32)
    stored = store(tmp_path, array, "float32", before=b"")
    (tmp_path / "file").write_bytes(array[:4].tobytes()[: -3 * 4])  # ends within the fourth row
    target = np.empty([4, 3], np.float32)
    stored.read_into(target, slice(0, 4), slice(0, 3))
    np.testing.assert_array_equal(target, array[:4, :3])
    with pytest.raises(ValueError, match="ends within weight"):
        stored.read_into(target, slice(0, 4), slice(3, 6))
