"""Counts what transformers asks of a GPU: its ops, forward and backward, on tensors without memory.

Runs in a Python that has torch and transformers: `transformers_counts.py SPEC.json` prints JSON, as
`paddlemix_counts.py` does; weights are in bfloat16. Rows are full, so there is no mask, and positions are given: what
transformers does about either is not counted. Attention is one op, SDPA's or flash attention's; neither has a kernel
here. Liger's ops are those of its published design, which this file states: fused RMS and layer norms, M-RoPE, SwiGLU,
and the linear layer with the loss, whose rows are cut into pieces.
"""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
import transformers
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

aten = torch.ops.aten
# Makes no kernel.
SILENT = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "_local_scalar_dense", "item"}
SILENT |= {"is_same_size", "set_", "resize_", "sym_size"}
ROPE = "apply_multimodal_rotary_pos_emb"
PRODUCTS = {"mm", "addmm", "bmm", "baddbmm", "convolution", "convolution_backward"}
KERNELS = {"embedding_dense_backward": 2, "masked_scatter": 3, "native_layer_norm_backward": 2}


class Counting(TorchDispatchMode):
    """Writes down each op as [name, phase, kernels, FLOPs, bytes, is float32].

    Attributes:
        works: what was written.
        phase: of what comes.
        waits: how often the host waited for a number.
    """

    def __init__(self) -> None:
        super().__init__()
        self.works: list[list[Any]] = []
        self.phase, self.waits = "forward", 0

    def add(self, name: str, kernels: int, flops: float, moved: float, *, is_wide: bool = False) -> None:
        """Write down a kernel that torch does not know."""
        self.works.append([name, self.phase, kernels, flops, moved, is_wide])

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        name = func._schema.name.partition("::")[2]
        self.waits += name == "_local_scalar_dense"
        given, made = list(tensors((args, kwargs))), list(tensors(result))
        is_view = any(one.alias_info is not None and not one.alias_info.is_write for one in func._schema.returns)
        if name in SILENT or is_view or not made or name in ("_unsafe_view", "detach", "alias"):
            return result
        moved = sum(map(held, given)) + sum(map(held, made))
        flops = product_flops(name, args, made) if name in PRODUCTS else 0
        kernels = len(made) if name == "convolution_backward" else KERNELS.get(name, 1)
        self.works.append([name, self.phase, kernels, flops, moved, bool(flops) and made[0].dtype == torch.float32])
        return result


def tensors(tree: Any) -> Iterable[torch.Tensor]:
    """Find the tensors in nested containers."""
    if isinstance(tree, torch.Tensor):
        yield tree
    elif isinstance(tree, dict):
        yield from tensors(list(tree.values()))
    elif isinstance(tree, (list, tuple)):
        for one in tree:
            yield from tensors(one)


def held(x: torch.Tensor) -> int:
    """Count the bytes of a tensor that are read or written, those of what is spread out once."""
    return math.prod(n for n, step in zip(x.shape, x.stride(), strict=True) if step) * x.element_size()


def product_flops(name: str, args: Any, made: list[torch.Tensor]) -> float:
    """Count the FLOPs of products."""
    if name == "convolution":
        return 2 * made[0].numel() * args[1][0].numel()
    if name == "convolution_backward":
        return 2 * args[0].numel() * args[2][0].numel() * len(made)
    left = args[1] if name in ("addmm", "baddbmm") else args[0]
    return 2 * made[0].numel() * left.shape[-1]


def one_op(
    forward: Callable[..., Any], name: str, kernels: tuple[int, int], factor: float = 1.0, *, keeps: Callable[..., Any]
) -> Callable[..., Any]:
    """Make a differentiable op that torch does not know.

    Args:
        forward: makes the result of the tensors; what it computes is not counted.
        name: of the op.
        kernels: forward, backward.
        factor: FLOPs of the gradient for one of the op.
        keeps: chooses what the gradient reads, of the inputs and the results.

    Returns:
        A function of the tensors, then of the FLOPs.
    """

    class Op(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, flops: float, *given: Any) -> Any:
            with torch.utils._python_dispatch._disable_current_modes():
                results = forward(*given)
            many = results if isinstance(results, tuple) else (results,)
            ctx.save_for_backward(*keeps(given, many))
            ctx.flops, ctx.like = flops, given
            COUNTING.add(name, kernels[0], flops, sum(map(held, tensors(given))) + sum(map(held, many)))
            return results

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:
            wanted = [
                torch.empty_like(x) if asked and isinstance(x, torch.Tensor) else None
                for x, asked in zip(ctx.like, ctx.needs_input_grad[1:], strict=True)
            ]
            read = [*ctx.saved_tensors, *tensors(gradients), *tensors(wanted)]
            COUNTING.add(f"{name}_grad", kernels[1], ctx.flops * factor, sum(map(held, read)))
            return None, *wanted

    return Op.apply


def like(x: torch.Tensor, *rest: Any) -> torch.Tensor:
    """Make a result of the first input's shape."""
    del rest
    return torch.empty_like(x, memory_format=torch.contiguous_format)


COUNTING = Counting()
# The logarithms of sums, which its gradient reads too, are a number a row.
_flash = one_op(like, "flash_attention", (1, 3), 2.5, keeps=lambda given, made: (*given[:3], *made))
_rms_norm = one_op(like, "liger_rms_norm", (1, 3), keeps=lambda given, made: given[:2])
_layer_norm = one_op(like, "liger_layer_norm", (1, 5), keeps=lambda given, made: given[:3])
_swiglu = one_op(like, "liger_swiglu", (1, 1), keeps=lambda given, made: given[:2])
_rope = one_op(lambda q, k, cos, sin: (like(q), like(k)), "liger_rope", (1, 1), keeps=lambda given, made: given[2:])


def sdpa(query: Any, key: Any, value: Any, attn_mask: Any = None, *unused: Any, **options: Any) -> torch.Tensor:
    """Stand for `scaled_dot_product_attention` of [B, H, L, D]."""
    causal = options.get("is_causal", False)
    flops = 4 * query.numel() * key.shape[-2] / (2 if causal else 1)
    return _flash(flops, query, key, value)


def flash_attention(module: Any, query: Any, key: Any, value: Any, attention_mask: Any = None, **options: Any) -> Any:
    """Stand for transformers' flash attention of [B, H, L, D], whose kernel takes [B, L, H, D]."""
    del attention_mask
    query, key, value = (x.transpose(1, 2) for x in (query, key, value))
    ends, causal = options.get("cu_seq_lens_q"), options.get("is_causal", getattr(module, "is_causal", True))
    if ends is None:
        pairs = query.shape[0] * query.shape[1] * key.shape[1]
    else:
        pairs = sum(n * n for n in (ends[1:] - ends[:-1]).tolist())
        COUNTING.waits += 1  # for the longest
    flops = 4 * query.shape[2] * query.shape[3] * pairs / (2 if causal else 1)
    return _flash(flops, query, key, value), None


def put_liger_in(model: nn.Module, hidden: int) -> None:
    """Replace what Liger replaces; the head hands the hidden states on to the loss."""
    module = sys.modules[type(model).__module__]
    setattr(module, ROPE, lambda q, k, cos, sin, section: _rope(0, q, k, cos, sin))
    for layer in model.modules():
        kind = type(layer).__name__
        if kind.endswith("RMSNorm"):
            layer.forward = lambda x, layer=layer: _rms_norm(0, x, layer.weight)
        elif kind == "LayerNorm":
            layer.forward = lambda x, layer=layer: _layer_norm(0, x, layer.weight, layer.bias)
        elif kind in ("Qwen2MLP", "Qwen2_5_VLMLP"):
            layer.forward = lambda x, layer=layer: layer.down_proj(_swiglu(0, layer.gate_proj(x), layer.up_proj(x)))
    weight = model.lm_head.weight
    model.lm_head = nn.Identity()

    def loss(logits: torch.Tensor, labels: torch.Tensor, **unused: Any) -> torch.Tensor:
        return liger_loss(logits[:, :-1].reshape(-1, hidden), weight)

    model.loss_function = loss


class _LigerLoss(torch.autograd.Function):
    """The linear layer and the loss: gradients are made with the loss, rows piece by piece."""

    @staticmethod
    def forward(ctx: Any, states: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        (rows, hidden), vocabulary, number = states.shape, weight.shape[0], states.element_size()
        piece = 2 ** math.ceil(math.log2(math.ceil(rows / math.ceil(vocabulary / hidden))))
        for first in range(0, rows, piece):
            count = min(piece, rows - first)
            logits, flops = count * vocabulary * number, 2.0 * count * vocabulary * hidden
            factors = count * hidden * number + held(weight)
            COUNTING.add("liger_loss_product", 1, flops, factors + logits)
            COUNTING.add("liger_loss", 2, 0, 2 * logits)  # and a copy of the rows' losses
            COUNTING.add("liger_loss_product", 1, flops, factors + logits)
            COUNTING.add("liger_loss_product", 1, flops, logits + count * hidden * number + 2 * held(weight))
        # Zeros for both gradients and the losses; the targets are counted, the losses summed.
        COUNTING.add("liger_loss_rest", 6, 0, held(weight) + held(states) + 30.0 * rows)
        COUNTING.waits += 1
        ctx.save_for_backward(states.new_empty(states.shape), weight.new_empty(weight.shape))
        return states.new_empty([], dtype=torch.float32)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        # Whether the factor is 1 is asked on the host.
        COUNTING.add("liger_loss_grad", 2, 0, 8)
        COUNTING.waits += 1
        return tuple(ctx.saved_tensors)


def liger_loss(states: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Compute the loss of float[N, hidden] by a head's float[V, hidden]."""
    return _LigerLoss.apply(states, weight)


def make_model(spec: dict[str, Any], attention: str) -> nn.Module:
    """Make the model without memory, in bfloat16."""
    name = {"qwen2_vl": "Qwen2VL", "qwen2_5_vl": "Qwen2_5_VL"}[spec["family"]]
    config = getattr(transformers, f"{name}Config")(**spec["config"])
    config._attn_implementation = "sdpa"
    with torch.device("meta"):
        model = getattr(transformers, f"{name}ForConditionalGeneration")(config)
    for layer in (model, *model.modules()):
        if hasattr(layer, "config"):
            layer.config._attn_implementation = attention
    # Frequencies are made of the host's numbers.
    return model.to(torch.bfloat16)


def make_batch(spec: dict[str, Any]) -> dict[str, Any]:
    """Make rows that are full: no mask, and positions that are given."""
    rows, tokens, images = spec["rows"], spec["tokens"], spec["images"]
    grids = torch.tensor(images)
    empty = {"device": "meta"}
    batch = {
        "input_ids": torch.empty([rows, tokens], dtype=torch.int64, **empty),
        "labels": torch.empty([rows, tokens], dtype=torch.int64, **empty),
        "position_ids": torch.empty([3, rows, tokens], dtype=torch.int64, **empty),
    }
    patches = int(grids.prod(1).sum())
    batch["pixel_values"] = torch.empty([patches, 1176], **empty)
    batch["image_grid_thw"] = grids
    return batch


def prepare(spec: dict[str, Any], attention: str) -> nn.Module:
    """Make a model whose ops are counted from here on."""
    COUNTING.works, COUNTING.phase, COUNTING.waits = [], "forward", 0
    model = make_model(spec, attention)
    if spec["config"].get("tie_word_embeddings"):
        model.tie_weights()
    # That there are as many places as features is asked on the host; places are not known here.
    model.model.get_placeholder_mask = _placeholder_mask
    return model


def count_step(spec: dict[str, Any], attention: str, *, liger: bool) -> dict[str, Any]:
    """Count a training step."""
    model = prepare(spec, attention).train()
    parameters = list(model.parameters())
    module = sys.modules[type(model).__module__]
    rope = getattr(module, ROPE)
    if liger:
        put_liger_in(model, model.config.text_config.hidden_size)
    owned = {one.untyped_storage()._cdata for one in parameters}
    kept: dict[int, Any] = {}

    def pack(x: torch.Tensor) -> torch.Tensor:
        storage = x.untyped_storage()
        if storage._cdata not in owned:
            kept[storage._cdata] = storage  # held, so that no other gets its place
        return x

    batch = make_batch(spec)
    with COUNTING:
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            loss = model(**batch, use_cache=False).loss
        COUNTING.phase = "backward"
        loss.backward()
    setattr(module, ROPE, rope)
    return {**written(batch), "kept": sum(one.nbytes() for one in kept.values()), "parameters": sizes(parameters)}


def count_reading(spec: dict[str, Any], attention: str, mode: str) -> dict[str, Any]:
    """Count the reading of a prompt, or one more token behind it."""
    model = prepare(spec, attention).eval()
    batch = make_batch({**spec, "rows": 1, "tokens": spec["rows"] * spec["tokens"]})
    del batch["labels"]
    with torch.no_grad(), COUNTING:
        read = model(**batch, use_cache=True, logits_to_keep=1)
        if mode == "token":
            COUNTING.works, COUNTING.waits = [], 0
            length = spec["rows"] * spec["tokens"]
            batch = {"input_ids": torch.empty([1, 1], dtype=torch.int64, device="meta")}
            batch["position_ids"] = torch.empty([3, 1, 1], dtype=torch.int64, device="meta")
            model(**batch, past_key_values=read.past_key_values, cache_position=torch.tensor([length]))
    return {**written(batch), "kept": 0, "parameters": []}


def written(batch: dict[str, Any]) -> dict[str, Any]:
    """Return what was written down, like ops once, with their number."""
    works = [[*one, count] for one, count in Counter(map(tuple, COUNTING.works)).items()]
    return {"works": works, "waits": COUNTING.waits, "copies": len(batch)}


def sizes(parameters: Iterable[torch.Tensor]) -> list[int]:
    """Count each parameter's numbers."""
    return [one.numel() for one in parameters]


def _placeholder_mask(input_ids: Any, inputs_embeds: Any, image_features: Any = None, **unused: Any) -> Any:
    mask = (input_ids == 0).unsqueeze(-1).expand_as(inputs_embeds)
    mask.sum()
    COUNTING.waits += 1
    return mask, mask


def main() -> None:
    """Count what the file names."""
    with open(sys.argv[1], encoding="utf-8") as file:
        spec = json.load(file)
    make = torch.tensor
    # Numbers that the host has stay numbers, of which lengths are made.
    torch.tensor = lambda data, device=None, **options: make(data, device=None if data else device, **options)
    torch.autocast = lambda *_, **__: nullcontext()  # which knows no tensors without memory; it is switched off there
    torch.nn.functional.scaled_dot_product_attention = F.scaled_dot_product_attention = sdpa
    ALL_ATTENTION_FUNCTIONS["flash_attention_2"] = flash_attention
    cases = {}
    for attention, key in (("SDPA", "sdpa"), ("flash", "flash_attention_2")):
        for liger in (False, True):
            cases[f"step {attention}{' + Liger' if liger else ''}"] = count_step(spec, key, liger=liger)
        for mode in ("prefill", "token"):
            cases[f"{mode} {attention}"] = count_reading(spec, key, mode)
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    json.dump({"versions": versions, "cases": cases}, sys.stdout)


if __name__ == "__main__":
    main()
