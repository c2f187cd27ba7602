from __future__ import annotations

import subprocess
import sys

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest

from paddlemix.ops import resize_grid


@pytest.mark.parametrize(("side", "size"), [(16, 32), (4, 8), (16, 8), (3, 5), (16, 2), (1, 3)])
def test_a_grid_is_resized_as_paddles_bicubic_does(rng, side, size):
    grid = paddle.to_tensor(rng.standard_normal((side * side, 3)).astype(np.float32), stop_gradient=False)
    other = grid.detach().clone()
    other.stop_gradient = False
    found = resize_grid(grid, size)
    image = other.reshape([1, side, side, 3]).transpose([0, 3, 1, 2])
    wanted = F.interpolate(image, size=[size, size], mode="bicubic", align_corners=False)
    wanted = wanted.transpose([0, 2, 3, 1]).reshape([size * size, 3])
    assert np.abs(wanted.numpy()).max() > 0.1
    # Values reach 4; Paddle takes its weights in float32, ours are rounded once.
    np.testing.assert_allclose(found.numpy(), wanted.numpy(), atol=1e-5, rtol=0)
    upstream = paddle.to_tensor(rng.standard_normal(found.shape).astype(np.float32))
    found.backward(upstream)
    wanted.backward(upstream)
    np.testing.assert_allclose(grid.grad.numpy(), other.grad.numpy(), atol=3e-5, rtol=0)


def test_a_grid_of_the_wanted_size_is_left_alone():
    grid = paddle.ones([9, 2])
    assert resize_grid(grid, 3) is grid


def test_a_constant_stays_constant_and_its_dtype_is_kept():
    found = resize_grid(paddle.full([16, 2], 3.0, dtype="float32"), 7)
    np.testing.assert_allclose(found.numpy(), np.full((49, 2), 3.0), atol=1e-6, rtol=0)
    assert found.dtype == paddle.float32


STATIC = """
import paddle
from paddlemix.ops import resize_grid

paddle.enable_static()
program = paddle.static.Program()
with paddle.static.program_guard(program, paddle.static.Program()):
    grid = paddle.static.data("grid", [16, 8], "{held}")
    grid.stop_gradient = False
    with paddle.amp.auto_cast(True, level="{level}", dtype="bfloat16"):
        paddle.matmul(grid.transpose([1, 0]), grid)  # what autocast does to a product
        found = resize_grid(grid, 7)
    paddle.autograd.ir_backward.grad(found, grid)
for op in program.global_block().ops:
    if "matmul" in op.name():
        print(op.name().removeprefix("pd_op."), *[value.dtype for value in op.operands_source()[:2]])
print(found.dtype)
"""


@pytest.mark.parametrize(("level", "held"), [("O1", "float32"), ("O2", "bfloat16")])
def test_autocast_leaves_the_products_in_float32(level, held):
    """Paddle's own casts on a static program, which runs no kernel; in a process of its own, as it changes Paddle.

    Not in float16, for which a CPU has no matmul: even such programs ask for one.
    """
    script = STATIC.format(held=held, level=level)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    *products, dtype = done.stdout.splitlines()
    assert products == [
        "matmul paddle.bfloat16 paddle.bfloat16",
        "matmul paddle.float32 paddle.float32",
        "matmul_grad paddle.float32 paddle.float32",
    ]
    assert dtype == f"paddle.{held}"
