"""A bounded run of the fuzzer on each codec; `make fuzz` runs longer."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RUNS = 10_000
TARGETS = ("http_json", "http_binary", "grpc_request", "grpc_framing", "raw_tensor", "http2_frames")


@pytest.mark.parametrize("target", TARGETS)
def test_any_bytes_are_read_or_refused(target, tmp_path):
    pytest.importorskip("atheris", reason="atheris is not installed")
    done = subprocess.run(
        [
            sys.executable, ROOT / "tests/fuzz/codecs.py", target, f"-runs={RUNS}", "-seed=1",
            "-max_total_time=10", f"-artifact_prefix={tmp_path}/",
        ],
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=100,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr[-3000:]
