from __future__ import annotations

import numpy as np
import pytest

from paddlemix.ops.images import built


@pytest.fixture(params=["reference", "built"])
def implementation(request, monkeypatch) -> str:
    """Choose what computes in a test; the built ops' turn is skipped where they are not built."""
    if request.param == "reference":
        monkeypatch.setattr(built, "wanted_library", lambda: None)
    elif built.find_library()[0] is None:
        pytest.skip(f"no built image ops: {built.find_library()[1]}")
    return request.param


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
