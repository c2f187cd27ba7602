"""Linear layers with an adapter.

Sources: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021, arXiv:2106.09685; Liu et al., "DoRA:
Weight-Decomposed Low-Rank Adaptation", 2024, arXiv:2402.09353.
"""

from __future__ import annotations

from typing import Any

import paddle
from paddle import nn
from paddlenlp.peft.lora import LoRAConfig
from paddlenlp.peft.lora.lora_layers import LoRALinear as PaddleNLPLoRALinear

from paddlemix import ops
from paddlemix.models.layers.linear import Linear
from paddlemix.peft.adapter_config import Product
from paddlemix.quantization.linear import QuantizedLinear
from paddlemix.weights.loading import NoValues, hand_over

# Rows of a weight whose squares are summed at a time, so that no float32 copy of a large one is made.
_ROWS = 1024


class LoRALinear(PaddleNLPLoRALinear):
    """PaddleNLP's layer, names and initial values included, around a linear layer of ours.

    The layer inside computes what it computed before, whatever its weights are held as; its parameters and buffers are
    this layer's own too, under the names that they had.

    Args:
        layer: ours, or one whose weight is held as codes; it has `sizes`, and its parameters are no longer trained.
        config: dropout and kind of scale of the adapter.
        product: rank and scale.
    """

    def __init__(self, layer: Linear | QuantizedLinear, config: LoRAConfig, product: Product) -> None:
        super().__init__(
            *layer.sizes,
            r=product.rank,
            lora_alpha=product.alpha,
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
    def base(self) -> Linear | QuantizedLinear:
        """The layer inside."""
        return self._base[0]

    def take_off(self) -> Linear | QuantizedLinear:
        """Make the adapter a part of the weight of the layer inside, rounded once.

        Returns:
            That layer.

        Raises:
            ValueError: the weight is held as codes.
        """
        if isinstance(self.base, QuantizedLinear):
            raise ValueError(
                "the adapter lies on weights that are held as codes, which it cannot be added to. "
                "paddlemix/tools/merge_lora_params.py makes a model of plain weights of both."
            )
        weight = self.base.weight
        weight.set_value(self._whole_weight().astype(weight.dtype))
        return self.base

    def forward(self, x: paddle.Tensor, *unused: Any, **also_unused: Any) -> paddle.Tensor:
        """Transform float[..., in] to float[..., out]."""
        del unused, also_unused  # of PaddleNLP's signature
        y = self.base(x)
        if self.disable_lora or self.merged:
            return y
        return y + self._product(self.lora_dropout(x))

    def _product(self, x: paddle.Tensor) -> paddle.Tensor:
        """Compute what the factors make of what has gone through the dropout."""
        return ops.linear(ops.linear(x, self.lora_A) * self.scaling, self.lora_B)

    def _whole_weight(self) -> paddle.Tensor:
        """Compute the weight with the adapter in it, float32[in, out]."""
        return self._sum(slice(None))

    def _sum(self, rows: slice) -> paddle.Tensor:
        """Add the product to rows of the weight, float32[rows, out]."""
        factors = (self.lora_A[rows].astype("float32"), self.lora_B.astype("float32"))
        return paddle.addmm(self.weight[rows].astype("float32"), *factors, alpha=self.scaling)


class DoRALinear(LoRALinear):
    """A layer with an adapter whose outputs have weights of a trained length each.

    The sum of weight and product says the direction of an output's weights, `lora_magnitude_vector` their length. The
    length that the sum has is computed in float32 in every pass, and no gradient runs through it, as in PEFT.

    Args:
        layer: ours; its weight is read.
        config: see `LoRALinear`.
        product: see `LoRALinear`.
    """

    def __init__(self, layer: Linear, config: LoRAConfig, product: Product) -> None:
        super().__init__(layer, config, product)
        # Whatever is no factor that starts as random learns faster with LoRA+, as in PEFT.
        attr = paddle.ParamAttr(initializer=NoValues(), learning_rate=config.lora_plus_scale)
        self.lora_magnitude_vector = self.create_parameter([layer.sizes[1]], attr=attr, dtype=self._dtype)
        if self.weight._is_initialized():
            hand_over(self._lengths().astype(self._dtype), self.lora_magnitude_vector)
        self.merged: bool = False
        # In a tuple, and so no buffer.
        self._unmerged: tuple[paddle.Tensor, ...] = ()

    def merge(self) -> None:
        """Make the adapter a part of the weight, until `unmerge`."""
        if not self.merged:
            self._unmerged = (self.weight.detach().clone(),)
            self.take_off()
            self.merged = True

    def unmerge(self) -> None:
        """Take the adapter out of the weight again."""
        if self.merged:
            self.weight.set_value(self._unmerged[0])
            self._unmerged, self.merged = (), False

    def forward(self, x: paddle.Tensor, *unused: Any, **also_unused: Any) -> paddle.Tensor:
        """Transform float[..., in] to float[..., out]; what dropout takes away is missing from the change alone."""
        del unused, also_unused  # of PaddleNLP's signature
        if self.disable_lora or self.merged:
            return self.base(x)
        is_dropped = self.training and isinstance(self.lora_dropout, nn.Dropout)
        seen = self.lora_dropout(x) if is_dropped else x
        without = ops.linear(seen, self.weight)
        factor = (self.lora_magnitude_vector.astype("float32") / self._lengths()).astype(without.dtype)
        adapted = (without + self._product(seen)) * factor
        if is_dropped:
            return self.base(x) + (adapted - without)
        bias = self.base.bias
        return adapted if bias is None else adapted + bias.astype(adapted.dtype)

    def _whole_weight(self) -> paddle.Tensor:
        return super()._whole_weight() * (self.lora_magnitude_vector.astype("float32") / self._lengths())

    @paddle.no_grad()
    def _lengths(self) -> paddle.Tensor:
        """Compute the length of each output's weights with the product added, float32[out]."""
        inputs, outputs = self.weight.shape
        squares = paddle.zeros([outputs], "float32")
        # Under automatic mixed precision products would be rounded.
        with paddle.amp.auto_cast(enable=False):
            for start in range(0, inputs, _ROWS):
                squares += self._sum(slice(start, start + _ROWS)).square().sum(axis=0)
        return squares.sqrt()
