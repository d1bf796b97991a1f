"""The fuzzer finds what it is for: a slip planted into a copy of the sources, in a bounded run."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MOST_RUNS = 10_000
FAULTS = {
    "a-header-length-of-one-byte-too-many": (
        "http_binary",
        "serving/protocol/http_codec.py",
        "int(text) > len(body):",
        "int(text) > len(body) + 1:",
    ),
    "a-frame-of-one-byte-too-many": (
        "http2_frames",
        "serving/protocol/http2.py",
        "if size > self.limits.frame_bytes or",
        "if size > self.limits.frame_bytes + 1 or",
    ),
    "a-number-one-above-its-range": (
        "http_json",
        "serving/protocol/tensors.py",
        "extreme <= limits.max",
        "extreme <= limits.max + 1",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(fault, tmp_path):
    pytest.importorskip("atheris", reason="atheris is not installed")
    target, path, right, wrong = FAULTS[fault]
    for part in ("ridgeline", "serving", "conformance", "tests/fuzz"):
        shutil.copytree(ROOT / part, tmp_path / part)
    source = (tmp_path / path).read_text()
    assert source.count(right) == 1
    (tmp_path / path).write_text(source.replace(right, wrong))

    done = subprocess.run(
        [sys.executable, "tests/fuzz/codecs.py", target, f"-runs={MOST_RUNS}", "-seed=1"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path), "PATH": os.defpath},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
    )

    assert done.returncode != 0
    assert "Uncaught Python exception" in done.stdout, done.stdout[-3000:]
    assert list(tmp_path.glob("crash-*"))
