"""What the servers of the overload are sent, and how the tuned ones are tuned."""

import os

import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from loadtest.bench import networks, overload_servers
from loadtest.bench.overload_servers import Sample, Target, echo_message
from loadtest.bench.peers import MosecSettings, TritonSettings
from ridgeline.errors import InvalidInput, StepFailed

SAMPLE = Sample("digits", "image", "FP32", np.arange(4, dtype=np.float32))


def target(protocol="grpc", **told):
    return Target("name", protocol, 1, "/infer", "/echo", lambda: (), **told)


def test_an_echo_is_a_request_that_protobuf_reads_and_that_says_nothing():
    message = echo_message(4096)
    request = service_pb2.ServerLiveRequest.FromString(message)
    assert request.ListFields() == []
    assert request.SerializeToString() == message  # kept, though unknown
    assert len(message) == 4096 + 4


def test_over_grpc_a_sample_is_a_batch_of_one():
    request = service_pb2.ModelInferRequest.FromString(target().message(SAMPLE, deadline_ms=100))
    assert request.model_name == "digits"
    assert list(request.inputs[0].shape) == [1, 4]
    assert request.raw_input_contents[0] == SAMPLE.array.tobytes()
    assert not request.parameters


def test_a_server_that_reads_deadlines_from_messages_is_told_most_of_it():
    message = target(takes_timeout=True).message(SAMPLE, deadline_ms=100)
    request = service_pb2.ModelInferRequest.FromString(message)
    assert request.parameters["timeout"].int64_param == 80_000


def test_over_http_a_sample_is_its_bytes():
    assert target("http").message(SAMPLE, deadline_ms=100) == SAMPLE.array.tobytes()
    assert target("http").echo(4096) == b""


def test_a_sample_fits_the_model(tmp_path):
    networks.write(["lenet5"], root=tmp_path)
    sample = Sample.of(tmp_path, model="lenet5")
    assert (sample.input, sample.datatype) == ("image", "FP32")
    assert sample.array.shape == (32, 32, 1)
    with pytest.raises(StepFailed, match="other"):
        Sample.of(tmp_path, model="other")


def test_a_tuned_server_lets_wait_what_it_serves_in_half_the_deadline():
    tuned = overload_servers._tuned("triton", deadline_ms=100, capacity_per_s=2000)
    assert tuned == TritonSettings(
        instances=len(os.sched_getaffinity(0)),
        max_queued_requests=100,
        queue_timeout_us=80_000,
        allow_timeout_override=True,
    )
    tuned = overload_servers._tuned("mosec", deadline_ms=100, capacity_per_s=10)
    assert tuned == MosecSettings(capacity=8, timeout_ms=100)


def test_an_unknown_server_is_refused(tmp_path):
    start = overload_servers.server(
        "apache", repository=tmp_path, model="x", deadline_ms=1, capacity_per_s=None
    )
    with pytest.raises(InvalidInput, match="apache"), start:
        pass
