"""The numbers that shape a Qwen2.5-VL, as its published config.json names them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from paddlemix.models.config_bounds import SIDE, WIDTH
from paddlemix.models.qwen2_5_vl.seconds import STEPS_KEY, steps_per_second
from paddlemix.models.qwen2_vl.config import PatchTowerConfig, Qwen2VLConfig
from paddlemix.models.tower import TowerShape
from paddlemix.value_kinds import Kind, list_of, whole

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass
class Qwen25VLVisionConfig(PatchTowerConfig):
    """The vision tower's shape; the defaults are those of the 7B model.

    Attributes:
        hidden_size: width of the tower.
        out_hidden_size: width of what leaves the merger, the language model's width.
        intermediate_size: inner width of a block's MLP.
        window_size: pixels of an attention window's side.
        fullatt_block_indexes: the blocks whose attention covers an image or frame whole.
        tokens_per_second: steps of the time axis in a second.
        output_key: the key that has the width of what leaves the merger.
        activation: of the blocks' MLPs, as the file names it.
        kinds: of the values, by key.
    """

    hidden_size: int = 1280
    out_hidden_size: int = 3584
    intermediate_size: int = 3420
    window_size: int = 112
    fullatt_block_indexes: tuple[int, ...] = (7, 15, 23, 31)
    tokens_per_second: float = 2

    output_key: ClassVar[str] = "out_hidden_size"
    activation: ClassVar[str] = "silu"
    kinds: ClassVar[Mapping[str, Kind]] = {
        **PatchTowerConfig.kinds,
        "hidden_size": WIDTH,
        "out_hidden_size": WIDTH,
        "intermediate_size": WIDTH,
        "window_size": SIDE,
        "fullatt_block_indexes": list_of(whole(0, 1023), longest=1024),
    }

    @classmethod
    def from_published(cls, values: Mapping[str, Any], *, output_size: int) -> Self:
        """Take the known keys of a published `vision_config`; see `PatchTowerConfig.from_published`."""
        return super().from_published({**values, STEPS_KEY: steps_per_second(values)}, output_size=output_size)

    @property
    def width(self) -> int:
        """Of what runs past the blocks."""
        return self.hidden_size

    @property
    def inner_size(self) -> int:
        """Inner width of a block's MLP."""
        return self.intermediate_size

    @property
    def window_side(self) -> int:
        """Merged tokens of an attention window's side."""
        return self.window_size // self.spatial_merge_size // self.patch_size


class Qwen25VLConfig(Qwen2VLConfig):
    """The whole model's shape, with the 7B model's defaults; language model and layout of the file are Qwen2-VL's."""

    model_type = "qwen2_5_vl"
    architecture = "Qwen2_5_VLForConditionalGeneration"
    vision_class = Qwen25VLVisionConfig
    context = 128000

    vision_config: Qwen25VLVisionConfig

    def _check(self) -> None:
        super()._check()
        vision = self.vision_config
        if vision.window_side < 1:
            raise ValueError(
                f"config.json: `vision_config.window_size` is {vision.window_size}, less than a merged token's "
                f"{vision.spatial_merge_size * vision.patch_size} pixels."
            )

    @property
    def tower_shape(self) -> TowerShape:
        """The numbers of the vision tower."""
        vision = self.vision_config
        return replace(
            super().tower_shape,
            full_blocks=len({index for index in vision.fullatt_block_indexes if index < vision.depth}),
            window=(vision.window_side * vision.spatial_merge_size) ** 2,
        )
