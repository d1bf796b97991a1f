"""Health.Watch on both front ends."""

import grpc
import pytest
from grpc_health.v1 import health_pb2

from tests.serving.http2.streaming.calls import WATCH, Failed

pytestmark = pytest.mark.anyio
SERVING, NOT_SERVING, UNKNOWN = (
    health_pb2.HealthCheckResponse.SERVING,
    health_pb2.HealthCheckResponse.NOT_SERVING,
    health_pb2.HealthCheckResponse.SERVICE_UNKNOWN,
)


def _watch(channel, service=""):
    call = channel.open(WATCH)
    call.write(health_pb2.HealthCheckRequest(service=service))
    call.done_writing()
    return call


@pytest.mark.parametrize("service", ["", "inference.GRPCInferenceService"])
async def test_a_watcher_of_health_learns_of_each_change(channel, registry, dataplane, service):
    registry.all_loaded.clear()
    call = _watch(channel, service)

    seen = [(await call.read()).status]
    registry.all_loaded.set()
    seen.append((await call.read()).status)
    dataplane.stopping = True
    seen.append((await call.read()).status)

    assert seen == [NOT_SERVING, SERVING, NOT_SERVING]
    with pytest.raises(Failed, match="stopping"):
        await call.read()


async def test_the_health_of_an_unknown_service_is_unknown(channel, dataplane):
    call = _watch(channel, "nobody")

    assert (await call.read()).status == UNKNOWN
    dataplane.stopping = True
    with pytest.raises(Failed, match="stopping"):
        await call.read()


async def test_who_asks_nothing_cannot_watch(channel):
    call = channel.open(WATCH)
    call.done_writing()

    with pytest.raises(Failed, match="expected one request") as caught:
        await call.read()
    assert caught.value.args[0] == grpc.StatusCode.INVALID_ARGUMENT.value[0]
