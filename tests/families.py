"""The families, as tests see them: whoever adds one adds a row here, and everything in `test_families.py` holds it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest


@dataclass(frozen=True)
class FamilyCase:
    """A family under test.

    Attributes:
        model_type: of its config.json, by which the registry knows it.
        checkpoint: the fixture with the folder of a tiny model, its tokenizer and processor files beside it.
        shared_by_two: what its config.json says otherwise where two ranks are to share it evenly.
    """

    model_type: str
    checkpoint: str
    shared_by_two: Mapping[str, Any] = field(default_factory=dict)

    def folder(self, request: pytest.FixtureRequest) -> Path:
        """Return the tiny checkpoint's folder."""
        return request.getfixturevalue(self.checkpoint)

    def folder_for_two(self, request: pytest.FixtureRequest, folder: Path) -> Path:
        """Make a checkpoint that two ranks can share.

        Args:
            request: of the test.
            folder: where there is nothing yet.

        Returns:
            The folder.
        """
        return self.changed_folder(request, folder, self.shared_by_two)

    def changed_folder(self, request: pytest.FixtureRequest, folder: Path, changes: Mapping[str, Any]) -> Path:
        """Make a checkpoint of another shape.

        Args:
            request: of the test.
            folder: where there is nothing yet.
            changes: what its config.json says otherwise.

        Returns:
            The folder.
        """
        import paddle

        from paddlemix.models.registry import find_family

        shutil.copytree(self.folder(request), folder)
        family = find_family(folder)
        values = json.loads((folder / "config.json").read_text("utf-8"))
        paddle.seed(0)
        family.model_class(family.config_class(**_changed(values, changes))).save_pretrained(folder)
        return folder


FAMILIES = (
    FamilyCase(
        "qwen2_vl",
        "tiny_checkpoint",
        # Four heads that ask, and two groups of keys.
        {
            "hidden_size": 64,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "vision_config": {"hidden_size": 64},
        },
    ),
    FamilyCase(
        "qwen2_5_vl",
        "tiny_qwen2_5_vl",
        {
            "hidden_size": 64,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "vision_config": {"out_hidden_size": 64},
        },
    ),
    FamilyCase("qwen", "tiny_qwen_vl"),
)

each_family: Callable[..., Any] = pytest.mark.parametrize("case", FAMILIES, ids=[case.model_type for case in FAMILIES])


def _changed(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Lay changes over nested values."""
    deeper = {name: _changed(values[name], one) for name, one in changes.items() if isinstance(one, Mapping)}
    return {**values, **changes, **deeper}
