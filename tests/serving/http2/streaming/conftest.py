"""Both front ends over the same models, each a `channel` that opens streaming calls."""

import pytest

from serving.dataplane import DataPlane
from serving.protocol.grpc_http2 import GrpcService
from tests.serving.http2.streaming.calls import HandlerChannel, WireChannel
from tests.serving.http2.streaming.models import Registry


@pytest.fixture
async def registry():
    return Registry()


@pytest.fixture
async def dataplane(registry):
    return DataPlane(registry)


@pytest.fixture(params=["direct", "grpcio"])
async def channel(request, dataplane, grpc_wire):
    if request.param == "grpcio":
        return HandlerChannel(dataplane)
    return WireChannel(GrpcService(dataplane, max_request_bytes=2**20), grpc_wire)
