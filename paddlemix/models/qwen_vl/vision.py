"""The vision tower of Qwen-VL: square images in, a fixed number of the language model's tokens out.

Source: Bai et al., "Qwen-VL", 2023; the blocks are those of Radford et al., "Learning Transferable Visual Models From
Natural Language Supervision", 2021.
"""

from __future__ import annotations

import paddle
from paddle import nn

from paddlemix.models.layers.linear import Linear, activated_linear
from paddlemix.models.layers.norm import LayerNorm
from paddlemix.models.layers.recompute import run_block
from paddlemix.models.qwen_vl.config import QWenVisionConfig
from paddlemix.models.qwen_vl.resampler import NORM_EPSILON, Resampler
from paddlemix.ops import Segments, linear, resize_grid, segment_attention

LEARNED_PLACES = 256  # of the table of positions, whatever the images' size


class VisionAttention(nn.Layer):
    """Full attention inside each image; query, key and value lie side by side head by head."""

    def __init__(self, config: QWenVisionConfig) -> None:
        super().__init__()
        self.head_dim = config.width // config.heads
        self.in_proj = Linear(config.width, 3 * config.width)
        self.out_proj = Linear(config.width, config.width)

    def forward(self, x: paddle.Tensor, images: Segments) -> paddle.Tensor:
        """Mix float[B, N, width] along N."""
        count, patches, _ = x.shape
        qkv = self.in_proj(x).reshape([count * patches, -1, 3, self.head_dim])
        query, key, value = qkv.unbind(axis=2)
        mixed = segment_attention(query, key, value, images)
        return self.out_proj(mixed.reshape([count, patches, -1]))


class VisionMLP(nn.Layer):
    """`c_proj(gelu(c_fc(x)))` with biases."""

    def __init__(self, size: int, inner_size: int) -> None:
        super().__init__()
        self.c_fc = Linear(size, inner_size)
        self.c_proj = Linear(inner_size, size)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Transform float[..., size]."""
        return self.c_proj(activated_linear(self.c_fc, x, "gelu"))


class VisionBlock(nn.Layer):
    """One pre-norm transformer block."""

    def __init__(self, config: QWenVisionConfig) -> None:
        super().__init__()
        self.ln_1 = LayerNorm(config.width, epsilon=NORM_EPSILON, for_products=True)
        self.ln_2 = LayerNorm(config.width, epsilon=NORM_EPSILON, for_products=True)
        self.attn = VisionAttention(config)
        self.mlp = VisionMLP(config.width, int(config.width * config.mlp_ratio))

    def forward(self, x: paddle.Tensor, images: Segments) -> paddle.Tensor:
        """Transform float[B, N, width]."""
        x = x + self.attn(self.ln_1(x), images)
        return x + self.mlp(self.ln_2(x))


class VisionBlocks(nn.Layer):
    """The blocks in their order.

    Args:
        config: of the tower.

    Attributes:
        recompute: whether training computes the blocks' activations twice and does not keep them.
    """

    recompute: bool

    def __init__(self, config: QWenVisionConfig) -> None:
        super().__init__()
        self.recompute = False
        self.resblocks = nn.LayerList([VisionBlock(config) for _ in range(config.layers)])

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Transform float[B, N, width]."""
        count, patches, _ = x.shape
        images = Segments.alike(count, patches)
        for block in self.resblocks:
            x = run_block(block, x, images, recompute=self.recompute)
        return x


class QWenVisionTower(nn.Layer):
    """Patch embedding with learned places, blocks, resampler, projection."""

    def __init__(self, config: QWenVisionConfig) -> None:
        super().__init__()
        self.config = config
        # A convolution over whole patches is one matmul on a patch's numbers.
        self.conv1 = Linear(3 * config.patch_size**2, config.width, bias_attr=False)
        self.positional_embedding = _normal_parameter(self, [LEARNED_PLACES, config.width], config.width**-0.5)
        self.ln_pre = LayerNorm(config.width, epsilon=NORM_EPSILON)
        self.transformer = VisionBlocks(config)
        self.attn_pool = Resampler(config)
        self.ln_post = LayerNorm(config.output_dim, epsilon=NORM_EPSILON, for_products=True)
        self.proj = _normal_parameter(self, [config.output_dim, config.output_dim], config.output_dim**-0.5)

    @property
    def recompute(self) -> bool:
        """Whether training computes the blocks' activations twice and does not keep them."""
        return self.transformer.recompute

    @recompute.setter
    def recompute(self, value: bool) -> None:
        self.transformer.recompute = value

    def forward(self, pixel_values: paddle.Tensor) -> paddle.Tensor:
        """Turn images into tokens.

        Args:
            pixel_values: float[images, 3, S, S], S any multiple of the patch size.

        Returns:
            float[images, n_queries, output_dim].

        Raises:
            ValueError: the images have another shape.
        """
        self._check(pixel_values)
        patches = cut_patches(pixel_values, self.config.patch_size)
        x = self.conv1(patches.astype(self.conv1.weight.dtype))
        x = self.ln_pre(x + resize_grid(self.positional_embedding, round(x.shape[1] ** 0.5)))
        return linear(self.ln_post(self.attn_pool(self.transformer(x))), self.proj)

    def _check(self, pixel_values: paddle.Tensor) -> None:
        shape, patch = pixel_values.shape, self.config.patch_size
        if len(shape) != 4 or shape[1] != 3 or shape[2] != shape[3] or shape[2] % patch or not shape[2]:
            raise ValueError(
                f"pixel_values has the shape {shape}; expected [images, 3, S, S], S a multiple of {patch}, such as "
                f"{self.config.image_size}."
            )


def cut_patches(pixel_values: paddle.Tensor, size: int) -> paddle.Tensor:
    """Cut float[B, 3, S, S] into patches row by row, float[B, (S / size)**2, 3 * size**2], each colour by colour."""
    batch, colours, side, _ = pixel_values.shape
    grid = side // size
    cut = pixel_values.reshape([batch, colours, grid, size, grid, size]).transpose([0, 2, 4, 1, 3, 5])
    return cut.reshape([batch, grid * grid, -1])


def _normal_parameter(layer: nn.Layer, shape: list[int], std: float) -> paddle.Tensor:
    return layer.create_parameter(shape, default_initializer=nn.initializer.Normal(std=std))
