"""The tiny models of each family that the reference implementation computes; needs torch and transformers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from reference_batches import BATCHES, CLIP, FILM, IMAGE_A, SECONDS, TALL, TIMED_BATCHES, WIDE, Grid
from reference_numbers import Model
from transformers import (
    PretrainedConfig,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLModel,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
)

FIXTURES = Path(__file__).parents[1] / "fixtures"
VISION = {"in_channels": 3, "patch_size": 4, "spatial_merge_size": 2, "temporal_patch_size": 2}


@dataclass(frozen=True)
class ReferenceFamily:
    """A family that is compared with the reference implementation.

    Attributes:
        folder: of its fixtures.
        config_class: of the reference implementation.
        model_class: likewise.
        batches: layouts by name.
        vision_grids: what the tower alone sees.
        output_key: of the vision config, the width of what leaves the merger.
        variants: the tiny models by name.
        sorts_patches: whether patches leave the tower's last block in another order than they came in.
        seconds: that patches of random videos last; none of a family whose time axis counts patches.
    """

    folder: str
    config_class: type[PretrainedConfig]
    model_class: type[Model]
    batches: dict[str, tuple[list[list], str]]
    vision_grids: list[Grid]
    output_key: str
    variants: dict[str, dict[str, Any]]
    sorts_patches: bool = False
    seconds: tuple[float, ...] = ()

    @property
    def root(self) -> Path:
        """Where its fixtures lie."""
        return FIXTURES / self.folder


def without_the_cast(get_rope_index: Callable) -> Callable:
    """Take a fault out of 4.57.6: it casts `second_per_grid_ts` to whole seconds before it multiplies by them.

    The function's only use of `torch.as_tensor` is that cast. Everything else about its positions is right, as Qwen's
    own training code lays them out: patch times seconds times `tokens_per_second` in floating point, cut after that,
    and text goes on behind the largest. transformers mended it after 5.24 (PR 48669).
    """

    def mended(*inputs: Any, **named: Any) -> Any:
        with mock.patch.object(torch, "as_tensor", lambda value, **_: value):
            return get_rope_index(*inputs, **named)

    return mended


Qwen2_5_VLModel.get_rope_index = without_the_cast(Qwen2_5_VLModel.get_rope_index)

QWEN2_VL = ReferenceFamily(
    folder="qwen2_vl_tiny",
    config_class=Qwen2VLConfig,
    model_class=Qwen2VLForConditionalGeneration,
    batches=BATCHES,
    vision_grids=[IMAGE_A, (1, 8, 2), CLIP],
    output_key="hidden_size",
    variants={
        # Grouped query heads.
        "tied": {
            "text": {"hidden_size": 48, "intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2},
            "sections": [1, 2, 3],
            "vision": {"depth": 2, "embed_dim": 32, "num_heads": 2, "mlp_ratio": 2},
            "tied": True,
            "seed": 30,
        },
        # A key head for every query head.
        "untied": {
            "text": {"hidden_size": 32, "intermediate_size": 40, "num_attention_heads": 2, "num_key_value_heads": 2},
            "sections": [2, 3, 3],
            "vision": {"depth": 2, "embed_dim": 16, "num_heads": 2, "mlp_ratio": 4},
            "tied": False,
            "seed": 48,
        },
        # One key head for all query heads; another depth, rotary base and epsilon than the published ones.
        "one_key_head": {
            "text": {
                "hidden_size": 24,
                "intermediate_size": 32,
                "num_attention_heads": 4,
                "num_key_value_heads": 1,
                "num_hidden_layers": 3,
                "rope_theta": 1e4,
                "rms_norm_eps": 1e-2,
            },
            "sections": [1, 1, 1],
            "vision": {"depth": 2, "embed_dim": 16, "num_heads": 4, "mlp_ratio": 2},
            "tied": True,
            "seed": 3,
        },
    },
)
QWEN2_5_VL = ReferenceFamily(
    folder="qwen2_5_vl_tiny",
    config_class=Qwen2_5_VLConfig,
    model_class=Qwen2_5_VLForConditionalGeneration,
    batches=TIMED_BATCHES,
    vision_grids=[TALL, WIDE, FILM],
    output_key="out_hidden_size",
    variants={
        # Windows of 2 x 2 merged tokens in the outer blocks, the whole image in the middle one.
        "tied": {
            "text": {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2},
            "sections": [1, 1, 2],
            "vision": {
                "depth": 3,
                "hidden_size": 24,
                "intermediate_size": 28,
                "num_heads": 2,
                "window_size": 16,
                "fullatt_block_indexes": [1],
                "tokens_per_second": 2,
            },
            "tied": True,
            "seed": 4,
        },
        # Windows of 3 x 3; a step of the time axis that is no power of two of a second.
        "untied": {
            "text": {"hidden_size": 32, "intermediate_size": 40, "num_attention_heads": 2, "num_key_value_heads": 2},
            "sections": [2, 3, 3],
            "vision": {
                "depth": 3,
                "hidden_size": 16,
                "intermediate_size": 36,
                "num_heads": 2,
                "window_size": 24,
                "fullatt_block_indexes": [2],
                "tokens_per_second": 5,
            },
            "tied": False,
            "seed": 21,
        },
        # Windows that no whole number of merged tokens fills: 2 x 2 of them; one block of four sees whole images.
        "one_key_head": {
            "text": {
                "hidden_size": 24,
                "intermediate_size": 32,
                "num_attention_heads": 4,
                "num_key_value_heads": 1,
                "num_hidden_layers": 3,
                "rope_theta": 1e4,
                "rms_norm_eps": 1e-2,
            },
            "sections": [1, 1, 1],
            "vision": {
                "depth": 4,
                "hidden_size": 16,
                "intermediate_size": 20,
                "num_heads": 4,
                "window_size": 20,
                "fullatt_block_indexes": [0],
                "tokens_per_second": 4,
            },
            "tied": True,
            "seed": 264,
        },
    },
    sorts_patches=True,
    seconds=SECONDS,
)
FAMILIES = {family.folder: family for family in (QWEN2_VL, QWEN2_5_VL)}
