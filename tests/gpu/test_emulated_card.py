"""Training steps of small models in half precision, with the branches for GPUs taken, beside the same in float32.

Every family takes them in a process of its own, with the built ops and without: their kernels and Paddle's bindings are
compiled for the host. What the emulation says of dtypes, Paddle's own static programs say too.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import paddle
import pytest

from ..families import FAMILIES
from . import asked_ops, host_ops

SCRIPT = Path(__file__).with_name("emulated_step.py")
ROOT = SCRIPT.parents[2]
FAMILY_NAMES = [case.model_type for case in FAMILIES]
# What rounding does to a loss and to gradients: less is none, more is a mistake.
LARGEST = {"loss": 1e-3, "gradient": 0.05, "logits": 0.03}
LEAST = {"bfloat16": 1e-3, "float16": 1e-4}
# Linear layers of two blocks of a decoder.
PRODUCTS = {"qwen2_vl": 14, "qwen2_5_vl": 14, "qwen": 10}
TOWER_HEAD = {"qwen2_vl": 80, "qwen2_5_vl": 80, "qwen": 104}

each_family = pytest.mark.parametrize("family", FAMILY_NAMES)
with_ops = pytest.mark.skipif(bool(host_ops.reason_not_to()), reason=host_ops.reason_not_to())


@cache
def _found(library: str) -> dict[str, dict[str, Any]]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PADDLEMIX_OPS": "reference"}
    command = [sys.executable, "-W", "ignore", str(SCRIPT), library, *FAMILY_NAMES]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _of_family(found: dict[str, Any], family: str) -> dict[str, Any]:
    return {case.removeprefix(f"{family}-"): one for case, one in found.items() if case.partition("-")[0] == family}


@pytest.fixture
def steps(library: str, family: str) -> dict[str, dict[str, Any]]:
    """The steps of a family, by case: batch-level-dtype-ops."""
    return _of_family(_found(library)["steps"], family)


@pytest.fixture
def answers(library: str, family: str) -> dict[str, list[float]]:
    """How far logits are from those in float32, of prompts and of two more tokens, by case: rows-ops."""
    return _of_family(_found(library)["answers"], family)


@pytest.fixture
def adapted(library: str, family: str) -> dict[str, dict[str, Any]]:
    """Steps that train adapters on weights of codes, by case: level-dtype."""
    return _of_family(_found(library)["adapted"], family)


@each_family
def test_losses_are_those_of_float32_but_for_rounding(steps, family):
    assert len(steps) == (4 if host_ops.reason_not_to() else 10)
    for case, step in steps.items():
        assert step["loss_dtype"] == "float32"
        assert step["loss"] != step["float32_loss"], case  # or nothing was rounded
        assert step["loss"] == pytest.approx(step["float32_loss"], rel=LARGEST["loss"]), case


@each_family
def test_gradients_are_those_of_float32_but_for_rounding_and_of_their_parameters_dtype(steps, family):
    for case, step in steps.items():
        assert step["gradients_of_another_dtype"] == [], case
        assert len(step["distances"]) > 30
        least = LEAST[case.split("-")[2]]
        for name, distance in step["distances"].items():
            norm = step["float32_norms"][name]
            assert norm > 1e-3, (case, name)
            assert least * norm < distance < LARGEST["gradient"] * norm, (case, name)


@each_family
def test_flash_attention_is_asked_for_what_its_kernel_takes(steps, family):
    for case, step in steps.items():
        batch, _, dtype, _ = case.split("-")
        asked = {(size, causal) for _, size, causal, of, _ in step["flash"] if of == dtype}
        assert (TOWER_HEAD[family], False) in asked, case
        assert (128, True) in asked or batch == "padded", case


@with_ops
@each_family
def test_built_ops_compute_wherever_they_are_asked_for_one_dtype(steps, family):
    for case, step in steps.items():
        if case.endswith("-built"):
            taken = {op for op, _, takes, _ in step["asked"] if takes}
            assert {"rms_norm", "rotate_pair", "swiglu", "gelu"} <= taken or "-O1-" in case, case
            refused = [(op, dtypes) for op, dtypes, takes, _ in step["asked"] if not takes]
            assert all(len(set(dtypes.split())) > 1 for _, dtypes in refused), case
            assert refused == [] or "-O1-" in case, case


@with_ops
@each_family
def test_the_page_says_which_dtypes_built_ops_are_asked_with(steps, family):
    told = asked_ops.read_page()
    for case, step in steps.items():
        _, level, dtype, ops = case.split("-")
        if dtype == "bfloat16" and ops == "built":
            assert asked_ops.asked_of(step["asked"]) == told[family, level], asked_ops.ADVICE


@each_family
def test_adapters_on_weights_of_codes_learn_what_they_learn_in_float32_but_for_rounding(adapted, family):
    assert adapted.keys() == {"O2-bfloat16", "O1-float16"}
    for case, step in adapted.items():
        least = LEAST[case.split("-")[1]]
        assert step["loss"] == pytest.approx(step["float32_loss"], rel=LARGEST["loss"]), case
        assert step["gradients_of_another_dtype"] == []
        assert len(step["distances"]) == PRODUCTS[family] * 2  # of each layer's two factors, and of nothing else
        for name, distance in step["distances"].items():
            norm = step["float32_norms"][name]
            assert norm > 1e-2 and least * norm < distance < LARGEST["gradient"] * norm, (case, name)


@with_ops
@each_family
def test_products_with_weights_of_codes_are_the_built_ops_own(adapted, family):
    for case, step in adapted.items():
        dtype = case.split("-")[1]
        asked = [(dtypes, takes, count) for op, dtypes, takes, count in step["asked"] if op == "quantized_linear"]
        assert asked == [(dtype, True, PRODUCTS[family])], case


@each_family
def test_logits_of_weights_of_codes_are_those_of_float32_but_for_rounding(library, family):
    distances = _of_family(_found(library)["answers_of_codes"], family)["logits"]
    assert len(distances) == 3
    assert all(LEAST["bfloat16"] < distance < LARGEST["logits"] for distance in distances), distances


@with_ops
def test_a_program_knows_the_shapes_and_dtypes_of_a_product_with_a_weight_of_codes(library):
    paddle.utils.cpp_extension.extension_utils.load_op_meta_info_and_register_op(library)
    paddle.enable_static()
    try:
        with paddle.static.program_guard(paddle.static.Program(), paddle.static.Program()):
            data = paddle.static.data
            x = data("x", [2, -1, 640], "bfloat16")
            x.stop_gradient = False
            weight = [data("codes", [64 * 320], "uint8"), data("values", [256, 2], "float32")]
            weight += [data("scales", [640], "float32"), data("zeros", [0], "float32")]
            bias = data("bias", [64], "bfloat16")
            name = "paddlemix_cuda_quantized_linear"
            y = paddle._C_ops._run_custom_op(name, x, *weight, bias, 64, 640, 64)[0]
            (gradient,) = paddle.static.gradients([y], [x])
            found = [(list(one.shape), one.dtype) for one in (y, gradient)]
    finally:
        paddle.disable_static()
    assert found == [([2, -1, 64], paddle.bfloat16), ([2, -1, 640], paddle.bfloat16)]


@each_family
def test_logits_of_prompts_and_of_what_follows_are_those_of_float32_but_for_rounding(answers, family):
    assert len(answers) == (2 if host_ops.reason_not_to() else 4)
    for case, distances in answers.items():
        assert len(distances) == 3
        assert all(LEAST["bfloat16"] < distance < LARGEST["logits"] for distance in distances), (case, distances)
