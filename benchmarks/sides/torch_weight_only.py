"""torch's own products with quantised weights on the CPU; what they multiply stays in float32."""

from __future__ import annotations

import torch


class Int8Linear(torch.nn.Module):
    """torch's product with weights of 8 bits; each output has a scale."""

    def __init__(self, layer: torch.nn.Linear) -> None:
        super().__init__()
        self.bias = layer.bias
        self.scales = layer.weight.detach().abs().amax(dim=1) / 127
        self.codes = (layer.weight.detach() / self.scales[:, None]).round().to(torch.int8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Transform float[..., in] to float[..., out]."""
        y = torch._weight_int8pack_mm(x.flatten(0, -2), self.codes, self.scales).unflatten(0, x.shape[:-1])
        return y if self.bias is None else y + self.bias


class Int4Linear(torch.nn.Module):
    """torch's product with weights of 4 bits; 128 inputs of an output, 32 of short ones, share a scale and a zero."""

    def __init__(self, layer: torch.nn.Linear) -> None:
        super().__init__()
        self.bias = layer.bias
        self.group = 128 if layer.in_features % 128 == 0 else 32
        groups = layer.weight.detach().unflatten(1, (-1, self.group))
        least, most = groups.amin(dim=2).clamp(max=0), groups.amax(dim=2).clamp(min=0)
        scales = (most - least) / 15
        codes = ((groups - least[..., None]) / scales[..., None]).round().clamp(0, 15).to(torch.int32).flatten(1)
        self.codes = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 1)
        # What code 8 stands for beside the scale.
        self.scales = torch.stack([scales, least + 8 * scales], dim=2).transpose(0, 1).contiguous()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Transform float[..., in] to float[..., out]."""
        product = torch.ops.aten._weight_int4pack_mm_for_cpu
        y = product(x.flatten(0, -2), self.codes, self.group, self.scales).unflatten(0, x.shape[:-1])
        return y if self.bias is None else y + self.bias


# What torch multiplies without quantising activations.
WEIGHT_ONLY = {"int8": Int8Linear, "int4": Int4Linear}
