"""Ridgeline and the real Triton, case by case, where Triton's environment is installed."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
VENV = ROOT / ".triton-venv"


@pytest.mark.timeout(600)
@pytest.mark.skipif(
    not (VENV / "installed").exists(),
    reason="the real Triton is not installed: `make conformance` installs it and compares",
)
def test_every_difference_from_triton_has_a_reason():
    done = subprocess.run(
        [sys.executable, ROOT / "tests/triton/compare.py", VENV],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stdout + done.stderr
