"""Linear layers that the field's own tools have packed, and what is read of them.

`write_files.py` made the files: what each of them holds beside the layer is the weight that the tool's own code
computes with.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from paddlemix.quantization.rounding import rounded
from paddlemix.quantization.scheme import Scheme, read_scheme
from paddlemix.quantization.stored import QuantizedTensor, joined
from paddlemix.weights.published import read_whole
from paddlemix.weights.safetensors_file import read_safetensors_file

FOLDER = Path(__file__).parents[1] / "fixtures" / "quantized"
FILES = {path.stem: path for path in sorted(FOLDER.glob("*.safetensors"))}
each_file = pytest.mark.parametrize("name", FILES)


def scheme_of(path: Path) -> Scheme:
    with safe_open(path, "np") as opened:
        config = json.loads(opened.metadata()["quantization_config"])
    scheme = read_scheme({"quantization_config": config}, path.parent)
    assert scheme is not None
    return scheme


def weight_in(path: Path, scheme: Scheme) -> QuantizedTensor:
    (found,) = [one for one in joined(read_safetensors_file(path), scheme) if isinstance(one, QuantizedTensor)]
    return found


def test_there_is_a_file_of_each_format():
    methods = {scheme_of(path).method for path in FILES.values()}
    assert methods == {"gptq", "awq", "bitsandbytes", "compressed-tensors"} and len(FILES) == 10


@each_file
def test_what_is_read_is_what_the_tool_computes_with_bit_by_bit(name):
    found = weight_in(FILES[name], scheme_of(FILES[name]))
    expected = load_file(FILES[name])["expected"]
    assert found.name == "layer.weight" and found.shape == expected.shape
    np.testing.assert_array_equal(read_whole(found, "float32"), expected)
    assert expected.std() > 0.05 and len(np.unique(expected)) > 15


@each_file
def test_parts_of_a_weight_are_read_alone(name):
    found = weight_in(FILES[name], scheme_of(FILES[name]))
    whole, part = read_whole(found, "float32"), np.empty([5, 9], np.float32)
    found.read_into(part, rows=slice(3, 8), columns=slice(11, 20))
    np.testing.assert_array_equal(part, whole[3:8, 11:20])


@each_file
def test_what_is_no_part_of_a_weight_stays_a_tensor_of_its_own(name):
    others = [one.name for one in joined(read_safetensors_file(FILES[name]), scheme_of(FILES[name]))]
    assert {"layer.weight", "layer.bias", "expected"} <= set(others) and len(others) <= 4


def test_columns_of_shuffled_groups_are_sorted():
    blocks = {name: weight_in(FILES[name], scheme_of(FILES[name])).blocks() for name in FILES}
    assert {name for name, one in blocks.items() if one.order is not None} == {"gptq_int4_shuffled"}


@pytest.mark.parametrize("name", ["nf4", "nf4_over_rows"])
def test_rounding_to_nf4_gives_bitsandbytes_codes(name):
    theirs, plain = weight_in(FILES[name], scheme_of(FILES[name])).blocks(), load_file(FILES[name])["plain"]
    ours = rounded(plain, "nf4")
    for field in ("codes", "scales", "values"):
        np.testing.assert_array_equal(getattr(ours, field), getattr(theirs, field), err_msg=field)


def damaged(name: str, tmp_path: Path, changes: dict[str, np.ndarray | None]) -> QuantizedTensor:
    """Read a file in which tensors are others, or missing."""
    tensors = {key: array for key, array in load_file(FILES[name]).items() if key.startswith("layer.")}
    for key, array in changes.items():
        key = f"layer.{key}"
        assert key in tensors
        tensors.pop(key)
        if array is not None:
            tensors[key] = array
    save_file(tensors, tmp_path / "damaged.safetensors")
    return weight_in(tmp_path / "damaged.safetensors", scheme_of(FILES[name]))


@pytest.mark.parametrize(
    ("name", "changes", "problem"),
    [
        ("gptq_int4", {"scales": None}, "scales is missing"),
        ("gptq_int4", {"qweight": None}, "qweight is missing"),
        ("gptq_int4", {"qzeros": np.zeros([4, 9], np.int32)}, r"qzeros is \[4, 9\], where \[4, 8\] is expected"),
        ("gptq_int4", {"qweight": np.zeros([15, 64], np.int32)}, "`group_size` 32 does not divide its 120 inputs"),
        ("gptq_int4", {"scales": np.zeros([4, 64], np.int32)}, "scales is I32, expected F16 or BF16 or F32"),
        ("gptq_int4", {"qweight": np.zeros([64], np.int32)}, r"qweight is \[64\], where 2 axes are expected"),
        ("gptq_int4_shuffled", {"g_idx": np.zeros([128], np.int32)}, "g_idx does not give each group 32 inputs"),
        ("awq_int4", {"qzeros": None}, "qzeros is missing"),
        ("packed_int4", {"weight_shape": np.array([64, 200])}, r"weight_shape says \[64, 200\], but weight_packed is"),
        ("nf4", {"weight": np.zeros([100, 1], np.uint8)}, r"weight is \[100, 1\], where \[4096, 1\] is expected"),
        ("nf4", {"weight.absmax": None}, "weight.absmax is missing"),
        (
            "nf4_double",
            {"weight.quant_state.bitsandbytes__nf4": np.frombuffer(b'{"shape": [1]}', np.uint8)},
            r"its state says `shape` \[1\] and `blocksize` None",
        ),
    ],
)
def test_a_damaged_weight_is_named_with_what_is_wrong(name, changes, problem, tmp_path):
    with pytest.raises(ValueError, match=rf"damaged\.safetensors: the quantised weight of layer cannot.*{problem}"):
        damaged(name, tmp_path, changes).blocks()


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"quant_method": "awq", "version": "gemv_fast"}, "AWQ's `version` \"gemv_fast\""),
        ({"quant_method": "awq", "version": "llm-awq"}, "AWQ's `version` \"llm-awq\""),
        ({"quant_method": "gptq", "bits": 4, "checkpoint_format": "marlin"}, "`checkpoint_format` \"marlin\""),
        ({"quant_method": "gptq", "bits": 4, "is_marlin_format": True}, "`checkpoint_format` \"marlin\""),
        ({"quant_method": "gptq", "bits": 3}, "`bits` 3"),
        ({"quant_method": "exl2"}, "`quant_method` \"exl2\""),
        ({"quant_method": "fp8"}, "`quant_method` \"fp8\""),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "bitsandbytes' 8 bits"),
        ({"quant_method": "compressed-tensors", "format": "float-quantized", "config_groups": {"a": {"weights": {}}}},
         "`format` \"float-quantized\""),
        ({"bits": 4}, "`quant_method` null"),
    ],
)  # fmt: skip
def test_other_ways_to_quantise_are_refused_by_name(config, named):
    with pytest.raises(
        ValueError, match=r"config\.json: the weights are quantised in a way that is not read"
    ) as raised:
        read_scheme({"quantization_config": config}, Path("model"))
    assert named in str(raised.value)


def test_what_config_json_says_in_its_text_section_counts_too():
    config = {"quant_method": "awq", "bits": 4, "group_size": 64}
    assert read_scheme({"text_config": {"quantization_config": config}}, Path("model")) == Scheme("awq", 4, 64)
    assert read_scheme({"text_config": {}, "quantization_config": None}, Path("model")) is None
