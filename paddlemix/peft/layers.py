"""The linear layer with an adapter.

Source: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021.
"""

from __future__ import annotations

from typing import Any

import paddle
from paddlenlp.peft.lora import LoRAConfig
from paddlenlp.peft.lora.lora_layers import LoRALinear as PaddleNLPLoRALinear

from paddlemix import ops
from paddlemix.models.layers.linear import Linear
from paddlemix.weights.loading import NoValues


class LoRALinear(PaddleNLPLoRALinear):
    """PaddleNLP's layer, names and initial values included, computed by `ops.linear`.

    Args:
        layer: whose weight and bias it takes over, the very same tensors.
        config: rank, scale and dropout of the adapter.
    """

    def __init__(self, layer: Linear, config: LoRAConfig) -> None:
        super().__init__(
            *layer.weight.shape,
            r=config.r,
            lora_alpha=config.lora_alpha,
            lora_dropout=config.lora_dropout,
            rslora=config.rslora,
            lora_plus_scale=config.lora_plus_scale,
            # Of all but the adapter the layer has its own already.
            weight_attr=paddle.ParamAttr(initializer=NoValues()),
            bias_attr=False,
        )
        self.weight, self.bias = layer.weight, layer.bias

    def forward(self, x: paddle.Tensor, *unused: Any, **also_unused: Any) -> paddle.Tensor:
        """Transform float[..., in] to float[..., out]."""
        del unused, also_unused  # of PaddleNLP's signature
        y = ops.linear(x, self.weight, self.bias)
        if self.disable_lora or self.merged:
            return y
        low_rank = ops.linear(self.lora_dropout(x), self.lora_A) * self.scaling
        return y + ops.linear(low_rank, self.lora_B)
