"""What a GPU would compute in training, evaluation, a prefill and a token, op by op: dtypes, shapes, built ops.

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
from . import asked_ops

SCRIPT = Path(__file__).with_name("static_program.py")
ROOT = SCRIPT.parents[2]
LEVELS, BATCHES, KINDS = ("O1", "O2"), ("pack", "padded", "text"), ("full", "lora", "recompute")
BUILT = [f"{level}-{batch}-{kind}-built-2" for level in LEVELS for batch in BATCHES for kind in KINDS]
# As where `external_ops` was not built.
UNBUILT = [f"{level}-{batch}-full-unbuilt-2" for level in LEVELS for batch in ("pack", "padded")]
DEEPER = [f"{level}-pack-full-{ops}-3" for level in LEVELS for ops in ("built", "unbuilt")]
# Padding that a mask names, evaluation, and the answers of chats (`half`) and of evaluations within training.
MASKED = ["O1-left-full-built-2", "O2-right-full-built-2"]
READ = [
    *(f"{level}-padded-loss-built-2" for level in LEVELS),
    *(f"half-{batch}-prefill-built-2" for batch in ("padded", "left", "right")),
    "O1-left-prefill-unbuilt-2",
    "half-left-qprefill-built-2",
]
TOKENS = [f"{level}-{batch}-token-built-2" for level in ("half", "O1") for batch in ("padded", "left")]
# Of a decoder whose weights are codes; and adapters trained on it.
TOKENS += ["half-padded-qtoken-built-2", "O1-left-qtoken-built-2"]
QLORA = [f"{level}-pack-qlora-built-2" for level in LEVELS]
UNBUILT_TOKENS = [f"half-{batch}-token-unbuilt-2" for batch in ("padded", "left")]
TARGETS = 200
# Products that may be in float32, by the function that asks for them.
WIDE = {
    # Qwen-VL's positions are resized in it.
    "O1": {"resize_grid"},
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
# Linear layers of two blocks of the decoder.
LAYERS = {"qwen2_vl": 14, "qwen2_5_vl": 14, "qwen": 10}
# Widths of what runs past the blocks of the decoder and the tower.
STREAMS = {"qwen2_vl": (1536, 1280), "qwen2_5_vl": (3584, 1280), "qwen": (4096, 1664)}
LEAST_ROWS = 300  # of any stream; learned positions have fewer
TOWER_HEAD = {"qwen2_vl": 80, "qwen2_5_vl": 80, "qwen": 104}

each_family = pytest.mark.parametrize("family", ASKED)


@cache
def programs(family: str) -> dict[str, dict[str, Any]]:
    """Make a family's programs."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PADDLEMIX_OPS": "reference"}
    read = (*READ, *TOKENS, *UNBUILT_TOKENS)
    command = [sys.executable, str(SCRIPT), family, *BUILT, *UNBUILT, *DEEPER, *MASKED, *QLORA, *read]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def of_level(family: str, level: str) -> Iterator[tuple[str, dict[str, Any]]]:
    return ((case, one) for case, one in trained(family) if case.startswith(level))


def trained(family: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Tell of the programs of training steps."""
    read = {*READ, *TOKENS, *UNBUILT_TOKENS}
    return ((case, one) for case, one in programs(family).items() if case not in read)


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
    for case, program in trained(family):
        assert program["gradients_of_another_dtype"] == [], case
        assert program["without_gradient"] == [], case
        assert program["parameters"] > 0
        assert program["loss"] == "float32"


@each_family
def test_flash_attention_is_reached_in_packs_padded_batches_prefills_and_towers(family):
    tower = {(TOWER_HEAD[family], False)} | ({(128, False)} if family == "qwen" else set())  # and the resampler
    for case, program in programs(family).items():
        if case not in {*TOKENS, *UNBUILT_TOKENS}:
            reached = {(size, causal) for size, causal, dtype, _ in program["flash"] if dtype == "bfloat16"}
            assert reached == tower | {(128, True)}, case


@each_family
def test_no_program_holds_scores(family):
    for case, program in programs(family).items():
        assert program["scores"] == [], case


@each_family
def test_a_token_is_attended_to_the_cache_where_it_lies(family):
    for case in TOKENS:
        assert programs(family)[case]["cached"] == 2 and programs(family)[case]["flash"] == [], case
    for case in UNBUILT_TOKENS:
        program = programs(family)[case]
        assert program["flash"] == [[128, False, "bfloat16", 2]], case
        # Where queries and keys of all rows begin and end is said once for both blocks.
        assert program["tensors_of_lengths"] == 2, case


@each_family
@pytest.mark.parametrize("level", LEVELS)
def test_every_built_op_gets_what_it_takes(family, level):
    for case, program in of_level(family, level):
        refused = [(op, dtypes) for op, dtypes, fits, _ in program["asked"] if not fits]
        assert refused == [], case
        assert {op for op, *_ in program["asked"]} >= ASKED[family], case


@each_family
def test_with_half_precision_weights_every_built_op_gets_nothing_else(family):
    for case, program in of_level(family, "O2"):
        wide = [(op, dtypes) for op, dtypes, *_ in program["asked"] if "float32" in dtypes]
        assert wide == [], case


@each_family
def test_under_autocast_a_float32_residual_and_a_narrower_branch_meet_in_one_op(family):
    for case, program in of_level(family, "O1"):
        found = {dtypes for op, dtypes, *_ in program["asked"] if op == "add_rms_norm"}
        assert found == {"float32 bfloat16 float32"}, case


@each_family
def test_weights_of_codes_are_multiplied_by_the_built_op_and_are_in_no_program_in_floating_point(family):
    cases = [case for case in programs(family) if case.split("-")[2].startswith("q")]
    assert len(cases) == 5
    for case in cases:
        program = programs(family)[case]
        asked = [[dtypes, fits, count] for op, dtypes, fits, count in program["asked"] if op == "quantized_linear"]
        assert asked == [["bfloat16", True, LAYERS[family]]], case
        assert ["quantized_linear", "bfloat16", LAYERS[family]] in program["products"], case
        assert program["unpacked"] == [], case


@each_family
def test_adapters_on_weights_of_codes_take_the_products_of_adapters_on_plain_ones(family):
    plain, codes = (programs(family)[f"O2-pack-{kind}-built-2"]["counted"] for kind in ("lora", "qlora"))
    for phase in ("forward", "backward"):
        assert codes[phase]["flops"] == plain[phase]["flops"] > 0, phase
    if family == "qwen2_vl":
        # Each weight is put into floating point before its product; the biases of three layers a block are written.
        assert codes["forward"]["kernels"] == plain["forward"]["kernels"] + 2 * (7 + 3)
        assert codes["backward"]["kernels"] == plain["backward"]["kernels"] + 2 * 7


# How often the tower's activation is asked for: by each block, and by the merger.
ACTIVATIONS = {"qwen2_vl": {"quick_gelu": 2, "gelu": 1}, "qwen2_5_vl": {"gelu": 1}, "qwen": {"gelu": 2}}


@each_family
def test_every_activation_behind_a_linear_layer_is_a_built_op(family):
    for case, program in trained(family):
        if "-recompute-" not in case and case not in DEEPER:
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
    for case in (*BUILT, *DEEPER):
        if "-built-" in case:
            assert programs(family)[case]["logits"] == [], case


@each_family
def test_what_the_host_hands_over_does_not_grow_with_blocks(family):
    shallow, deep = (programs(family)[f"O2-pack-full-built-{blocks}"] for blocks in (2, 3))
    assert sum(count for *_, count in deep["flash"]) == sum(count for *_, count in shallow["flash"]) + 2
    # The ends of samples, those of images, and those of windows where there are any.
    ends = 3 if family == "qwen2_5_vl" else 2
    for name, most in (("cumsums", 0), ("tensors_of_lengths", ends)):
        assert deep[name] == shallow[name] <= most, name


@each_family
def test_a_step_needs_nothing_of_the_host_but_its_batch(family):
    # Nor can a program wait: its values have no numbers, and asking for one is an error.
    for case, program in programs(family).items():
        # Where padding stands on the left, and in a cache, once for all blocks: the ends of queries, and of keys.
        ends = 2 if case in UNBUILT_TOKENS else 1 if "-left-" in case else 0
        assert program["constants"] == ends, case


@each_family
@pytest.mark.parametrize("level", LEVELS)
def test_the_page_says_which_dtypes_built_ops_are_asked_with(family, level):
    told = asked_ops.read_page()[family, level]
    for batch in BATCHES[:2]:
        asked = programs(family)[f"{level}-{batch}-full-built-2"]["asked"]
        assert asked_ops.asked_of(asked) == told, asked_ops.ADVICE


@each_family
def test_without_built_ops_only_targets_have_logits(family):
    for case in UNBUILT:
        rows = {math.prod(shape[:-1]) for _, shape in programs(family)[case]["logits"]}
        assert rows == {TARGETS}, case


# Of a decoder's block: hidden size, width of keys, inner width. Of a tower's: width, inner width.
WIDTHS = {
    "qwen2_vl": ((1536, 256, 8960), (1280, 5120)),
    "qwen2_5_vl": ((3584, 512, 18944), (1280, 3420)),
    "qwen": ((4096, 4096, 11008), (1664, 8192)),
}
SEEN, PATCHES = 1000, {"qwen2_vl": 1200, "qwen2_5_vl": 1200, "qwen": 2048}


def least_kept(family: str, level: str, where: str, ops: str) -> int:
    """Count what no backward pass through a block can do without: what products multiply, norms normalise, attention
    mixes and gives, and activations are computed from. In half precision but for residuals in float32.

    Where one layer gives queries, keys and values, values are a view that keeps all of it beside the turned queries and
    keys; but for the built op that takes the three apart.
    """
    (hidden, keys, inner), (width, tower_inner) = WIDTHS[family]
    if where == "decoder":
        halves = 2 * hidden + 2 * hidden + 2 * keys + 3 * inner + (2 * hidden if family == "qwen" else 0)
        return SEEN * (2 * halves + 2 * hidden * (4 if level == "O1" else 2))
    viewed = 2 * width if family != "qwen" and ops == "unbuilt" else 0
    halves = 2 * width + 4 * width + viewed + (3 if family == "qwen2_5_vl" else 2) * tower_inner
    return PATCHES[family] * (2 * halves + 2 * width * (4 if level == "O1" and family == "qwen" else 2))


@each_family
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("ops", ["built", "unbuilt"])
def test_a_block_keeps_what_no_backward_pass_can_do_without(family, level, ops):
    shallow, deep = (programs(family)[f"{level}-pack-full-{ops}-{blocks}"]["kept"] for blocks in (2, 3))
    for where in ("decoder", "tower"):
        kept, least = deep[where] - shallow[where], least_kept(family, level, where, ops)
        print(f"{family} {level} {ops}, {where}: a block keeps {kept / 1e6:.1f} MB, {kept / least:.3f} times the least")
        # Norms and attention keep a number a row, or two, beside.
        assert 1 <= kept / least < 1.01


def kept_of(program: dict[str, Any], *parts: str) -> int:
    """Count the bytes that parts keep, copies of their weights in half precision among them."""
    return sum(held for name, held in program["kept"].items() if name.removesuffix(" weights") in parts)


@each_family
def test_the_memory_estimate_is_what_the_program_keeps(family):
    for case in BUILT:
        if "-text-" not in case:  # of text the tower sees one token, and the estimate none
            program, estimated = programs(family)[case], programs(family)[case]["estimated"]
            vision = estimated["tower"] + estimated["aligner"]
            assert vision == pytest.approx(kept_of(program, "tower", "aligner"), rel=0.1), case
            assert estimated["decoder"] == pytest.approx(kept_of(program, "decoder"), rel=0.1), case


@each_family
def test_recomputing_keeps_the_inputs_of_blocks_alone(family):
    for level in LEVELS:
        plain, again = (programs(family)[f"{level}-pack-{kind}-built-2"]["kept"] for kind in ("full", "recompute"))
        number = 2 if level == "O2" else 4
        # Of two blocks, and of the last norm; cosines and sines.
        assert again["decoder"] == SEEN * (3 * STREAMS[family][0] * number + 128 * 4)
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
