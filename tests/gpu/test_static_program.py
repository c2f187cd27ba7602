"""What a GPU would compute in a training step, op by op: which dtypes, which shapes, which of the built ops.

The programs are made without a GPU, by a process of its own for each family.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from ..families import FAMILIES

SCRIPT = Path(__file__).with_name("static_program.py")
ROOT = SCRIPT.parents[2]
LEVELS, BATCHES, KINDS = ("O1", "O2"), ("pack", "padded", "text"), ("full", "lora", "recompute")
BUILT = [f"{level}-{batch}-{kind}-built-2" for level in LEVELS for batch in BATCHES for kind in KINDS]
# As where `external_ops` was not built.
UNBUILT = [f"{level}-{batch}-full-unbuilt-2" for level in LEVELS for batch in ("pack", "padded")]
DEEPER = "O2-pack-full-built-3"
TARGETS = 200
# Products that may be in float32, by the function that asks for them.
WIDE = {
    # The hidden states and the weight that it is given are in float32. Qwen-VL's positions are resized in it.
    "O1": {"linear_cross_entropy", "resize_grid"},
    "O2": {"resize_grid"},
}
# The gradient of those positions, of one image; no hidden states, of which there are more.
POSITIONS = [1024, 1664]
DECODER = {"rms_norm", "add_rms_norm", "rotate_pair", "swiglu", "linear_cross_entropy"}
# The built ops that a family's step asks for.
ASKED = {
    "qwen2_vl": DECODER | {"layer_norm", "rotate_split", "quick_gelu", "gelu"},
    "qwen2_5_vl": DECODER | {"rotate_split", "gelu"},
    "qwen": DECODER | {"layer_norm", "gelu"},
}
# Widths of what runs past the blocks of the decoder and the tower.
STREAMS = {"qwen2_vl": (1536, 1280), "qwen2_5_vl": (3584, 1280), "qwen": (4096, 1664)}
LEAST_ROWS = 300  # of any stream; learned positions have fewer
TOWER_HEAD = {"qwen2_vl": 80, "qwen2_5_vl": 80, "qwen": 104}

each_family = pytest.mark.parametrize("family", ASKED)


@cache
def programs(family: str) -> dict[str, dict[str, Any]]:
    """Make a family's programs."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PADDLEMIX_OPS": "reference"}
    command = [sys.executable, str(SCRIPT), family, *BUILT, *UNBUILT, DEEPER]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def of_level(family: str, level: str) -> Iterator[tuple[str, dict[str, Any]]]:
    return ((case, one) for case, one in programs(family).items() if case.startswith(level))


def test_every_family_has_its_programs():
    assert {case.model_type for case in FAMILIES} == ASKED.keys()


@each_family
@pytest.mark.parametrize("level", LEVELS)
def test_no_product_is_in_float32_but_where_named(family, level):
    for case, program in of_level(family, level):
        wide = {function for function, dtype, _ in program["products"] if dtype == "float32"}
        assert wide <= WIDE[level], case
        # Nor one that our functions do not ask for, nor a gradient; of positions there are the
        # tower's and the resampler's.
        positions = sum(count for function, _, count in program["products"] if function == "resize_grid")
        assert positions <= 2
        assert all(count <= positions for op, count in program["product_ops"].items() if op.endswith("float32")), case
        assert program["product_ops"]["matmul bfloat16"] > 0


@each_family
def test_each_parameter_gets_a_gradient_of_its_own_dtype(family):
    for case, program in programs(family).items():
        assert program["gradients_of_another_dtype"] == [], case
        assert program["without_gradient"] == [], case
        assert program["parameters"] > 0
        assert program["loss"] == "float32"


@each_family
def test_flash_attention_is_reached_in_packs_and_towers(family):
    for case, program in programs(family).items():
        _, batch, *_ = case.split("-")
        reached = {(size, causal) for size, causal, dtype, _ in program["flash"] if dtype == "bfloat16"}
        assert (TOWER_HEAD[family], False) in reached, case
        assert ((128, True) in reached) or batch == "padded", case


@each_family
def test_with_half_precision_weights_every_built_op_gets_what_it_takes(family):
    for case, program in of_level(family, "O2"):
        refused = [(op, dtypes) for op, dtypes, fits, _ in program["asked"] if not fits]
        assert refused == [], case
        wide = [(op, dtypes) for op, dtypes, *_ in program["asked"] if "float32" in dtypes]
        assert wide == [], case
        assert {op for op, *_ in program["asked"]} >= ASKED[family], case


# How often the tower's activation is asked for: by each block, and by the merger.
ACTIVATIONS = {"qwen2_vl": {"quick_gelu": 2, "gelu": 1}, "qwen2_5_vl": {"gelu": 1}, "qwen": {"gelu": 2}}


@each_family
def test_every_activation_behind_a_linear_layer_is_a_built_op(family):
    for case, program in programs(family).items():
        if "-recompute-" not in case and case != DEEPER:
            asked = [(op, count) for op, _, fits, count in program["asked"] if fits and op.endswith("gelu")]
            assert dict(asked) == ACTIVATIONS[family], case


@each_family
def test_with_half_precision_weights_no_hidden_state_becomes_float32(family):
    for case in BUILT:
        if case.startswith("O2"):
            wide = [shape for shape in programs(family)[case]["widened"] if is_stream(family, shape)]
            wide = [shape for shape in wide if shape != POSITIONS]
            assert wide == [], case


def is_stream(family: str, shape: list[int]) -> bool:
    return bool(shape) and shape[-1] in STREAMS[family] and math.prod(shape[:-1]) >= LEAST_ROWS


@each_family
def test_with_built_ops_training_never_holds_logits(family):
    for case in (*BUILT, DEEPER):
        assert programs(family)[case]["logits"] == [], case


@each_family
def test_what_the_host_hands_over_does_not_grow_with_blocks(family):
    shallow, deep = programs(family)["O2-pack-full-built-2"], programs(family)[DEEPER]
    assert sum(count for *_, count in deep["flash"]) == sum(count for *_, count in shallow["flash"]) + 2
    # The ends of samples, those of images, and those of windows where there are any.
    ends = 3 if family == "qwen2_5_vl" else 2
    for name, most in (("constants", 10), ("cumsums", 0), ("tensors_of_lengths", ends)):
        assert deep[name] == shallow[name] <= most, name


@each_family
def test_without_built_ops_only_targets_have_logits(family):
    for case in UNBUILT:
        rows = {math.prod(shape[:-1]) for _, shape in programs(family)[case]["logits"]}
        assert rows == {TARGETS}, case


@each_family
def test_the_memory_estimate_is_what_the_program_keeps(family):
    for case in BUILT:
        if "-text-" not in case:  # of text the tower sees one token, and the estimate none
            kept, estimated = programs(family)[case]["kept"], programs(family)[case]["estimated"]
            vision = [held["tower"] + held["aligner"] for held in (estimated, kept)]
            assert vision[0] == pytest.approx(vision[1], rel=0.1), case
            assert estimated["decoder"] == pytest.approx(kept["decoder"], rel=0.1), case


@each_family
def test_recomputing_keeps_the_inputs_of_blocks_alone(family):
    for level in LEVELS:
        plain, again = (programs(family)[f"{level}-pack-{kind}-built-2"]["kept"] for kind in ("full", "recompute"))
        number = 2 if level == "O2" else 4
        # Of two blocks, and of the last norm; cosines and sines, and where the samples end.
        assert again["decoder"] == 1000 * (3 * STREAMS[family][0] * number + 128 * 4) + 3 * 4
        assert again["decoder"] < plain["decoder"] / 5
        assert again["gradients"] == plain["gradients"] > 0


def test_products_are_counted_forwards_twice_backwards_and_once_more_where_they_are_repeated():
    """Of Qwen2-VL 2B with two blocks."""
    hidden, inner, width, merged = 1536, 8960, 1280, 4 * 1280
    decoder = 2 * (2 * hidden * hidden + 2 * hidden * 256 + 3 * hidden * inner)
    tower = 2 * (4 * width * width + 2 * width * 4 * width)
    merger = (merged * merged + merged * hidden) / 4
    attention = 2 * 4 * (width * (400**2 + 800**2) + hidden * (400**2 + 600**2) / 2)
    blocks = 2 * (1000 * decoder + 1200 * tower) + attention
    beside, head = 2 * 1200 * (1176 * width + merger), 2 * TARGETS * hidden * 151936
    for case, again in (("O2-pack-full-built-2", 0), ("O2-pack-recompute-built-2", blocks)):
        counted = programs("qwen2_vl")[case]["counted"]
        # The head's loss makes its gradients in the forward pass.
        assert counted["forward"]["flops"] == blocks + beside + 3 * head
        assert counted["repeated"]["flops"] == again
        # Attention's gradient has five products for two; pixels have no gradient.
        backward = 2 * (blocks - attention + beside) + 2.5 * attention - 2 * 1200 * 1176 * width
        assert counted["backward"]["flops"] == backward


@each_family
def test_fused_ops_are_counted_as_one_kernel(family):
    built, unbuilt = (programs(family)[f"O2-pack-full-{ops}-2"]["counted"] for ops in ("built", "unbuilt"))
    for phase in ("forward", "backward"):
        assert built[phase]["kernels"] < unbuilt[phase]["kernels"], phase
    # The head's loss makes its gradients in the forward pass.
    moved = [sum(one[phase]["bytes"] for phase in ("forward", "backward")) for one in (built, unbuilt)]
    assert moved[0] < moved[1]
