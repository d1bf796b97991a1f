"""A client in another language, generated from the public proto: JavaScript on Node."""

import json
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2
from tritonclient.grpc import service_pb2

from conformance import repository

CLIENT = Path(__file__).with_name("javascript")


def descriptor_set() -> bytes:
    """The service's proto and what it imports, imports first."""
    described = descriptor_pb2.FileDescriptorSet()
    done = set()

    def add(file):
        if file.name not in done:
            done.add(file.name)
            for imported in file.dependencies:
                add(imported)
            described.file.add().ParseFromString(file.serialized_pb)

    add(service_pb2.DESCRIPTOR)
    return described.SerializeToString()


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder of the client with its locked packages. Skips where Node cannot have them."""
    for program in ("node", "npm"):
        if not shutil.which(program):
            pytest.skip(f"{program} is not installed")
    folder = tmp_path_factory.mktemp("javascript") / "client"
    shutil.copytree(CLIENT, folder)
    command = ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--fetch-retries=0"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=90)
    except subprocess.TimeoutExpired:
        pytest.skip("npm did not install the client's packages within 90 seconds")
    if done.returncode:
        pytest.skip(f"npm cannot install the client's packages: {done.stderr.strip()[-200:]}")
    return folder


@pytest.mark.timeout(180)
def test_a_client_in_javascript_is_served(installed, gateway_over, front_end, tmp_path):
    models = tmp_path / "models"
    repository.write(models)
    (installed / "service.bin").write_bytes(descriptor_set())
    gateway = gateway_over(models, f"--front-end={front_end}", errors=tmp_path / "stderr")
    try:
        done = subprocess.run(
            ["node", "client.js", "service.bin", gateway.grpc_url],
            cwd=installed,
            capture_output=True,
            text=True,
            timeout=60,
        )
    finally:
        gateway.stop()

    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["live"]
    assert answer["ready"]
    assert answer["metadata"]["inputs"] == [
        {"name": "INPUT0", "datatype": "FP32", "shape": ["-1", "2", "3"]}
    ]
    assert answer["config"] == 4
    assert answer["raw"] == {"id": "from-javascript", "hex": struct.pack("<2f", 1.5, -2).hex()}
    assert answer["typed"] == struct.pack("<2f", 2.5, -1).hex()
    assert answer["unknown"]["code"] == 5  # NOT_FOUND
