"""The CUDA ops beside PyTorch's, on one card: memory, exact gradients, and times."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from cuda_library import EPSILON, CudaOps, QuantizedWeight

# Larger than any card's second-level cache, so that memory is what is timed.
ROWS, SIZE = 16384, 4096
HEADS, HEAD_SIZE = 32, 128
LOSS_ROWS, LOSS_SIZE, VOCABULARY = 8192, 3584, 151936
# Outputs of a weight whose codes are larger too, and numbers that share a scale.
CODES_OUTPUTS, BLOCK = 65536, 64


class TorchMemory:
    """PyTorch's tensors on a card, and its current stream."""

    def __init__(self, device: str = "cuda"):
        """Compute on `device`."""
        self.device = device

    @property
    def stream(self) -> int:
        """PyTorch's own, so that what is queued here comes in order."""
        return torch.cuda.current_stream().cuda_stream

    def put(self, values: np.ndarray, dtype: str, shift: int = 0) -> torch.Tensor:
        """Copy, rounded to the dtype; the copy begins `shift` numbers after an aligned address."""
        room = self.empty([int(np.prod(values.shape)) + shift], dtype)
        room[shift:] = torch.as_tensor(np.ascontiguousarray(values)).flatten().to(self.device, room.dtype)
        return room[shift:].view(values.shape)

    def empty(self, shape: Sequence[int], dtype: str) -> torch.Tensor:
        """Make an array whose numbers nobody may rely on."""
        return torch.empty(tuple(shape), dtype=getattr(torch, dtype), device=self.device)

    def address(self, array: torch.Tensor) -> int:
        """Return the address of the first number."""
        return array.data_ptr()

    def dtype(self, array: torch.Tensor) -> str:
        """Return the name of its dtype."""
        return str(array.dtype).removeprefix("torch.")


def get(tensor: torch.Tensor) -> np.ndarray:
    """Read as float64."""
    return tensor.double().cpu().numpy()


def gradients(formula: Callable[..., list], arrays: list, constants: list, upstream: list) -> tuple[list, list]:
    """Compute values and gradients of a formula in float64."""
    tensors = [torch.tensor(array, requires_grad=True) for array in arrays]
    values = formula(*tensors, *(torch.tensor(array) for array in constants))
    grads = torch.autograd.grad(values, tensors, [torch.tensor(array) for array in upstream])
    return [get(value.detach()) for value in values], [get(grad) for grad in grads]


@dataclass(frozen=True)
class Timing:
    """One op at a size that counts.

    Attributes:
        inputs: tensors that have a gradient.
        forward: our call.
        backward: our call, with what forward saved and the upstream gradients.
        torch: the same in PyTorch, of the same inputs: its outputs.
        forward_work: bytes that must be moved, or operations of the products where `in_products`.
        backward_work: likewise.
        liger: the same in Liger-Kernel; None where it has none, or is not installed.
        in_products: what the work counts.
    """

    inputs: list[torch.Tensor]
    forward: Callable[..., tuple[list, tuple]]
    backward: Callable[..., list]
    torch: Callable[..., Any]
    forward_work: float
    backward_work: float
    liger: Callable[..., Any] | None = None
    in_products: bool = False


def timings(ops: CudaOps, dtype: str) -> dict[str, Callable[[], Timing]]:
    """Return makers, by name of the op: only one op's inputs need be held at a time.

    Of a dtype narrower than float32 there are the mixes that autocast makes too: float32 rows and weights, products and
    branches in that dtype. In PyTorch they are computed in float32 and rounded, as its autocast does.
    """
    alike = {
        "rms_norm": lambda: _norm(ops, dtype, "rms_norm"),
        "add_rms_norm": lambda: _add_norm(ops, dtype),
        "layer_norm": lambda: _norm(ops, dtype, "layer_norm"),
        "rotary": lambda: _rotary(ops, dtype),
        "swiglu": lambda: _swiglu(ops, dtype),
        "gelu": lambda: _activation(ops, dtype, 1, F.gelu),
        "quick_gelu": lambda: _activation(ops, dtype, 2, lambda x: x * torch.sigmoid(1.702 * x)),
        "linear_cross_entropy": lambda: _loss(ops, dtype, dtype),
        "quantized_linear 1 row": lambda: _quantized(ops, dtype, 1),
        "quantized_linear 8 rows": lambda: _quantized(ops, dtype, 8),
        "quantized_linear 16 rows": lambda: _quantized(ops, dtype, 16),
        "quantized_linear 2048 rows": lambda: _quantized(ops, dtype, 2048),
    }
    mixed = {
        "rms_norm mixed": lambda: _mixed_norm(ops, dtype, "rms_norm"),
        "add_rms_norm mixed": lambda: _mixed_add_norm(ops, dtype),
        "layer_norm mixed": lambda: _mixed_norm(ops, dtype, "layer_norm"),
        "linear_cross_entropy mixed": lambda: _loss(ops, dtype, "float32"),
    }
    return alike if dtype == "float32" else alike | mixed


def _random(dtype: str, *shape: int) -> torch.Tensor:
    return torch.randn(shape, device="cuda", dtype=getattr(torch, dtype)).requires_grad_()


def _liger(name: str) -> Callable[..., Any] | None:
    try:
        from liger_kernel.transformers import functional
    except ImportError:
        return None
    return getattr(functional, f"liger_{name}", None)


def _bytes(tensor: torch.Tensor, times: float) -> float:
    return times * tensor.numel() * tensor.element_size()


def _norm(ops: CudaOps, dtype: str, name: str) -> Timing:
    x, weight, bias = _random(dtype, ROWS, SIZE), _random(dtype, SIZE), _random(dtype, SIZE)
    inputs = [x, weight] if name == "rms_norm" else [x, weight, bias]
    in_torch, liger = getattr(F, name), _liger(name)
    return Timing(
        inputs,
        getattr(ops, name),
        getattr(ops, f"{name}_grad"),
        lambda x, *scales: in_torch(x, (SIZE,), *scales, eps=EPSILON),
        _bytes(x, 2),
        _bytes(x, 3),
        liger and (lambda *given: liger(*given, EPSILON)),
    )


def _add_norm(ops: CudaOps, dtype: str) -> Timing:
    x, residual, weight = _random(dtype, ROWS, SIZE), _random(dtype, ROWS, SIZE), _random(dtype, SIZE)

    def in_torch(x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return x + residual, F.rms_norm(x + residual, (SIZE,), weight, EPSILON)

    backward = ops.add_rms_norm_grad
    return Timing([x, residual, weight], ops.add_rms_norm, backward, in_torch, _bytes(x, 4), _bytes(x, 4))


def _mixed_norm(ops: CudaOps, dtype: str, name: str) -> Timing:
    x, weight, bias = _random("float32", ROWS, SIZE), _random("float32", SIZE), _random("float32", SIZE)
    inputs = [x, weight] if name == "rms_norm" else [x, weight, bias]
    in_torch = getattr(F, name)
    return Timing(
        inputs,
        partial(getattr(ops, name), result=dtype),
        getattr(ops, f"{name}_grad"),
        lambda x, *scales: in_torch(x, (SIZE,), *scales, eps=EPSILON).to(getattr(torch, dtype)),
        _bytes(x, 1.5),
        _bytes(x, 2.5),
    )


def _mixed_add_norm(ops: CudaOps, dtype: str) -> Timing:
    residual, branch, weight = _random("float32", ROWS, SIZE), _random(dtype, ROWS, SIZE), _random("float32", SIZE)

    def in_torch(residual: torch.Tensor, branch: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, ...]:
        total = residual + branch
        return total, F.rms_norm(total, (SIZE,), weight, EPSILON).to(branch.dtype)

    forward = partial(ops.add_rms_norm, result=dtype)
    work = _bytes(residual, 2) + _bytes(branch, 2), _bytes(residual, 3) + _bytes(branch, 2)
    return Timing([residual, branch, weight], forward, ops.add_rms_norm_grad, in_torch, *work)


def _rotary(ops: CudaOps, dtype: str) -> Timing:
    x = _random(dtype, ROWS, HEADS, HEAD_SIZE)
    angle = torch.rand(ROWS, HEAD_SIZE // 2, device="cuda")
    cos, sin = angle.cos(), angle.sin()
    both = [torch.cat([a, a], -1).unsqueeze(1).to(x.dtype) for a in (cos, sin)]

    def in_torch(x: torch.Tensor) -> torch.Tensor:
        first, second = x.chunk(2, dim=-1)
        return x * both[0] + torch.cat((-second, first), dim=-1) * both[1]

    return Timing([x], lambda x: ops.rotary(x, cos, sin), ops.rotary_grad, in_torch, _bytes(x, 2), _bytes(x, 2))


def _swiglu(ops: CudaOps, dtype: str) -> Timing:
    gate, up = _random(dtype, ROWS, SIZE), _random(dtype, ROWS, SIZE)

    def in_torch(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        return F.silu(gate) * up

    liger = _liger("swiglu")
    return Timing([gate, up], ops.swiglu, ops.swiglu_grad, in_torch, _bytes(gate, 3), _bytes(gate, 5), liger)


def _activation(ops: CudaOps, dtype: str, kind: int, in_torch: Callable[..., Any]) -> Timing:
    x = _random(dtype, ROWS, SIZE)
    forward = lambda x: ops.activation(kind, x)  # noqa: E731
    return Timing([x], forward, ops.activation_grad, in_torch, _bytes(x, 2), _bytes(x, 3))


def _loss(ops: CudaOps, dtype: str, weight_dtype: str) -> Timing:
    hidden, weight = _random(dtype, LOSS_ROWS, LOSS_SIZE), _random(weight_dtype, VOCABULARY, LOSS_SIZE)
    with torch.no_grad():
        weight *= 0.02
    target = torch.randint(0, VOCABULARY, (LOSS_ROWS,), device="cuda")
    scale = torch.full((LOSS_ROWS,), 1 / LOSS_ROWS, device="cuda")
    liger = _liger("fused_linear_cross_entropy")

    def forward(hidden: torch.Tensor, weight: torch.Tensor) -> tuple[list, tuple]:
        # Timed alone the loss is asked for without gradients; what both passes take is timed with them. A weight in
        # float32 is rounded at each call, as the binding does.
        choice = {"with_gradients": torch.is_grad_enabled(), "weight_grad": weight_dtype}
        return ops.linear_cross_entropy(hidden, weight.to(hidden.dtype), target, scale, transposed=True, **choice)

    def in_torch(hidden: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(F.linear(hidden, weight.to(hidden.dtype)).float(), target)

    products = 2.0 * LOSS_ROWS * LOSS_SIZE * VOCABULARY
    return Timing(
        [hidden, weight],
        forward,
        ops.linear_cross_entropy_grad,
        in_torch,
        products,
        2 * products,
        liger and (lambda hidden, weight: liger(hidden, weight.to(hidden.dtype), target)),
        in_products=True,
    )


def _quantized(ops: CudaOps, dtype: str, rows: int) -> Timing:
    """Multiply with codes of 4 bits, beside PyTorch's product with a plain weight."""
    count = CODES_OUTPUTS * SIZE
    codes = torch.randint(0, 256, (count // 2,), dtype=torch.uint8, device="cuda")
    values, scales = torch.rand(256, 2, device="cuda"), torch.rand(count // BLOCK, device="cuda")
    weight = QuantizedWeight((CODES_OUTPUTS, SIZE), BLOCK, codes, values, scales)
    x, plain = _random(dtype, rows, SIZE), _random(dtype, CODES_OUTPUTS, SIZE).detach()
    products, moved = 2.0 * rows * count, _bytes(codes, 1) + _bytes(scales, 1)
    is_large = rows > 16
    return Timing(
        [x],
        lambda x: ops.quantized_linear(x, weight),
        ops.quantized_linear_grad,
        lambda x: F.linear(x, plain),
        products if is_large else moved,
        # For the gradient the weight is put into floating point, whatever the rows.
        products if is_large else moved + _bytes(plain, 2),
        in_products=is_large,
    )


def seconds(call: Callable[[], Any], repeats: int) -> float:
    """Measure the median of `repeats` calls on the card, after three that are not counted."""
    marks = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(repeats + 3)]
    for begin, end in marks:
        begin.record()
        call()
        end.record()
    torch.cuda.synchronize()
    return float(np.median([begin.elapsed_time(end) for begin, end in marks[3:]])) / 1000


def time_ours(timing: Timing, repeats: int) -> tuple[float, float]:
    """Measure seconds of the forward pass, and of both."""
    inputs = [x.detach() for x in timing.inputs]
    outputs, _ = timing.forward(*inputs)
    upstream = [torch.ones_like(out) for out in outputs]
    with torch.no_grad():
        alone = seconds(lambda: timing.forward(*inputs), repeats)
    return alone, seconds(lambda: timing.backward(timing.forward(*inputs)[1], *upstream), repeats)


def time_theirs(timing: Timing, call: Callable[..., Any], repeats: int) -> tuple[float, float]:
    """Measure seconds of the forward pass, and of both, through autograd."""

    def forward() -> Any:
        with torch.no_grad():
            return call(*timing.inputs)

    def both() -> None:
        outputs = call(*timing.inputs)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        torch.autograd.grad(outputs, timing.inputs, [torch.ones_like(out) for out in outputs])

    return seconds(forward, repeats), seconds(both, repeats)


def copy_bandwidth(repeats: int) -> float:
    """Measure bytes a second, read and written, of copying a gigabyte."""
    source = torch.empty(2**30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.numel() / seconds(lambda: target.copy_(source), repeats)


def product_rate(dtype: str, repeats: int) -> float:
    """Measure operations a second of a product of 8192 x 8192 matrices through PyTorch."""
    x, y = (_random(dtype, 8192, 8192).detach() for _ in range(2))
    return 2 * 8192**3 / seconds(lambda: x @ y, repeats)
