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

from paddlemix.handover import Arrays, Layout, constant_array
from paddlemix.models.base import MixModelOutput
from paddlemix.models.decoder import Decoder, Rotaries
from paddlemix.models.layers.vision_tokens import find_places
from paddlemix.models.qwen2_vl.checkpoint import weight_layout
from paddlemix.models.qwen2_vl.config import Qwen2VLConfig
from paddlemix.models.qwen2_vl.positions import TimeScale, batch_mrope_positions
from paddlemix.models.qwen2_vl.tensor_parallel import split_plan
from paddlemix.models.qwen2_vl.vision import GRIDS, Qwen2VLVisionTower
from paddlemix.models.vision_language import VISION_PLACES, Inputs, Turned, Vision, VisionLanguageModel
from paddlemix.ops import Rotary

# Names in a layout: int64[3, B, L], positions where they are not given, and int64[B, 1], where they go on.
POSITIONS, DELTAS = "positions", "rope_deltas"


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
    tower_class: ClassVar[type[Qwen2VLVisionTower]] = Qwen2VLVisionTower
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

    @classmethod
    def lay_out_own(cls, config: Qwen2VLConfig, batch: Arrays, past: int) -> dict[str, np.ndarray]:
        """Find places of images and videos, and positions where they are not given."""
        laid: dict[str, np.ndarray] = {}
        shown = [
            (token_id, batch[grids])
            for token_id, pixels, grids in (
                (config.image_token_id, "pixel_values", "image_grid_thw"),
                (config.video_token_id, "pixel_values_videos", "video_grid_thw"),
            )
            if pixels in batch
        ]
        if "position_ids" not in batch and not past:
            laid[POSITIONS], laid[DELTAS] = cls.positions(config, batch)
        if shown:
            window = config.vision_config.spatial_merge_size**2
            laid[VISION_PLACES] = np.concatenate(
                [
                    find_places(batch["input_ids"], token_id, int(grids.prod(axis=1).sum()) // window)
                    for token_id, grids in shown
                ]
            )
            all_grids = np.concatenate([grids for _, grids in shown])
            laid |= cls.tower_class.lay_out(config.vision_config, all_grids)
        return laid

    @classmethod
    def positions(cls, config: Qwen2VLConfig, batch: Arrays) -> tuple[np.ndarray, np.ndarray]:
        """Lay positions out.

        Args:
            config: of the model.
            batch: a model's inputs, without positions.

        Returns:
            int64[3, B, L], and the deltas int64[B, 1] from which they go on behind a prompt.

        Raises:
            ValueError: the tokens are not those that images and videos make, or there is nothing to lay out from.
        """
        if "input_ids" not in batch:
            raise ValueError("`position_ids` must be given with `inputs_embeds`: M-RoPE is laid out from `input_ids`.")
        return batch_mrope_positions(
            batch["input_ids"],
            *(batch.get(name) for name in ("attention_mask", "image_grid_thw", "video_grid_thw")),
            image_token_id=config.image_token_id,
            video_token_id=config.video_token_id,
            merge_size=config.vision_config.spatial_merge_size,
            video_time_scales=cls.video_time_scales(config, batch),
        )

    @classmethod
    def video_time_scales(cls, config: Qwen2VLConfig, batch: Arrays) -> Sequence[TimeScale] | None:
        """Tell how time goes on from one patch of each video to the next; None where patches are counted."""
        del config, batch  # a kin's say how long a patch lasts
        return None

    def turn(self, inputs: Inputs) -> Turned:
        """Take positions as they are given or laid out; count on behind a prompt."""
        position_ids, deltas = inputs.position_ids, inputs.own.get("rope_deltas")
        if position_ids is None and inputs.past:
            if deltas is None:
                raise ValueError("`rope_deltas` of the prefill must be given while decoding from `past_key_values`.")
            counted = paddle.arange(inputs.past, inputs.past + inputs.shape[1]).unsqueeze(0) + deltas
            position_ids = counted.unsqueeze(0).expand([3, -1, -1])
        elif position_ids is None:
            position_ids, deltas = inputs.layout.tensor(POSITIONS), inputs.layout.tensor(DELTAS)
        rotary = self._rotary(position_ids)
        return Turned(Rotaries(rotary, rotary), {} if deltas is None else {"rope_deltas": deltas})

    def look(self, inputs: Inputs) -> Vision | None:
        """Run the tower once for images and videos: ranks that train together must all run it as often."""
        shown = [
            (inputs.own[pixels], inputs.own[grids])
            for pixels, grids in (
                ("pixel_values", "image_grid_thw"),
                ("pixel_values_videos", "video_grid_thw"),
            )
            if pixels in inputs.own
        ]
        if not shown:
            return None
        pixels, grids = (one[0] if len(one) == 1 else paddle.concat(one) for one in map(list, zip(*shown, strict=True)))
        return Vision(self.visual(pixels, grids, inputs.layout), inputs.layout.tensor(VISION_PLACES))

    def look_at_nothing(self) -> paddle.Tensor:
        """Run the tower on one merged token's patches of zeros."""
        merge = self.config.vision_config.spatial_merge_size
        patches = paddle.zeros([merge**2, self.config.vision_config.patch_values])
        laid = self.tower_class.lay_out(self.config.vision_config, np.array([[1, merge, merge]]))
        layout = Layout(laid, {name: constant_array(array) for name, array in laid.items()})
        return self.visual(patches, layout.tensor(GRIDS), layout)

    def _rotary(self, position_ids: paddle.Tensor) -> Rotary:
        """Compute cosines and sines float32[B, L, head_dim / 2]; mrope_section says which axis turns each pair."""
        per_step, length = self.config.rotary
        axes = constant_array(np.repeat(np.arange(3), self.config.mrope_section))
        positions = paddle.index_select(position_ids, axes, axis=0).transpose([1, 2, 0]).astype("float32")
        angles = positions * constant_array(per_step)
        cos, sin = angles.cos(), angles.sin()
        return (cos, sin) if length == 1 else (cos * length, sin * length)
