"""Many requests on their way at once, over all connections: bounded, and no standstill."""

import grpc
import pytest
from h2.events import StreamReset

from serving.dataplane import DataPlane
from serving.protocol.grpc_http2 import GrpcService
from serving.protocol.grpc_method import INFER
from serving.protocol.uploads import PIECE_BYTES, Uploads
from serving.registry import Registry

pytestmark = pytest.mark.anyio
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
INTERNAL = grpc.StatusCode.INTERNAL.value[0]
STREAMED = "/inference.GRPCInferenceService/ModelStreamInfer"
KIB = 1024
LIMIT = 64 * KIB
BODY = b"\0" + (LIMIT - 5).to_bytes(4, "big") + bytes(LIMIT - 10)  # of a message that is no message


@pytest.fixture
def uploads():
    return Uploads(most_bytes=4 * LIMIT)


@pytest.fixture
def service(settings, uploads):
    return GrpcService(DataPlane(Registry(settings)), max_request_bytes=LIMIT, uploads=uploads)


@pytest.fixture
async def clients(service, grpc_wire):
    return [grpc_wire(service) for _ in range(3)]


def _pieces(*, first=0, last=LIMIT):
    return [BODY[place : min(place + 4 * KIB, last)] for place in range(first, last, 4 * KIB)]


def _go_on(client, number, *pieces, ends=False):
    for place, piece in enumerate(pieces, start=1):
        flags = int(ends and place == len(pieces))
        client.wire.deliver(bytes(client.wire.frame(0, flags, number, piece)))


@pytest.mark.parametrize("path", [INFER, STREAMED])
async def test_half_sent_bodies_of_all_connections_are_bounded_together(clients, uploads, path):
    half = _pieces(last=32 * KIB)
    begun = [(client, client.send(path, *half, ends=False)) for client in clients * 5]

    assert uploads.held_bytes <= 4 * LIMIT
    assert 6 <= uploads.requests < 15
    for client, number in begun[: 15 - uploads.requests]:
        answer = await client.answer(number)
        assert (answer.code, answer.body) == (EXHAUSTED, b"")
        assert "send it again later" in answer.text

    for client, number in begun[-3:]:  # whoever goes on comes to an end
        _go_on(client, number, *_pieces(first=32 * KIB), BODY[:5], ends=True)
        assert (await client.answer(number)).code == INTERNAL
    for client in clients:
        client.wire.connection.connection_lost(None)
    assert (uploads.held_bytes, uploads.requests) == (0, 0)


async def test_large_bodies_that_come_side_by_side_end_or_are_refused(clients, uploads):
    calls = [(client, client.send(INFER, ends=False)) for client in clients * 4]
    for piece in _pieces():
        for client, number in calls:
            _go_on(client, number, piece)
    for client, number in calls:
        _go_on(client, number, BODY[:5], ends=True)

    codes = [(await client.answer(number)).code for client, number in calls]

    assert set(codes) == {EXHAUSTED, INTERNAL}
    assert codes.count(INTERNAL) >= 3
    assert uploads.held_bytes == 0


async def test_a_client_that_is_refused_is_told_to_stop_sending(clients):
    begun = [(client, client.send(INFER, BODY[:50_000], ends=False)) for client in clients * 2]
    client, number = begun[0]
    await client.answer(number)

    reset = await client.wire.receive_until(StreamReset, stream=number)

    assert reset.error_code == 0


@pytest.mark.parametrize("kind", ["reset", "gone", "trailers"])
async def test_whoever_leaves_makes_room(clients, uploads, kind):
    client = clients[0]
    number = client.send(INFER, BODY[:30_000], ends=False)
    assert uploads.held_bytes == 30_000 + PIECE_BYTES

    if kind == "reset":
        client.wire.client.reset_stream(number)
        client.wire.deliver()
    elif kind == "trailers":
        client.wire.client.send_headers(number, [(b"x", b"y")], end_stream=True)
        client.wire.deliver()
    else:
        client.wire.connection.connection_lost(None)

    assert (uploads.held_bytes, uploads.requests) == (0, 0)


async def test_pieces_are_counted_with_what_they_take_beside_their_bytes(clients, uploads):
    client = clients[0]
    number = client.send(INFER, *[b"\0"] * 1_100, ends=False)

    assert uploads.held_bytes == 0  # half of the bound would have been passed
    assert (await client.answer(number)).code == EXHAUSTED


async def test_a_short_piece_does_not_keep_what_was_read_with_it(server, hand):
    hand.deliver(
        bytes(hand.frame(1, 0x4, 1, hand.block))
        + bytes(hand.frame(0, 0, 1, b"short"))
        + bytes(hand.frame(0, 0, 1, bytes(2_000)))
    )

    short, long = server.streams[0].chunks
    assert (bytes(short), len(short.obj)) == (b"short", 5)
    assert len(long) == 2_000 < len(long.obj)
