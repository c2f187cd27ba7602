"""Paddle's private names of optimizers and sharding: those that are relied on are there, and no other file does."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import paddle
import pytest
from paddle import nn
from paddle.amp import grad_scaler
from paddle.distributed.fleet.meta_optimizers.dygraph_optimizer import hybrid_parallel_optimizer
from paddle.distributed.fleet.meta_parallel.sharding import group_sharded_optimizer_stage2, group_sharded_stage3
from paddle.optimizer import optimizer

import paddlemix
from paddlemix.distributed import paddle_seams

ROOT = Path(paddlemix.__file__).parent
SEAMS = Path(paddle_seams.__file__)
ADVICE = f"look at {SEAMS.relative_to(ROOT.parent)}, which is true for Paddle {paddle_seams.PADDLE_VERSIONS}"

# Where each name is at home.
HOMES: dict[str, tuple[object, ...]] = {
    "_inner_opt": (hybrid_parallel_optimizer,),
    "_optim": (group_sharded_stage3, group_sharded_optimizer_stage2),
    "_master_weights": (optimizer,),
    "_multi_precision": (paddle.optimizer.AdamW,),
    "_accumulators": (optimizer,),
    "_create_accumulators": (optimizer,),
    "_parameter_list": (optimizer,),
    "_grad_clip": (optimizer,),
    "_apply_decay_param_fun": (paddle.optimizer.AdamW,),
    "_append_optimize_op": (optimizer, paddle.optimizer.AdamW),
    "_finish_update": (optimizer,),
    **dict.fromkeys(
        ("_beta1", "_beta2", "_epsilon", "_weight_decay", "_amsgrad", "_lr_ratio", "_use_fusion_storage"),
        (paddle.optimizer.AdamW,),
    ),
    "_squared_l2_norm": (nn.clip,),
    "_unscale": (grad_scaler,),
    "_scale": (grad_scaler,),
    "_found_inf": (grad_scaler,),
    "_cache_found_inf": (grad_scaler,),
    "_update": (grad_scaler,),
    "_legacy_C_ops": (paddle,),
    "_group": (group_sharded_stage3, group_sharded_optimizer_stage2),
    "_rank": (group_sharded_stage3,),
    "_param2buffer": (group_sharded_stage3,),
    "_param2buffer_size": (group_sharded_stage3,),
    "_task_flow": (group_sharded_stage3,),
    "_all_gather": (group_sharded_stage3,),
    "_is_initialized": (paddle.Tensor,),
    "_numel": (paddle.Tensor,),
    "_slice": (paddle.Tensor,),
    "_share_buffer_to": (paddle.Tensor,),
    "_clear_data": (paddle.Tensor,),
}
# Names that other rooms must rely on, which nothing public gives, and why.
EXCEPTIONS = {
    ("distributed/peers.py", "_exit"): "ends a process whose main thread waits in a collective",
    ("models/replace.py", "_forward_pre_hooks"): "whether a layer may be left out",
    ("models/replace.py", "_forward_post_hooks"): "likewise",
    ("models/tensor_parallel.py", "_HYBRID_PARALLEL_GROUP"): "the groups that fleet has made",
    ("ops/tensors/built.py", "_C_ops"): "calls a custom op without the cost of its Python side",
    ("ops/tensors/built.py", "_run_custom_op"): "likewise",
    (
        "peft/layers.py",
        "_is_initialized",
    ): "whether the base has the numbers that DoRA begins with",
    ("weights/loading.py", "_share_buffer_to"): "fills a parameter without a second copy of it",
    (
        "models/layers/decoding.py",
        "_forward_pre_hooks",
    ): "whether something listens to a layer of a block, asked each token",
    ("models/layers/decoding.py", "_forward_post_hooks"): "likewise",
    ("peft/merging/trained_on.py", "_is_initialized"): "whether there are norms to look at",
}


def touched(file: Path) -> Iterator[str]:
    """The private names that a file reads or sets of something that is neither itself nor defined in it."""
    tree = ast.parse(file.read_text("utf-8"))
    own = {node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
            is_own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            is_super = isinstance(node.value, ast.Call) and ast.unparse(node.value) == "super()"
            if not (is_own or is_super or node.attr in own):
                yield node.attr


@pytest.mark.parametrize("name", HOMES)
def test_what_is_relied_on_is_there(name: str) -> None:
    for home in HOMES[name]:
        is_there = hasattr(home, name) or (
            isinstance(home, (ModuleType, type)) and home is not paddle.Tensor and f".{name}" in inspect.getsource(home)
        )
        assert is_there, f"Paddle {paddle.__version__}: {home} has no {name} any more: {ADVICE}."


def test_the_test_above_knows_all_private_names_of_the_seams() -> None:
    # The names that optimizers are asked for by text.
    assert set(touched(SEAMS)) | {"_inner_opt"} == set(HOMES)


def test_no_other_file_relies_on_a_private_name_of_paddle() -> None:
    paddles = {*HOMES, *(name for _, name in EXCEPTIONS)}
    found = {
        (file.relative_to(ROOT).as_posix(), name)
        for file in sorted(ROOT.rglob("*.py"))
        if file != SEAMS
        for name in touched(file)
        if name in paddles
    }
    assert found == set(EXCEPTIONS), f"{sorted(found ^ set(EXCEPTIONS))}: see {SEAMS.relative_to(ROOT.parent)}."
