"""What paddlemix saves, read by transformers; needs torch and transformers here or in another Python."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ...references import references_of

pytestmark = references_of("qwen2_vl_tiny", "qwen2_5_vl_tiny")

SCRIPT = Path(__file__).parents[1] / "make_reference.py"
# Names a Python that has torch and transformers: torch's and Paddle's libraries do not suit one environment well.
VARIABLE = "REFERENCE_PYTHON"


@pytest.fixture(scope="module")
def reference_python() -> str:
    if VARIABLE in os.environ:
        return os.environ[VARIABLE]
    if not all(importlib.util.find_spec(name) for name in ("torch", "transformers")):
        pytest.skip(f"torch and transformers are not installed here, and {VARIABLE} names no Python that has them")
    return sys.executable


def check(python: str, folder: Path, stored: Path) -> subprocess.CompletedProcess[str]:
    """Compare what transformers computes from `folder` with the logits in `stored`."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [python, str(SCRIPT), "--check", str(folder), f"{stored.parent.name}/{stored.name}"]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def test_transformers_computes_the_same_logits_from_what_is_saved(reference, fresh_model, reference_python, tmp_path):
    folder = tmp_path / "saved"
    fresh_model.save_pretrained(folder)
    checked = check(reference_python, folder, reference.folder)
    assert checked.returncode == 0, checked.stderr
    assert checked.stderr.count("logits differ by") == len(reference.batches) == 10

    # And would have told a difference.
    fresh_model.model.norm.weight.set_value(fresh_model.model.norm.weight * 1.001)
    fresh_model.save_pretrained(folder)
    assert "the logits of text differ by" in check(reference_python, folder, reference.folder).stderr
