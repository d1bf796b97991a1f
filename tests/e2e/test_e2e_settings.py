"""Logging settings, the server's name and reflection through the official clients."""

import grpc
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from tritonclient.utils import InferenceServerException


@pytest.fixture
def running(repository, models, start):
    repository.add("m", models.identity())
    return start("--server-name=triton")


def test_logging_settings_over_both_protocols(running):
    http = triton_http.InferenceServerClient(running.http_url)
    client = triton_grpc.InferenceServerClient(running.grpc_url)
    assert http.update_log_settings({"log_info": False})["log_info"] is False
    assert http.get_log_settings() == {
        "log_file": "",
        "log_info": False,
        "log_warning": True,
        "log_error": True,
        "log_verbose_level": 0,
        "log_format": "default",
    }
    changed = client.update_log_settings({"log_verbose_level": 2, "log_format": "ISO8601"})
    assert changed.settings["log_verbose_level"].uint32_param == 2
    assert http.get_log_settings()["log_format"] == "ISO8601"
    for one in (http, client):
        with pytest.raises(InferenceServerException, match="can not be updated"):
            one.update_log_settings({"log_file": "x"})
        with pytest.raises(InferenceServerException, match="must be default or ISO8601"):
            one.update_log_settings({"log_format": "xml"})


def test_the_server_calls_itself_as_it_is_told(running):
    http = triton_http.InferenceServerClient(running.http_url)
    client = triton_grpc.InferenceServerClient(running.grpc_url)
    assert http.get_server_metadata()["name"] == "triton"
    assert client.get_server_metadata().name == "triton"


def test_reflection_tells_the_services_and_their_descriptors(running):
    with grpc.insecure_channel(running.grpc_url) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        request = reflection_pb2.ServerReflectionRequest
        asked = [
            request(list_services=""),
            request(file_containing_symbol="inference.GRPCInferenceService"),
            request(file_containing_symbol="no.such.Service"),
        ]
        services, file, unknown = stub.ServerReflectionInfo(iter(asked), timeout=30)
    assert [service.name for service in services.list_services_response.service] == [
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
        "inference.GRPCInferenceService",
    ]
    assert b"ModelInfer" in b"".join(file.file_descriptor_response.file_descriptor_proto)
    assert unknown.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]
