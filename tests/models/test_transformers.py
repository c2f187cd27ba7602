"""What is saved here loads in transformers and gives the same logits there.

Runs where transformers is installed, in this environment or in that of the interpreter that REFERENCE_PYTHON names.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("make_reference.py")
PYTHON = os.environ.get("REFERENCE_PYTHON", sys.executable)
HAS_TRANSFORMERS = not subprocess.run([PYTHON, "-c", "import torch, transformers"], capture_output=True).returncode


@pytest.mark.skipif(not HAS_TRANSFORMERS, reason=f"{PYTHON} has no transformers; set REFERENCE_PYTHON to one that has")
def test_what_is_saved_gives_the_same_logits_in_transformers(reference, model, tmp_path):
    model.save_pretrained(tmp_path)
    command = [PYTHON, SCRIPT, "--check", tmp_path, reference.folder.name]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("logits differ by") >= len(reference.batches) > 5
