"""What `ridgeline serve` says and loads when it starts, or cannot."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def _serve(*flags):
    """Run the command until it ends by itself."""
    ports = ["--grpc-port=0", "--http-port=0", "--metrics-port=0"]
    return subprocess.run(
        [sys.executable, "-m", "ridgeline", "serve", *ports, *map(str, flags)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("flag", ["grpc_port", "http_port", "metrics_port"])
def test_a_port_that_is_taken_ends_the_start(gateway, repository, flag):
    port = gateway.ready[flag]

    ended = _serve("--repository", repository.root, f"--{flag.replace('_', '-')}={port}")

    assert ended.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "unclosed" not in ended.stderr


def test_a_missing_repository_ends_the_start(tmp_path):
    ended = _serve("--repository", tmp_path / "nowhere")

    assert ended.returncode == 1
    assert ended.stderr == f"ridgeline serve: there is no model repository at {tmp_path}/nowhere\n"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--grpc-port", "many"], "--grpc-port must be a whole number, received 'many'"),
        (["--no-such-flag"], "unrecognized arguments: --no-such-flag"),
    ],
)
def test_a_flag_that_cannot_be_understood_is_wrong_usage(flags, words):
    ended = _serve(*flags)

    assert ended.returncode == 2
    assert words in ended.stderr


def test_an_unknown_key_in_the_settings_file_is_named(tmp_path):
    (tmp_path / "settings.toml").write_text("[serve]\nports = 1\n")

    ended = _serve("--config", tmp_path / "settings.toml")

    assert ended.returncode == 1
    assert "unknown key 'ports'" in ended.stderr


def test_serving_a_request_loads_no_training_framework(repository, models):
    repository.add("m", models.identity())
    program = """
import asyncio, sys
import tritonclient.grpc as client, tritonclient.http as http_client
import numpy as np
from pathlib import Path
from serving.gateway import Gateway
from serving.settings import ServeSettings

def ask(addresses):
    for module, port in ((client, addresses.grpc_port), (http_client, addresses.http_port)):
        x = np.ones((1, 2), np.float32)
        tensor = module.InferInput("x", x.shape, "FP32").set_data_from_numpy(x)
        over = module.InferenceServerClient(f"127.0.0.1:{port}")
        assert over.infer("m", [tensor]).as_numpy("y").tolist() == [[1, 1]]
        over.close()

async def main():
    settings = ServeSettings(repository=Path(sys.argv[1]), grpc_port=0, http_port=0, metrics_port=0)
    gateway = Gateway(settings)
    await gateway.start()
    await asyncio.to_thread(ask, gateway.addresses)
    await gateway.stop()

asyncio.run(main())
print(sorted({name.partition(".")[0] for name in sys.modules}))
"""
    ended = subprocess.run(
        [sys.executable, "-c", program, repository.root],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
    )

    assert ended.returncode == 0, ended.stderr
    loaded = set(json.loads(ended.stdout.replace("'", '"')))
    assert "onnxruntime" in loaded
    assert not loaded & {"tensorflow", "keras", "tf2onnx", "torch", "jax"}
