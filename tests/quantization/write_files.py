"""Writes tests/fixtures/quantized: linear layers packed by the field's own tools, and what these tools make of them.

Run it by a Python that has torch, transformers and safetensors, with AutoGPTQ 0.7.1, bitsandbytes 0.50.2,
compressed-tensors 0.20.1 and the sources of AutoAWQ 0.2.9 on PYTHONPATH; none of them needs a GPU for it:

    PYTHONPATH=tools:autoawq-0.2.9 python tests/quantization/write_files.py tests/fixtures/quantized

Each file holds the tensors of a layer `layer`, and `expected` float32[out, in], which is `layer(identity) - layer(0)`
by the tool's own code; its metadata hold the `quantization_config` that the tool writes into config.json.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import types
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

IN, OUT, GROUP = 128, 64, 32


def find(name: str) -> Path:
    """Find a module's file without importing the packages that it is in."""
    for folder in sys.path:
        if (Path(folder) / name).is_file():
            return Path(folder) / name
    raise FileNotFoundError(name)


def import_alone(name: str) -> types.ModuleType:
    """Import a module without what its package imports."""
    *packages, _ = name.split(".")
    for depth in range(1, len(packages) + 1):
        package = types.ModuleType(".".join(packages[:depth]))
        package.__path__ = [str(find(f"{'/'.join(packages[:depth])}/__init__.py").parent)]
        sys.modules.setdefault(package.__name__, package)
    return importlib.import_module(name)


def linear(inputs: int = IN, outputs: int = OUT, *, bias: bool = True) -> nn.Linear:
    """Make a layer in half precision whose numbers are the same each time."""
    torch.manual_seed(7)
    layer = nn.Linear(inputs, outputs, bias=bias)
    layer.weight.data = (torch.randn(outputs, inputs) * 0.1).half().float()
    if bias:
        layer.bias.data = torch.randn(outputs).half().float()
    return layer


def of_layer(layer: nn.Module, inputs: int, dtype: torch.dtype) -> torch.Tensor:
    """Read the weight that a layer computes with, float32[out, in]."""
    with torch.no_grad():
        zero = layer(torch.zeros(1, inputs, dtype=dtype))
        return (layer(torch.eye(inputs, dtype=dtype)).float() - zero.float()).T.contiguous()


def scales_and_zeros(weight: torch.Tensor, bits: int, group: int, *, symmetric: bool) -> tuple[torch.Tensor, ...]:
    """Choose a scale and a zero for each group, [out, groups]."""
    grouped = weight.reshape(weight.shape[0], -1, group)
    most = (1 << bits) - 1
    if symmetric:
        scales = grouped.abs().amax(dim=2) * 2 / most
        return scales.half().float(), torch.full_like(scales, (most + 1) // 2)
    least, largest = grouped.amin(dim=2).clamp(max=0), grouped.amax(dim=2).clamp(min=0)
    scales = ((largest - least) / most).half().float()
    return scales, (-least / scales).round()


def gptq(bits: int, *, shuffled: bool = False, symmetric: bool = True, zero_bias: bool = False) -> tuple[dict, dict]:
    """Pack by AutoGPTQ."""
    kind = import_alone("auto_gptq.nn_modules.qlinear.qlinear_cuda").QuantLinear
    layer = linear(bias=not zero_bias)
    scales, zeros = scales_and_zeros(layer.weight.data, bits, GROUP, symmetric=symmetric)
    group_of = torch.arange(IN) // GROUP
    if shuffled:
        group_of = group_of[torch.randperm(IN)]
    quantised = kind(bits, GROUP, IN, OUT, bias=True)
    codes = torch.round(layer.weight.data / scales[:, group_of]) + zeros[:, group_of]
    codes = codes.clamp(0, (1 << bits) - 1)
    layer.weight.data = (codes - zeros[:, group_of]) * scales[:, group_of]
    quantised.pack(layer, scales, zeros, group_of.to(torch.int32))
    if zero_bias:  # as its releases before March 2024 wrote
        quantised.bias = torch.zeros(OUT, dtype=torch.float16)
    tensors = dict(quantised.state_dict())
    if zero_bias:
        tensors["bias"] = quantised.bias
    config = {"quant_method": "gptq", "bits": bits, "group_size": GROUP, "desc_act": shuffled, "sym": symmetric}
    quantised.scales = quantised.scales.float()
    return tensors, config | {"expected": of_layer(quantised, IN, torch.float32)}


def awq() -> tuple[dict, dict]:
    """Pack by AutoAWQ."""
    gemm = import_alone("awq.modules.linear.gemm")
    unpack = import_alone("awq.utils.packing_utils").dequantize_gemm
    layer = linear()
    scales, zeros = scales_and_zeros(layer.weight.data, 4, GROUP, symmetric=False)
    codes = (
        torch.round(layer.weight.data / scales.repeat_interleave(GROUP, 1)) + zeros.repeat_interleave(GROUP, 1)
    ).clamp(0, 15)
    layer.weight.data = (codes - zeros.repeat_interleave(GROUP, 1)) * scales.repeat_interleave(GROUP, 1)
    quantised = gemm.WQLinear_GEMM.from_linear(
        layer, 4, GROUP, scales=scales.T.contiguous(), zeros=zeros.T.contiguous()
    )
    tensors = dict(quantised.state_dict())
    weight = unpack(tensors["qweight"], tensors["qzeros"], tensors["scales"].float(), 4, GROUP).T
    config = {"quant_method": "awq", "bits": 4, "group_size": GROUP, "version": "gemm", "zero_point": True}
    return tensors, config | {"expected": weight.float().contiguous()}


def nf4(*, double: bool, inputs: int = IN) -> tuple[dict, dict]:
    """Pack by bitsandbytes."""
    import bitsandbytes as bnb
    from bitsandbytes.functional import dequantize_4bit

    plain = linear(inputs)
    layer = bnb.nn.Linear4bit(
        inputs, OUT, bias=True, compute_dtype=torch.float32, quant_type="nf4", compress_statistics=double
    )
    layer.weight = bnb.nn.Params4bit(
        plain.weight.data, requires_grad=False, quant_type="nf4", compress_statistics=double
    )
    layer.bias.data = plain.bias.data
    layer = layer.to("cpu")
    tensors = dict(layer.state_dict())
    weight = dequantize_4bit(layer.weight.data, layer.weight.quant_state).float()
    if inputs % 64:  # which this release computes wrongly on the CPU
        codes = torch.stack([tensors["weight"] >> 4, tensors["weight"] & 15], dim=1).flatten()
        scales = tensors["weight.absmax"].repeat_interleave(64)[: codes.numel()]
        weight = (tensors["weight.quant_map"][codes.long()] * scales).reshape(OUT, inputs)
    config = {
        "quant_method": "bitsandbytes",
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": double,
    }
    return tensors, config | {"expected": weight.contiguous(), "plain": plain.weight.data}


def packed(bits: int) -> tuple[dict, dict]:
    """Pack by compressed-tensors."""
    from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32

    layer = linear()
    scales, _ = scales_and_zeros(layer.weight.data, bits, GROUP, symmetric=True)
    wide = scales.repeat_interleave(GROUP, 1)
    half = 1 << (bits - 1)
    codes = torch.round(layer.weight.data / wide).clamp(-half, half - 1)
    tensors = {
        "weight_packed": pack_to_int32(codes.to(torch.int8), bits),
        "weight_scale": scales.half(),
        "weight_shape": torch.tensor([OUT, IN]),
        "bias": layer.bias.data.half(),
    }
    weights = {"num_bits": bits, "group_size": GROUP, "strategy": "group", "symmetric": True, "type": "int"}
    config = {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights, "input_activations": None}},
    }
    return tensors, config | {"expected": codes * wide}


FILES = {
    "gptq_int4": lambda: gptq(4),
    "gptq_int4_shuffled": lambda: gptq(4, shuffled=True),
    "gptq_int8_zero_bias": lambda: gptq(8, zero_bias=True),
    "gptq_int4_asymmetric": lambda: gptq(4, symmetric=False),
    "awq_int4": awq,
    "nf4": lambda: nf4(double=False),
    "nf4_double": lambda: nf4(double=True),
    "nf4_over_rows": lambda: nf4(double=False, inputs=36),
    "packed_int4": lambda: packed(4),
    "packed_int8": lambda: packed(8),
}


def main() -> None:
    """Write the files."""
    folder = Path(sys.argv[1])
    for name, make in FILES.items():
        tensors, config = make()
        extra = {key: config.pop(key) for key in ("expected", "plain") if key in config}
        stored = {f"layer.{key}": one.contiguous() for key, one in tensors.items()} | extra
        save_file(stored, folder / f"{name}.safetensors", metadata={"quantization_config": json.dumps(config)})
        print(name, {key: (list(one.shape), str(one.dtype)) for key, one in stored.items()})


if __name__ == "__main__":
    main()
