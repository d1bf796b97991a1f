"""The real Triton loads our repository unchanged and answers as the exported models do.

Usage: python tests/triton/check.py VENV REPOSITORY; see tests/triton/start. Exit code 0 where every
model of the repository answers its golden inputs as it did at export.
"""

import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import tritonclient.grpc as triton

from ridgeline.model import spec_of
from ridgeline.repository import scan

_START_SECONDS = 60
_TOLERANCE = 1e-5  # of the largest output; TensorFlow made the golden ones


def main() -> int:
    venv, root = sys.argv[1:]
    grpc_port, http_port = _free_port(), _free_port()
    start = Path(__file__).with_name("start")
    server = subprocess.Popen([start, venv, root, str(grpc_port), str(http_port)])
    try:
        client = triton.InferenceServerClient(f"127.0.0.1:{grpc_port}")
        _wait_until_ready(client, server)
        models = scan(Path(root))
        for model in models:
            golden = np.load(model.version_directory(model.versions[-1]) / "golden.npz")
            config = model.read_config()
            spec = spec_of(config)
            ask = _steps if config.HasField("sequence_batching") else _rows
            answers = ask(client, spec, golden)
            for tensor in spec.outputs:
                expected, got = golden[f"output:{tensor.name}"], answers[tensor.name]
                error = float(np.abs(got - expected).max() / np.abs(expected).max())
                print(f"{spec.name}: Triton's {tensor.name} differs by {error:.1e} (relative)")
                if not error <= _TOLERANCE:
                    return 1
        print(f"Triton answers as exported: {len(models)} models")
        return 0 if models else 1
    finally:
        server.terminate()
        server.wait(30)


def _rows(client, spec, golden):
    inputs = [_input(tensor, golden[f"input:{tensor.name}"]) for tensor in spec.inputs]
    answer = client.infer(spec.name, inputs)
    return {tensor.name: answer.as_numpy(tensor.name) for tensor in spec.outputs}


def _steps(client, spec, golden):
    """Sequences, interleaved: [sequences, steps, ...] of every output."""
    found = {tensor.name: np.zeros_like(golden[f"output:{tensor.name}"]) for tensor in spec.outputs}
    [tensor] = spec.inputs
    elements = golden[f"input:{tensor.name}"]
    for step in range(elements.shape[1]):
        for sequence in range(len(elements)):
            answer = client.infer(
                spec.name,
                [_input(tensor, elements[sequence, step][np.newaxis])],
                sequence_id=sequence + 1,
                sequence_start=step == 0,
                sequence_end=step == elements.shape[1] - 1,
            )
            for name, array in found.items():
                array[sequence, step] = answer.as_numpy(name)[0]
    return found


def _input(tensor, array):
    requested = triton.InferInput(tensor.name, array.shape, tensor.datatype)
    requested.set_data_from_numpy(array)
    return requested


def _wait_until_ready(client, server):
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            if client.is_server_ready():
                return
        except triton.InferenceServerException:
            pass  # not listening yet
        time.sleep(0.2)
    raise SystemExit("Triton did not become ready")


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


if __name__ == "__main__":
    sys.exit(main())
