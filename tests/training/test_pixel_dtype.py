"""In which dtype pixels travel to the model."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import paddle
import pytest
from paddle import nn

from paddlemix.training.run_trainer import _pixel_dtype


def arguments(level: str = "O0", **keys: Any) -> Any:
    return SimpleNamespace(
        **{"fp16_opt_level": level, "bf16": False, "fp16": False, "amp_custom_black_list": None, **keys}
    )


@pytest.mark.parametrize(
    ("held", "args", "wanted"),
    [
        ("float32", arguments(), "float32"),
        ("float32", arguments("O1"), "float32"),
        ("float32", arguments("O1", bf16=True), "bfloat16"),
        ("float32", arguments("O1", fp16=True), "float16"),
        ("bfloat16", arguments("O2", bf16=True), "bfloat16"),
        ("float16", arguments("O2", fp16=True), "float16"),
        ("bfloat16", arguments(), "bfloat16"),
        # What is computed in float32 is sent float32.
        ("float32", arguments("O0", bf16=True), "float32"),
        ("float32", arguments("O1", bf16=True, amp_custom_black_list=["matmul_v2"]), "float32"),
    ],
)
def test_pixels_travel_in_the_dtype_that_the_tower_computes_in(monkeypatch, held, args, wanted):
    tower = nn.Linear(2, 2)
    tower.weight = tower.create_parameter([2, 2], dtype=held, default_initializer=nn.initializer.Constant(0.0))
    assert tower.weight.dtype == getattr(paddle, held)
    # A CPU takes no notice of autocast.
    assert _pixel_dtype(SimpleNamespace(tower=tower), args) == held
    monkeypatch.setattr(paddle, "get_device", lambda: "gpu:0")
    assert _pixel_dtype(SimpleNamespace(tower=tower), args) == wanted
