"""Both protocols against the fake server: what is read, what is sent, what fails how."""

import json
import socket

import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from loadtest import eventloop
from loadtest.connection import RequestFailed, check_address
from loadtest.http_connection import HttpConnection, _error_text, _translated
from loadtest.messages import outputs, request
from loadtest.protocols import connect
from ridgeline.errors import CorruptData, InvalidInput, NotFound, Unavailable, WrongUsage

X = np.arange(8, dtype=np.float32).reshape(2, 4)


def talk(server, what, *, model="identity", version=""):
    """Run `what(connection)` on a connection to `server` (or to (protocol, url))."""
    protocol, url = server if isinstance(server, tuple) else (server.protocol, server.url)

    async def run():
        connection = connect(protocol=protocol, url=url, model=model, version=version)
        try:
            return await what(connection)
        finally:
            await connection.close()

    return eventloop.run(run())


def message(server, batch=None):
    protocol = server if isinstance(server, str) else server.protocol
    return request(batch or {"x": X}, protocol=protocol, model="identity")


def ask(server, *, batch=None, timeout_s=5):
    """Send one request to `server` (or to (protocol, url)) and read the answer."""
    protocol = server[0] if isinstance(server, tuple) else server.protocol
    sent = message(protocol, batch)

    async def send(connection):
        return await connection.ask(sent, timeout_s=timeout_s)

    return outputs(talk(server, send), protocol=protocol)


def test_server_and_model_say_what_they_are(server):
    identity = talk(server, lambda connection: connection.read_server())
    assert (identity.name, identity.version) == ("fake", "1.5")
    metadata = talk(server, lambda connection: connection.read_metadata())
    assert [tensor.name for tensor in metadata.inputs] == ["x"]
    assert list(metadata.inputs[0].shape) == [-1, 4]
    config = talk(server, lambda connection: connection.read_config())
    assert config.max_batch_size == 8
    assert config.parameters["ridgeline_parameters"].string_value == "61706"


def test_a_server_without_configurations_answers_none(server):
    server.behaviour.tells_config = False
    assert talk(server, lambda connection: connection.read_config()) is None


def test_an_unknown_model_is_not_found(server):
    with pytest.raises(NotFound, match="unknown model"):
        talk(server, lambda connection: connection.read_metadata(), model="other")


def test_an_answer_holds_the_tensors_that_the_model_made(server):
    found = ask(server)
    assert list(found) == ["y"]
    np.testing.assert_array_equal(found["y"], X)


def test_a_large_batch_arrives_whole(server):
    x = np.zeros((100_000, 4), np.float32)  # 1.6 MB, beyond what aiohttp takes as bytes
    if server.protocol == "http":  # the fake server of gRPC takes at most 4 MiB, aiohttp's 1 MiB
        with pytest.raises(RequestFailed, match="HTTP 413"):
            ask(server, batch={"x": x}, timeout_s=30)
    else:
        assert ask(server, batch={"x": x}, timeout_s=30)["y"].shape == (100_000, 4)


def test_a_server_without_statistics_tells_none(server):
    assert talk(server, lambda connection: connection.read_statistics()) is None


def test_a_refusal_is_a_failure_with_its_status_and_text(server):
    server.behaviour.fail_after = 0
    with pytest.raises(RequestFailed, match="the queue is full") as caught:
        ask(server)
    assert caught.value.status == {"grpc": "UNAVAILABLE", "http": "HTTP 503"}[server.protocol]


def test_an_answer_that_is_none_of_the_protocol_is_a_failure(http_server):
    http_server.behaviour.malformed_inference = http_server.behaviour.malformed_metadata = True
    with pytest.raises(CorruptData, match="no answer of the protocol"):
        ask(http_server)
    with pytest.raises(Unavailable, match="did not answer as the protocol asks"):
        talk(http_server, lambda connection: connection.read_metadata())


@pytest.fixture
def closed_port():
    """A port that nothing listens on; held, so that nobody else takes it."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


@pytest.mark.parametrize(("protocol", "status"), [("grpc", "UNAVAILABLE"), ("http", "CONNECTION")])
def test_a_dead_server_is_unavailable(closed_port, protocol, status):
    server = (protocol, f"127.0.0.1:{closed_port}")
    with pytest.raises(Unavailable, match=f"127.0.0.1:{closed_port} over"):
        talk(server, lambda connection: connection.read_server())
    with pytest.raises(RequestFailed) as caught:
        ask(server)
    assert caught.value.status == status


@pytest.mark.parametrize(
    ("protocol", "status"), [("grpc", "DEADLINE_EXCEEDED"), ("http", "TIMEOUT")]
)
def test_a_server_that_does_not_answer_in_time_is_a_failure(protocol, status):
    with socket.create_server(("127.0.0.1", 0)) as silent:  # the kernel accepts, nobody answers
        url = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(RequestFailed) as caught:
            ask((protocol, url), timeout_s=0.05)
    assert caught.value.status == status


def test_http_to_the_grpc_port_is_explained(grpc_server):
    with pytest.raises(Unavailable, match="is this its gRPC port"):
        talk(("http", grpc_server.url), lambda connection: connection.read_server())


def test_a_grpc_request_is_the_message_of_the_protocol():
    batch = {"x": X, "text": np.array([b"a", b"bc"], dtype=object)}

    sent = request(batch, protocol="grpc", model="net", version="3")
    assert sent.path == "/inference.GRPCInferenceService/ModelInfer"
    message = service_pb2.ModelInferRequest.FromString(sent.body)
    assert (message.model_name, message.model_version) == ("net", "3")
    assert [(tensor.name, tensor.datatype, list(tensor.shape)) for tensor in message.inputs] == [
        ("x", "FP32", [2, 4]),
        ("text", "BYTES", [2]),
    ]
    assert message.raw_input_contents[0] == X.tobytes()
    assert message.raw_input_contents[1] == b"\x01\0\0\0a\x02\0\0\0bc"


def test_an_http_request_names_the_version_and_escapes_the_model():
    connection = HttpConnection(url="host:80", model="a b/c", version="3")
    assert connection._model_url == "http://host:80/v2/models/a%20b%2Fc/versions/3"
    sent = request({"x": X}, protocol="http", model="a b/c", version="3")
    assert sent.path == "/v2/models/a%20b%2Fc/versions/3/infer"
    assert int(sent.headers["Inference-Header-Content-Length"]) < len(sent.body)


def test_an_error_that_is_no_json_is_shown_as_it_came():
    assert _error_text(b"<html>oops</html>") == "<html>oops</html>"
    assert _error_text(json.dumps({"error": "full"}).encode()) == "full"
    assert _error_text(b"") == "no details"
    assert isinstance(_translated(400, "x"), InvalidInput)
    assert isinstance(_translated(500, "x"), Unavailable)


@pytest.mark.parametrize(
    "url", ["localhost", "http://localhost:80", ":80", "host:", "host:0", "host:70000", "a:b"]
)
def test_an_address_must_be_host_and_port(url):
    with pytest.raises(WrongUsage, match="must be HOST:PORT"):
        check_address(url)


@pytest.mark.parametrize(
    ("url", "host"),
    [("localhost:80", "localhost"), ("[::1]:8001", "::1"), ("1.2.3.4:1", "1.2.3.4")],
)
def test_the_host_of_an_address(url, host):
    assert check_address(url) == host
