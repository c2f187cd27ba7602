"""The linear layer with an adapter.

Source: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021, arXiv:2106.09685.
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
    """PaddleNLP's layer, names and initial values included, around a linear layer of ours.

    The layer inside computes what it computed before, whatever its weights are held as; its parameters and buffers are
    this layer's own too, under the names that they had.

    Args:
        layer: ours; it has `sizes`, and its parameters are no longer trained.
        config: rank, scale and dropout of the adapter.
    """

    def __init__(self, layer: Linear, config: LoRAConfig) -> None:
        super().__init__(
            *layer.sizes,
            r=config.r,
            lora_alpha=config.lora_alpha,
            lora_dropout=config.lora_dropout,
            rslora=config.rslora,
            lora_plus_scale=config.lora_plus_scale,
            # Of all but the adapter the layer inside has its own.
            weight_attr=paddle.ParamAttr(initializer=NoValues()),
            bias_attr=False,
        )
        del self.weight
        for name, parameter in layer.named_parameters(include_sublayers=False):
            setattr(self, name, parameter)
        for name, buffer in layer.named_buffers(include_sublayers=False):
            self.register_buffer(name, buffer)
        # In a tuple, and so no sublayer: parameters would have two names.
        self._base = (layer,)

    @property
    def base(self) -> Linear:
        """The layer inside."""
        return self._base[0]

    def take_off(self) -> Linear:
        """Add the product to the weight of the layer inside, in float32 and rounded once, and return that layer."""
        product = paddle.matmul(self.lora_A.astype("float32"), self.lora_B.astype("float32")) * self.scaling
        weight = self.base.weight
        weight.set_value((weight.astype("float32") + product).astype(weight.dtype))
        return self.base

    def forward(self, x: paddle.Tensor, *unused: Any, **also_unused: Any) -> paddle.Tensor:
        """Transform float[..., in] to float[..., out]."""
        del unused, also_unused  # of PaddleNLP's signature
        y = self.base(x)
        if self.disable_lora or self.merged:
            return y
        low_rank = ops.linear(self.lora_dropout(x), self.lora_A) * self.scaling
        return y + ops.linear(low_rank, self.lora_B)
