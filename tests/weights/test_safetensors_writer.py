from __future__ import annotations

import ml_dtypes
import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file

from paddlemix.weights.safetensors_writer import Entry, write_safetensors


def test_safetensors_reads_what_was_written_and_each_tensor_was_asked_for_in_its_turn(tmp_path):
    rng, asked, sizes = np.random.default_rng(0), [], []
    arrays = {
        "odd": rng.normal(size=[3, 5]).astype(np.float16),
        "wide": rng.normal(size=[4]).astype(np.float32),
        "turned": rng.normal(size=[2, 7]).astype(np.float32).T,
        "none": np.zeros([0, 3], np.float32),
    }
    entries = [
        Entry(name, str(array.dtype), array.shape, lambda name=name: asked.append(len(sizes)) or arrays[name])
        for name, array in arrays.items()
    ]
    write_safetensors(tmp_path / "x.safetensors", entries, sizes.append)
    found = load_file(tmp_path / "x.safetensors")
    assert found.keys() == arrays.keys() and all(np.array_equal(found[name], arrays[name]) for name in arrays)
    assert asked == [0, 1, 2, 3] and sum(sizes) == sum(array.nbytes for array in arrays.values())
    with safe_open(tmp_path / "x.safetensors", framework="np") as opened:
        assert opened.metadata() == {"format": "pt"}


def test_numbers_are_rounded_to_the_dtype_of_the_file(tmp_path):
    numbers = np.float32([1.001, -3.3])
    write_safetensors(tmp_path / "x.safetensors", [Entry("x", "bfloat16", (2,), lambda: numbers)])
    with open(tmp_path / "x.safetensors", "rb") as file:
        stored = np.frombuffer(file.read()[-4:], dtype=ml_dtypes.bfloat16)
    assert np.array_equal(stored, numbers.astype(ml_dtypes.bfloat16)) and stored[0] == 1
