"""A bounded run of the fuzzer on each codec; `make fuzz` runs longer."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# As many as take some seconds; a fault planted into each codec is found in fewer
# (test_fuzz_planted_faults).
RUNS = {
    "http_json": 10_000,
    "http_binary": 10_000,
    "grpc_request": 10_000,
    "grpc_framing": 20_000,
    "raw_tensor": 20_000,
    "http2_frames": 10_000,
}


@pytest.mark.parametrize("target", RUNS)
def test_any_bytes_are_read_or_refused(target, tmp_path):
    pytest.importorskip("atheris", reason="atheris is not installed")
    done = subprocess.run(
        [
            sys.executable, ROOT / "tests/fuzz/codecs.py", target, f"-runs={RUNS[target]}",
            "-seed=1", "-max_total_time=20", f"-artifact_prefix={tmp_path}/",
        ],
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=100,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr[-3000:]
