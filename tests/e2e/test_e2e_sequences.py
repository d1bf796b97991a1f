"""Sequences through the official clients, unary, streamed and over HTTP, on both front ends."""

import json
import queue
import subprocess
import sys

import numpy as np
import pytest
import tritonclient.grpc as grpc_client
import tritonclient.http as http_client
from tritonclient.utils import InferenceServerException

CONFIG = """
max_batch_size: 4
input { name: "x" data_type: TYPE_FP32 dims: [ 1 ] }
output { name: "y" data_type: TYPE_FP32 dims: [ 1 ] }
sequence_batching {
  max_sequence_idle_microseconds: 60000000
  control_input [
    { name: "start" control { kind: CONTROL_SEQUENCE_START int32_false_true: [ 0, 1 ] } },
    { name: "end" control { kind: CONTROL_SEQUENCE_END fp32_false_true: [ 0, 1 ] } },
    { name: "ready" control { kind: CONTROL_SEQUENCE_READY bool_false_true: [ false, true ] } },
    { name: "id" control { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_INT64 } }
  ]
  state { input_name: "state" output_name: "next" data_type: TYPE_FP32 dims: [ 1 ] }
}
"""


@pytest.fixture
def gateway(repository, models, start):
    repository.add("sums", models.accumulator(), config=CONFIG)
    return start()


def _input(module, value):
    tensor = module.InferInput("x", [1, 1], "FP32")
    tensor.set_data_from_numpy(np.float32([[value]]))
    return tensor


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_load_test_sends_sequences_of_one_step(gateway, protocol, machine):
    url = gateway.grpc_url if protocol == "grpc" else gateway.http_url
    words = ["--url", url, "--protocol", protocol, "--model", "sums", "--concurrency", "64"]
    words += ["--duration", "1", "--warmup", "0.2", "--json", "--hardware", str(machine)]
    command = [sys.executable, "-m", "ridgeline", "loadtest", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (run,) = json.loads(done.stdout)["runs"]
    assert run["requests"]["answered"] > 10
    assert run["answers"]["compared"] > run["answers"]["wrong"] == 0
    assert run["failures"] == {}


def test_sequences_through_every_client(gateway):
    for module, url in ((grpc_client, gateway.grpc_url), (http_client, gateway.http_url)):
        client = module.InferenceServerClient(url)
        sums = [
            client.infer(
                "sums",
                [_input(module, value)],
                sequence_id=2**40,
                sequence_start=value == 1,
                sequence_end=value == 3,
            ).as_numpy("y")[0, 0]
            for value in (1, 2, 3)
        ]
        with pytest.raises(InferenceServerException, match="START flag"):
            client.infer("sums", [_input(module, 1)], sequence_id=2**40)
        with pytest.raises(InferenceServerException, match="correlation ID"):
            client.infer("sums", [_input(module, 1)])
        assert "sequence" in str(client.get_server_metadata())
        client.close()
        assert sums == [101, 3, 1006]


def test_many_sequences_share_a_stream(gateway):
    answers = queue.SimpleQueue()
    client = grpc_client.InferenceServerClient(gateway.grpc_url)
    client.start_stream(lambda result, error: answers.put((result, error)))
    for step in range(20):
        for sequence in range(1, 5):
            client.async_stream_infer(
                "sums",
                [_input(grpc_client, sequence)],
                request_id=str(sequence),
                sequence_id=sequence,
                sequence_start=step == 0,
                sequence_end=step == 19,
            )

    received = [answers.get(timeout=60) for _ in range(80)]
    client.stop_stream()
    client.close()

    assert [error for _, error in received] == [None] * 80
    for sequence in range(1, 5):
        sums = [
            result.as_numpy("y")[0, 0]
            for result, _ in received
            if result.get_response().id == str(sequence)
        ]
        extra = [100] + [0] * 18 + [1000]
        assert sums == [sequence * (step + 1) + extra[step] for step in range(20)]
