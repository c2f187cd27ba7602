"""Qwen2-VL: a vision tower whose tokens stand among the text tokens of a Qwen2 decoder with M-RoPE.

Source: Wang et al., "Qwen2-VL: Enhancing Vision-Language Model's Perception of the World at Any Resolution", 2024,
arXiv:2409.12191.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import paddle
from paddle import nn

from paddlemix.models.base import MixModelOutput
from paddlemix.models.decoder import Decoder, Rotaries
from paddlemix.models.qwen2_vl.checkpoint import weight_layout
from paddlemix.models.qwen2_vl.config import Qwen2VLConfig
from paddlemix.models.qwen2_vl.positions import TimeScale, batch_mrope_positions
from paddlemix.models.qwen2_vl.tensor_parallel import split_plan
from paddlemix.models.qwen2_vl.vision import Qwen2VLVisionTower
from paddlemix.models.vision_language import Inputs, Turned, Vision, VisionLanguageModel
from paddlemix.ops import Rotary


@dataclass
class Qwen2VLOutput(MixModelOutput):
    """What a forward pass gives, and where positions go on.

    Attributes:
        rope_deltas: int64[B, 1], the next position less the tokens so far; feed it back while decoding.
    """

    rope_deltas: paddle.Tensor | None = None

    def next_inputs(self) -> dict[str, paddle.Tensor]:
        """Return the deltas, without which positions cannot go on behind an image."""
        return {} if self.rope_deltas is None else {"rope_deltas": self.rope_deltas}


class Qwen2VLForConditionalGeneration(VisionLanguageModel):
    """Vision tower, decoder and head, with the published checkpoints' parameter names."""

    config_class: ClassVar[type[Qwen2VLConfig]] = Qwen2VLConfig
    tower_class: ClassVar[type[nn.Layer]] = Qwen2VLVisionTower
    output_class = Qwen2VLOutput
    weight_layout = staticmethod(weight_layout)
    split_plan = staticmethod(split_plan)
    own_inputs: ClassVar[dict[str, str]] = {
        "pixel_values": "float[patches, patch_values] of all images of the batch, row by row",
        "pixel_values_videos": "float[patches, patch_values] of all videos",
        "image_grid_thw": "int64[images, 3], patches in time, height and width",
        "video_grid_thw": "int64[videos, 3]",
        "rope_deltas": "int64[B, 1] from the prefill, while decoding",
    }

    def __init__(self, config: Qwen2VLConfig) -> None:
        super().__init__(config)
        self.visual = self.tower_class(config.vision_config)
        self.model = Decoder(config.decoder_shape)
        self.add_head()

    @property
    def decoder(self) -> Decoder:
        """The language model."""
        return self.model

    @property
    def tower(self) -> nn.Layer:
        """What sees."""
        return self.visual

    def turn(self, inputs: Inputs) -> Turned:
        """Lay positions out from tokens and grids where they are not given; count on behind a prompt."""
        position_ids, deltas = inputs.position_ids, inputs.own.get("rope_deltas")
        if position_ids is None:
            position_ids, deltas = self.positions(inputs)
        rotary = self._rotary(position_ids)
        return Turned(Rotaries(rotary, rotary), {} if deltas is None else {"rope_deltas": deltas})

    def look(self, inputs: Inputs) -> Vision | None:
        """Run the tower once for images and videos: ranks that train together must all run it as often."""
        shown = [
            (inputs.input_ids == token_id, inputs.own[pixels], inputs.own[grids])
            for token_id, pixels, grids in (
                (self.config.image_token_id, "pixel_values", "image_grid_thw"),
                (self.config.video_token_id, "pixel_values_videos", "video_grid_thw"),
            )
            if pixels in inputs.own
        ]
        if not shown:
            return None
        places, pixels, grids = map(list, zip(*shown, strict=True))
        features = self.visual(*(one[0] if len(one) == 1 else paddle.concat(one) for one in (pixels, grids)))
        window = self.config.vision_config.spatial_merge_size**2
        return Vision(features, places, [one.shape[0] // window for one in pixels])

    def look_at_nothing(self) -> paddle.Tensor:
        """Run the tower on one merged token's patches of zeros."""
        merge = self.config.vision_config.spatial_merge_size
        patches = paddle.zeros([merge**2, self.config.vision_config.patch_values])
        return self.visual(patches, paddle.to_tensor([[1, merge, merge]]))

    def positions(self, inputs: Inputs) -> tuple[paddle.Tensor, paddle.Tensor]:
        """Lay positions out.

        Args:
            inputs: of a forward pass, without positions.

        Returns:
            int64[3, B, L], and the deltas int64[B, 1] from which they go on behind a prompt.

        Raises:
            ValueError: the tokens are not those that images and videos make, or there is nothing to lay out from.
        """
        if inputs.input_ids is None:
            raise ValueError("`position_ids` must be given with `inputs_embeds`: M-RoPE is laid out from `input_ids`.")
        if inputs.past:
            if "rope_deltas" not in inputs.own:
                raise ValueError("`rope_deltas` of the prefill must be given while decoding from `past_key_values`.")
            deltas = inputs.own["rope_deltas"]
            counted = paddle.arange(inputs.past, inputs.past + inputs.shape[1]).unsqueeze(0) + deltas
            return counted.unsqueeze(0).expand([3, -1, -1]), deltas
        optional = (inputs.attention_mask, inputs.own.get("image_grid_thw"), inputs.own.get("video_grid_thw"))
        position_ids, deltas = batch_mrope_positions(
            inputs.input_ids.numpy(),
            *(None if one is None else np.asarray(one) for one in optional),
            image_token_id=self.config.image_token_id,
            video_token_id=self.config.video_token_id,
            merge_size=self.config.vision_config.spatial_merge_size,
            video_time_scales=self.video_time_scales(inputs),
        )
        return paddle.to_tensor(position_ids), paddle.to_tensor(deltas)

    def video_time_scales(self, inputs: Inputs) -> Sequence[TimeScale] | None:
        """Tell how time goes on from one patch of each video to the next; None where patches are counted."""
        del inputs  # a kin's say how long a patch lasts
        return None

    def _rotary(self, position_ids: paddle.Tensor) -> Rotary:
        """Compute cosines and sines float32[B, L, head_dim / 2]; mrope_section says which axis turns each pair."""
        per_step, length = self.config.rotary
        axes = paddle.to_tensor(np.repeat(np.arange(3), self.config.mrope_section))
        positions = paddle.index_select(position_ids, axes, axis=0).transpose([1, 2, 0]).astype("float32")
        angles = positions * paddle.to_tensor(per_step)
        cos, sin = angles.cos(), angles.sin()
        return (cos, sin) if length == 1 else (cos * length, sin * length)
