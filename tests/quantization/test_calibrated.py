"""GPTQ against a plain implementation of the paper's loop, and what files its codes are written into."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from paddlemix.quantization.blocks import Blocks
from paddlemix.quantization.calibrated.columns import ColumnRounding
from paddlemix.quantization.calibrated.grid import rounded_alone
from paddlemix.quantization.calibrated.recipe import Modules, Recipe
from paddlemix.quantization.scheme import Scheme, read_scheme
from paddlemix.quantization.stored import joined, taken_apart
from paddlemix.weights.safetensors_file import read_safetensors_file

from .test_files import FILES, scheme_of, weight_in

OUT = 40
MODULES = Modules("model.layers", ("visual",))


def layer_of(inputs: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Make a weight float64[out, in] and a Hessian of inputs that depend on one another and are of other sizes."""
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(3 * inputs, inputs)) @ (np.eye(inputs) + 0.3 * rng.normal(size=(inputs, inputs)))
    mixed *= np.exp(rng.normal(size=inputs))
    return rng.normal(size=(OUT, inputs)), mixed.T @ mixed


def numbers_of(blocks: Blocks) -> np.ndarray:
    return blocks.numbers(slice(None)).astype(np.float64)


def loss(blocks: Blocks, weight: np.ndarray, hessian: np.ndarray) -> float:
    """Add up the squared differences of the outputs."""
    off = numbers_of(blocks) - weight
    return float(np.einsum("oi,ij,oj->", off, hessian, off))


def plainly(weight: np.ndarray, hessian: np.ndarray, recipe: Recipe) -> np.ndarray:
    """Round one input after the other, handing each error on at once; the inverse of what is left is kept explicitly.

    Source: Frantar and Alistarh, "Optimal Brain Compression", 2022, arXiv:2208.11580, equations 3 and 4.
    """
    inputs, most = weight.shape[1], (1 << recipe.bits) - 1
    group = inputs if recipe.group == -1 else recipe.group
    order = sorted(range(inputs), key=lambda i: -hessian[i, i]) if recipe.orders_by_use else list(range(inputs))
    rest = weight.copy()
    inverse = np.linalg.inv(hessian + recipe.damping * np.trace(hessian) / inputs * np.eye(inputs))
    for place, column in enumerate(order):
        if place % group == 0:
            members = rest[:, order[place : place + group]]
            low, high = np.minimum(members.min(1), 0), np.maximum(members.max(1), 0)
            if recipe.symmetric:
                scale, zero = 2 * np.maximum(-low, high) / most, np.full(len(rest), (most + 1) / 2)
            else:
                scale = (high - low) / most
            scale = scale.astype(np.float16).astype(np.float64)
            if not recipe.symmetric:
                zero = np.round(-low / scale)
        before = rest[:, column].copy()
        rest[:, column] = (np.clip(np.round(before / scale) + zero, 0, most) - zero) * scale
        error = (before - rest[:, column]) / inverse[column, column]
        left = order[place + 1 :]
        rest[:, left] -= np.outer(error, inverse[column, left])
        inverse -= np.outer(inverse[:, column], inverse[column]) / inverse[column, column]
    return rest


@pytest.mark.parametrize("ordered", [False, True], ids=["in order", "by use"])
@pytest.mark.parametrize(
    ("inputs", "group", "bits", "symmetric"),
    [
        (256, 32, 4, True),
        (288, 96, 4, False),
        (384, 128, 4, False),
        (600, 300, 4, True),
        (200, -1, 8, True),
        (192, 64, 8, False),
    ],
)
def test_it_gives_what_the_plain_loop_gives_and_is_better_than_rounding_alone(inputs, group, bits, symmetric, ordered):
    weight, hessian = layer_of(inputs)
    recipe = Recipe("gptq", bits, group, symmetric, ordered, 0.01)
    blocks = ColumnRounding(hessian.copy(), recipe).blocks(weight)
    np.testing.assert_allclose(numbers_of(blocks), plainly(weight, hessian, recipe), rtol=1e-6, atol=1e-7)
    alone = rounded_alone(weight.astype(np.float32), bits, recipe.group_of(inputs), symmetric=symmetric)
    found, wanted = (loss(one, weight, hessian) for one in (blocks, alone))
    assert 0 < found < 0.7 * wanted
    in_half = ColumnRounding(hessian.astype(np.float32), recipe).blocks(weight.astype(np.float32))
    assert loss(in_half, weight, hessian) < 1.02 * found


def test_inputs_are_taken_and_grouped_by_their_magnitudes():
    weight, hessian = layer_of(128)
    ordered, plain = (
        ColumnRounding(hessian.copy(), Recipe(group=16, orders_by_use=order)).blocks(weight) for order in (True, False)
    )
    assert plain.order is None and ordered.order is not None
    by_use = np.argsort(-np.diagonal(hessian), kind="stable").reshape(8, 16)
    np.testing.assert_array_equal(ordered.order.reshape(8, 16), np.sort(by_use, axis=1))
    assert loss(ordered, weight, hessian) < loss(plain, weight, hessian)


def test_inputs_that_no_record_has_used_are_rounded_by_themselves():
    weight, hessian = layer_of(64)
    unused, used = np.array([3, 40]), np.delete(np.arange(64), [3, 40])
    hessian[unused] = hessian[:, unused] = 0
    blocks = ColumnRounding(hessian.copy(), Recipe(group=-1)).blocks(weight)
    alone = rounded_alone(weight, 4, 64, symmetric=True)
    np.testing.assert_array_equal(numbers_of(blocks)[:, unused], numbers_of(alone)[:, unused])
    assert not np.array_equal(numbers_of(blocks)[:, used], numbers_of(alone)[:, used])
    nothing = ColumnRounding(np.zeros([64, 64]), Recipe(group=-1)).blocks(weight)
    np.testing.assert_array_equal(numbers_of(nothing), numbers_of(alone))


def test_layers_of_the_same_inputs_share_a_hessian():
    weight, hessian = layer_of(64)
    rounding = ColumnRounding(hessian.copy(), Recipe(group=32))
    first, second, again = (rounding.blocks(one) for one in (weight, -weight, weight))
    np.testing.assert_array_equal(first.codes, again.codes)
    assert not np.array_equal(first.codes, second.codes)


def test_what_cannot_be_rounded_is_refused():
    weight, hessian = layer_of(32)
    recipe = Recipe(group=16)
    with pytest.raises(ValueError, match="its inputs hold NaN or infinite numbers"):
        ColumnRounding(hessian * np.inf, recipe)
    for number, problem in ((np.nan, "NaN or infinite"), (np.inf, "NaN or infinite"), (1e6, "too large for scales")):
        spoilt = weight.copy()
        spoilt[2, 5] = number
        with pytest.raises(ValueError, match=problem):
            ColumnRounding(hessian.copy(), recipe).blocks(spoilt)
        with pytest.raises(ValueError, match=problem):
            rounded_alone(spoilt, 4, 16, symmetric=True)
    with pytest.raises(ValueError, match="depend on one another too much for `damp_percent` 0.0"):
        ColumnRounding(np.ones([32, 32]), Recipe(group=16, damping=0.0)).blocks(weight)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("scale", [0, 1e-9, 1e-3, 1.0, 1e4])
def test_rounding_alone_is_off_by_half_a_step_whatever_the_size_of_numbers(scale, symmetric):
    weight = (np.random.default_rng(0).normal(size=(8, 64)) * scale).astype(np.float32)
    blocks = rounded_alone(weight, 4, 16, symmetric=symmetric)
    wide = blocks.scales[np.arange(weight.size) // 16].reshape(weight.shape)
    # At the ends a scale of float16 may not reach as far as the weights: 2 ** -11 of seven and a half steps, and of
    # symmetric codes one step less than half of the range is above zero.
    room = 1.01 if symmetric else 0.51
    assert (np.abs(numbers_of(blocks) - weight) <= room * wide).all()
    np.testing.assert_array_equal(blocks.scales, blocks.scales.astype(np.float16))


RECIPES = {
    "gptq": Recipe(group=32),
    "gptq by use": Recipe(group=16, orders_by_use=True),
    "gptq asymmetric": Recipe(group=32, symmetric=False),
    "gptq int8": Recipe(bits=8, group=64),
    "gptq int8 asymmetric by use": Recipe(bits=8, group=16, symmetric=False, orders_by_use=True),
    "gptq whole outputs": Recipe(group=-1),
    "awq": Recipe("awq", 4, 32, symmetric=False),
    "awq whole outputs": Recipe("awq", 4, -1, symmetric=False),
}


def unpacked(tensors: dict[str, np.ndarray], recipe: Recipe) -> np.ndarray:
    """Compute a weight float32[out, in] word by word, as the published formats have them."""
    words, zeros = ({name: one.astype(np.int64) & 0xFFFFFFFF for name, one in tensors.items()}[name]
                    for name in ("layer.qweight", "layer.qzeros"))  # fmt: skip
    scales = tensors["layer.scales"].astype(np.float32)
    bits, mask, held = recipe.bits, (1 << recipe.bits) - 1, 32 // recipe.bits
    outputs = scales.shape[1]
    inputs = len(words) * held if recipe.format == "gptq" else len(words)
    found = np.empty([outputs, inputs], np.float32)
    for o in range(outputs):
        for i in range(inputs):
            if recipe.format == "gptq":
                code = words[i // held, o] >> (bits * (i % held)) & mask
                group = int(tensors["layer.g_idx"][i])
                zero = zeros[group, o // held] >> (bits * (o % held)) & mask
                zero += 1 if recipe.symmetric else 0  # version 1 stores one less
            else:
                nibble = [0, 4, 1, 5, 2, 6, 3, 7][o % 8]
                code, group = words[i, o // 8] >> (4 * nibble) & 15, i // recipe.group_of(inputs)
                zero = zeros[group, o // 8] >> (4 * nibble) & 15
            found[o, i] = np.float32(code - zero) * scales[group, o]
    return found


@pytest.mark.parametrize("name", RECIPES)
def test_what_is_written_is_read_again_bit_by_bit(name, tmp_path):
    recipe = RECIPES[name]
    weight, hessian = layer_of(64)
    blocks = ColumnRounding(hessian, recipe).blocks(weight)
    tensors = taken_apart("layer", blocks, recipe.scheme)
    save_file(tensors, tmp_path / "model.safetensors")
    scheme = read_scheme({"quantization_config": recipe.published(MODULES)}, tmp_path)
    assert scheme == recipe.scheme
    (stored,) = joined(read_safetensors_file(tmp_path / "model.safetensors"), scheme)
    again = stored.blocks()
    for field in ("shape", "bits", "block"):
        assert getattr(again, field) == getattr(blocks, field)
    for field in ("codes", "values", "scales", "zeros"):
        np.testing.assert_array_equal(getattr(again, field), getattr(blocks, field), err_msg=field)
    np.testing.assert_array_equal(again.order, blocks.order) if recipe.orders_by_use else None
    np.testing.assert_array_equal(unpacked(tensors, recipe), blocks.numbers(slice(None)))
    assert {str(one.dtype) for one in tensors.values()} == {"int32", "float16"}


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith(("gptq", "awq"))])
def test_what_the_fields_own_tools_have_packed_is_written_as_they_wrote_it(name):
    scheme, theirs = scheme_of(FILES[name]), load_file(FILES[name])
    ours = taken_apart("layer", weight_in(FILES[name], scheme).blocks(), scheme)
    assert len(ours) == (3 if name == "awq_int4" else 4)
    for part, array in ours.items():
        # AutoGPTQ's layer had its scales in float32 by then; they are float16's numbers.
        assert array.dtype == theirs[part].dtype or (part.endswith("scales") and name.startswith("gptq"))
        np.testing.assert_array_equal(array, theirs[part], err_msg=part)


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"bits": 3}, "`bits` is 3; expected 4 or 8 for files of gptq"),
        ({"format": "awq", "bits": 8, "symmetric": False}, "`bits` is 8; expected 4 for files of awq"),
        ({"format": "marlin"}, "`format` is 'marlin'; expected one of gptq, awq"),
        ({"group": 0}, "`group_size` is 0; expected -1, or how many inputs share a scale"),
        ({"damping": -1.0}, "`damp_percent` is -1.0; expected a share of 0 or more"),
        ({"damping": float("nan")}, "`damp_percent` is nan"),
        ({"damping": None, "orders_by_use": True}, "`desc_act` needs a Hessian"),
        ({"format": "awq", "symmetric": False, "orders_by_use": True}, "awq's files cannot say which group"),
        ({"format": "awq"}, "`sym` is set, but awq's files say for each group which code means 0"),
    ],
)
def test_recipes_that_no_format_holds_are_refused(values, problem):
    with pytest.raises(ValueError, match=problem):
        Recipe(**values)


@pytest.mark.parametrize(
    ("outputs", "inputs", "problem"),
    [
        (
            64,
            96,
            "`group_size` 64 does not divide the 96 inputs of a.b; expected a divisor of .*, such as 32, or -1",
        ),
        (60, 64, "a.b has 64 inputs and 60 outputs, which do not fill words of 8 codes"),
    ],
)
def test_layers_that_the_format_cannot_hold_are_named(outputs, inputs, problem):
    with pytest.raises(ValueError, match=problem):
        Recipe(group=64).check_layers({"a.b": (inputs, outputs)})


def test_config_json_says_what_published_ones_say():
    found = Recipe(group=128).published(MODULES)
    published = {"bits": 4, "group_size": 128, "damp_percent": 0.1, "desc_act": False, "static_groups": False}
    published |= {"sym": True, "true_sequential": True, "quant_method": "gptq"}
    assert found.items() >= published.items() and found["checkpoint_format"] == "gptq"
    assert Recipe("awq", 4, 128, symmetric=False).published(MODULES) == {
        "bits": 4,
        "group_size": 128,
        "modules_to_not_convert": ["visual"],
        "quant_method": "awq",
        "version": "gemm",
        "zero_point": True,
    }
    assert Recipe(symmetric=False).scheme == Scheme("gptq", 4, 128)
    assert "damp_percent" not in Recipe(damping=None).published(MODULES)
    assert read_scheme({"quantization_config": Recipe(bits=8).published(MODULES)}, Path("m")) == Scheme(
        "gptq", 8, 128, True
    )
