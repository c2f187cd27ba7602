from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SETUP = Path(__file__).parents[2] / "external_ops" / "setup.py"


def test_a_build_that_lacks_something_ends_with_a_status_and_names_it(tmp_path):
    environment = {**os.environ, "CXX": "no-such-compiler"}
    command = [sys.executable, str(SETUP), "build_ext", "--build-lib", str(tmp_path), "--build-temp", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 1
    assert "cannot be built" in done.stderr and "no C++ compiler no-such-compiler" in done.stderr
    assert not list(tmp_path.iterdir())
