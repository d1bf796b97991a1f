"""TLS and mutual TLS, through the official clients."""

import ssl

import numpy as np
import pytest
import tritonclient.grpc as grpc_client
import tritonclient.http as http_client
import trustme
from geventhttpclient.response import HTTPConnectionClosed
from tritonclient.utils import InferenceServerException


@pytest.fixture
def authority(tmp_path):
    """A certificate authority, its certificate in ca.pem, and the server's in server.pem."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    server = authority.issue_cert("localhost", "127.0.0.1")
    server.private_key_pem.write_to_path(tmp_path / "server.key")
    for part in server.cert_chain_pems:
        part.write_to_path(tmp_path / "server.pem", append=True)
    return authority


@pytest.fixture
def flags(authority, tmp_path):
    assert authority
    return (f"--tls-certificate={tmp_path / 'server.pem'}", f"--tls-key={tmp_path / 'server.key'}")


def grpc_answer(url, folder, **files):
    """What the identity model answers over gRPC with TLS."""
    client = grpc_client.InferenceServerClient(
        url, ssl=True, root_certificates=str(folder / "ca.pem"), **files
    )
    x = grpc_client.InferInput("x", [1, 2], "FP32")
    x.set_data_from_numpy(np.array([[1, 2]], dtype=np.float32))
    with client:
        return [client.infer("identity", [x]).as_numpy("y").tolist() for _ in range(3)]


def http_answer(url, folder):
    """What the identity model answers over HTTPS."""
    client = http_client.InferenceServerClient(
        url,
        ssl=True,
        ssl_context_factory=lambda: ssl.create_default_context(cafile=folder / "ca.pem"),
    )
    x = http_client.InferInput("x", [1, 2], "FP32")
    x.set_data_from_numpy(np.array([[1, 2]], dtype=np.float32))
    with client:
        return [client.infer("identity", [x]).as_numpy("y").tolist() for _ in range(3)]


def test_both_protocols_answer_behind_tls(start, flags, repository, models, tmp_path):
    repository.add("identity", models.identity())
    gateway = start(*flags)

    assert grpc_answer(gateway.grpc_url, tmp_path) == [[[1, 2]]] * 3
    assert http_answer(gateway.http_url, tmp_path) == [[[1, 2]]] * 3

    with pytest.raises(InferenceServerException, match="UNAVAILABLE"):  # plain text is not answered
        grpc_client.InferenceServerClient(gateway.grpc_url).is_server_live(client_timeout=5)


def test_a_client_without_a_certificate_is_refused_where_one_is_asked_for(
    start, flags, authority, repository, models, tmp_path
):
    repository.add("identity", models.identity())
    gateway = start(*flags, f"--tls-client-ca={tmp_path / 'ca.pem'}")
    client = authority.issue_cert("client@example.org")
    client.private_key_pem.write_to_path(tmp_path / "client.key")
    client.cert_chain_pems[0].write_to_path(tmp_path / "client.pem")
    files = {
        "private_key": str(tmp_path / "client.key"),
        "certificate_chain": str(tmp_path / "client.pem"),
    }

    assert grpc_answer(gateway.grpc_url, tmp_path, **files) == [[[1, 2]]] * 3
    with pytest.raises(InferenceServerException):
        grpc_answer(gateway.grpc_url, tmp_path)
    with pytest.raises((OSError, HTTPConnectionClosed)):
        http_answer(gateway.http_url, tmp_path)
