"""HTTP requests that are recognised on the wire: answered as any other, and never mistaken."""

import asyncio
import functools
import json

import numpy as np
import pytest

from ridgeline.errors import Overloaded
from serving.dataplane import DataPlane
from serving.job import Job
from serving.protocol.http_app import http_app
from serving.protocol.http_direct import DirectHttpProtocol
from serving.protocol.http_known import KnownHttpRequests
from serving.protocol.http_server import HttpServer
from serving.protocol.uploads import Upload, Uploads
from serving.registry import Registry
from serving.statistics import FailureReason

pytestmark = pytest.mark.anyio

ONE, TWO = np.array([[1, 2]], np.float32), np.array([[3, 4]], np.float32)


def request(
    array: np.ndarray = ONE,
    *,
    model: str = "identity",
    headers: str = "",
    parameters: dict | None = None,
    **table,
) -> bytes:
    """An inference with binary tensors, as the official client writes it."""
    data = array.tobytes()
    tensor = {"name": "x", "shape": list(array.shape), "datatype": "FP32"}
    table = {
        "inputs": [{**tensor, "parameters": {"binary_data_size": len(data)}}],
        "parameters": {"binary_data_output": True, **(parameters or {})},
        **table,
    }
    header = json.dumps(table).encode()
    head = (
        f"POST /v2/models/{model}/infer HTTP/1.1\r\nHost: test\r\n{headers}"
        f"Inference-Header-Content-Length: {len(header)}\r\n"
        f"Content-Length: {len(header) + len(data)}\r\n\r\n"
    )
    return head.encode() + header + data


class Client:
    """One connection; `ask` sends pieces and reads one response."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()
            for _ in range(3):  # the server, in the same loop, reads each piece by itself
                await asyncio.sleep(0)

    async def response(self) -> tuple[int, dict[str, str], bytes]:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        fields = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        body = await self.reader.readexactly(int(fields["content-length"]))
        return int(head[0].split()[1]), fields, body

    async def ask(self, *pieces: bytes) -> tuple[int, dict[str, str], bytes]:
        await self.send(*pieces)
        return await self.response()


def values(answer: tuple[int, dict[str, str], bytes]) -> list[float]:
    """The numbers of the only output of an answer that ended well."""
    status, fields, body = answer
    assert status == 200, body
    header = json.loads(body[: int(fields["inference-header-content-length"])])
    assert header["outputs"][0]["name"] == "y"
    raw = body[int(fields["inference-header-content-length"]) :]
    assert header["outputs"][0]["parameters"]["binary_data_size"] == len(raw)
    return np.frombuffer(raw, np.float32).tolist()


@pytest.fixture
async def registry(repository, models, settings):
    repository.add("identity", models.identity())
    repository.add("dense", models.dense(2, 1, weight=2))
    registry = Registry(settings)
    await registry.load()
    yield registry
    await registry.close(drain_seconds=60)


@pytest.fixture
def model(registry):
    return registry.find("identity")


@pytest.fixture
def known(registry):
    return KnownHttpRequests(DataPlane(registry))


@pytest.fixture
def uploads():
    return Uploads(most_bytes=100_000)


class Given(Upload):
    """Another request that is on its way."""


def fill(uploads):
    """Others take all the room there is, for a moment."""
    others = [Given(), Given()]
    for other in others:
        uploads.hold(other, held_bytes=uploads._most_bytes // 2)
    for other in others:
        uploads.release(other)


async def until(condition):
    while not condition():
        await asyncio.sleep(0)


@pytest.fixture
async def server(registry, known, uploads):
    app = http_app(DataPlane(registry), max_request_bytes=100_000, known=known, uploads=uploads)
    server = HttpServer(
        app,
        host="127.0.0.1",
        port=0,
        drain_seconds=60,
        protocol=functools.partial(DirectHttpProtocol, known=known, uploads=uploads),
    )
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def client(server, parsed):
    assert parsed == []  # the parser looks up its callbacks when the connection is made
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    yield Client(reader, writer)
    writer.close()


@pytest.fixture
def parsed(monkeypatch):
    """The requests that uvicorn had to parse."""
    seen = []
    original = DirectHttpProtocol.on_message_begin

    def on_message_begin(self):
        seen.append(self)
        original(self)

    monkeypatch.setattr(DirectHttpProtocol, "on_message_begin", on_message_begin)
    return seen


async def test_the_second_request_of_a_kind_is_answered_alike_without_being_parsed(client, parsed):
    first = await client.ask(request(ONE))
    again = await client.ask(request(ONE))
    other = await client.ask(request(TWO))

    assert len(parsed) == 1
    assert values(first) == values(again) == [1, 2]
    assert values(other) == [3, 4]
    assert first[2] == again[2]
    names = ("content-type", "content-length", "inference-header-content-length")
    assert [first[1][name] for name in names] == [again[1][name] for name in names]


async def test_answered_requests_leave_no_cycles(client, parsed, left_in_cycles):
    await client.ask(request(ONE))
    with left_in_cycles(Job) as left:
        answers = [values(await client.ask(request(TWO))) for _ in range(3)]
    assert answers == [[3, 4]] * 3
    assert len(parsed) == 1
    assert left == []


async def test_requests_that_come_one_at_a_time_are_not_queued(client, registry, monkeypatch):
    batcher = registry.find("dense").batcher
    queued, submit = [], batcher.submit
    monkeypatch.setattr(batcher, "submit", lambda job: queued.append(submit(job)))
    wanted = [values(await client.ask(request(array, model="dense"))) for array in (ONE, TWO)]

    for number in range(30):
        array = (ONE, TWO)[number % 2]
        assert values(await client.ask(request(array, model="dense"))) == wanted[number % 2]

    assert wanted[0] != wanted[1]
    assert len(queued) <= 20


async def test_requests_sent_ahead_are_answered_in_their_order(client, registry):
    one, two = (request(array, model="dense") for array in (ONE, TWO))
    for _ in range(20):
        assert values(await client.ask(one))
    wanted = [values(await client.ask(array)) for array in (one, two)]

    await client.send(b"".join([one, two] * 200))

    assert [values(await client.response()) for _ in range(400)] == wanted * 200
    assert registry.find("dense").statistics.success == 422


async def test_a_request_may_be_cut_anywhere(client, parsed):
    whole = request(TWO)
    await client.ask(whole[:10], whole[10:])  # is learnt from as well

    for cut in range(1, len(whole)):
        assert values(await client.ask(whole[:cut], whole[cut:])) == [3, 4], cut
    pieces = [whole[start : start + 7] for start in range(0, len(whole), 7)]
    assert values(await client.ask(*pieces)) == [3, 4]
    assert len(parsed) == 1


@pytest.mark.parametrize(
    "other",
    [
        request(ONE, model="unknown0"),
        request(ONE, id="7"),
        request(np.array([[5, 6], [7, 8]], np.float32)),
        request(ONE, parameters={"binary_data_output": False}),
        request(ONE, outputs=[{"name": "y", "parameters": {"binary_data": False}}]),
        request(ONE).replace(b"FP32", b"INT8"),
        request(ONE).replace(b"Host: test", b"Host: TEST"),
        request(ONE).replace(b'"x"', b'"z"'),
        request(ONE).replace(b"POST", b"PUT "),
        b"GET /v2/health/live HTTP/1.1\r\nHost: test\r\n\r\n",
    ],
)
async def test_what_differs_in_anything_is_answered_as_if_nothing_were_known(client, other):
    fresh = await client.ask(other)
    for _ in range(2):
        assert values(await client.ask(request(ONE))) == [1, 2]

    again = await client.ask(other)
    middle = len(other) // 2
    in_parts = await client.ask(other[:middle], other[middle:])

    assert (again[0], again[2]) == (in_parts[0], in_parts[2]) == (fresh[0], fresh[2])


async def test_requests_sent_before_the_answer_are_answered_in_their_order(client, parsed):
    await client.ask(request(ONE))

    await client.send(request(ONE) + request(TWO), request(ONE))
    answers = [values(await client.response()) for _ in range(3)]

    assert answers == [[1, 2], [3, 4], [1, 2]]
    await client.send(request(TWO), request(ONE))
    assert [values(await client.response()) for _ in range(2)] == [[3, 4], [1, 2]]
    assert parsed


async def test_the_deadline_in_a_header_holds_on_the_short_way_too(client, parsed, model):
    hurried = request(ONE, headers="Ridgeline-Timeout-Ms: 60000\r\n")
    assert values(await client.ask(hurried)) == [1, 2]
    deadlines = []
    submit = model.batcher.submit

    def remember(job):
        deadlines.append(job.deadline_ns)
        submit(job)

    model.batcher.submit = remember
    assert values(await client.ask(hurried)) == [1, 2]
    assert len(parsed) == 1
    assert deadlines[0] is not None


async def test_a_refusal_tells_when_to_come_again(client, model, parsed):
    await client.ask(request(ONE))

    def refuse(_job):
        raise Overloaded("too much to do", retry_after_ns=1_500_000_000)

    model.batcher.submit = refuse
    status, fields, body = await client.ask(request(ONE))

    assert len(parsed) == 1
    assert (status, json.loads(body)) == (429, {"error": "too much to do"})
    assert (fields["retry-after"], fields["retry-after-ms"]) == ("2", "1500")


async def test_a_client_that_leaves_takes_its_request_with_it(client, model, parsed):
    await client.ask(request(ONE))
    dispatch, model.batcher._dispatch = model.batcher._dispatch, lambda: None
    await client.send(request(TWO))
    assert model.batcher.waiting_requests == 1

    client.writer.close()
    await client.writer.wait_closed()
    while model.batcher.waiting_requests:
        await asyncio.sleep(0)

    assert model.statistics.failure == {FailureReason.CANCELED: 1}
    assert len(parsed) == 1
    model.batcher._dispatch = dispatch


async def test_a_server_that_stops_answers_first(server, client, model, parsed):
    await client.ask(request(ONE))
    held = []
    submit = model.batcher.submit
    model.batcher.submit = held.append
    await client.send(request(TWO))
    assert len(held) == len(parsed) == 1

    stopping = asyncio.create_task(server.stop())
    await asyncio.sleep(0.2)  # uvicorn looks whether to stop ten times a second
    assert not stopping.done()
    submit(held[0])

    assert values(await client.response()) == [3, 4]
    assert await client.reader.read() == b""
    await stopping


async def test_a_model_that_comes_or_goes_makes_its_requests_unknown(client, registry, parsed):
    await client.ask(request(ONE))
    registry.generation += 1

    assert values(await client.ask(request(TWO))) == [3, 4]
    assert len(parsed) == 2


async def test_a_known_request_whose_rest_does_not_come_is_given_up_for_others(
    client, server, uploads
):
    whole = request(TWO)
    assert values(await client.ask(whole)) == [3, 4]
    other = Client(*await asyncio.open_connection("127.0.0.1", server.port))
    await other.send(whole[:-4])
    await until(lambda: uploads.requests == 1)

    fill(uploads)

    status, _, body = await other.response()
    assert (status, "send it again later" in json.loads(body)["error"]) == (429, True)
    assert values(await other.ask(whole[-4:] + whole)) == [3, 4]  # the rest is dropped
    assert values(await other.ask(whole[:9], whole[9:])) == [3, 4]
    other.writer.close()


async def test_a_known_request_that_takes_too_much_is_refused(client, uploads):
    whole = request(TWO)
    assert values(await client.ask(whole)) == [3, 4]
    uploads._most_bytes = 600

    status, _, _ = await client.ask(whole[:10], whole[10:200])
    answers = [values(await client.ask(whole[200:] + whole)), values(await client.ask(whole))]

    assert (status, answers) == (429, [[3, 4], [3, 4]])
    assert uploads.held_bytes == 0


async def test_a_client_that_leaves_in_the_middle_makes_room(client, uploads):
    whole = request(TWO)
    await client.ask(whole)
    await client.send(whole[:-4])
    await until(lambda: uploads.requests == 1)

    client.writer.close()

    await until(lambda: not uploads.requests)


async def test_a_body_that_the_application_waits_for_is_given_up_for_others(client, uploads):
    whole = request(TWO)
    await client.send(whole[:-4])
    await until(lambda: uploads.requests == 1)

    fill(uploads)

    status, _, body = await client.response()
    assert (status, "send it again later" in json.loads(body)["error"]) == (429, True)
    assert values(await client.ask(whole[-4:], whole)) == [3, 4]


async def test_a_long_body_is_read_without_being_kept_to_learn_from(client, monkeypatch, parsed):
    monkeypatch.setattr("serving.protocol.http_direct._MOST_WIRE_BYTES", 100)
    for _ in range(2):
        assert values(await client.ask(request(TWO))) == [3, 4]
        assert parsed[-1]._wire == []

    assert len(parsed) == 2


async def test_a_kept_connection_lasts_while_a_request_is_under_way(client, model, parsed):
    await client.ask(request(ONE))
    held, submit = [], model.batcher.submit
    model.batcher.submit = held.append
    await client.send(request(TWO))

    parsed[0].timeout_keep_alive_handler()  # as uvicorn's timer does
    submit(held[0])

    assert values(await client.response()) == [3, 4]
    parsed[0].timeout_keep_alive_handler()
    assert await client.reader.read() == b""


@pytest.mark.parametrize(("accepts", "parses"), [("gzip, deflate", 1), ("gzip", 3)])
async def test_what_libraries_accept_unasked_keeps_requests_recognised(
    repository, registry, client, models, parsed, accepts, parses
):
    array = np.ones((1, 500), np.float32)
    repository.add("wide", models.identity(shape=("batch", 500)))
    await registry.load(["wide"])
    whole = request(array, model="wide", headers=f"Accept-Encoding: {accepts}\r\n")

    answers = [await client.ask(whole) for _ in range(3)]

    encodings = {fields.get("content-encoding") for _, fields, _ in answers}
    assert encodings == ({None} if parses == 1 else {"gzip"})
    assert {status for status, _, _ in answers} == {200}
    assert len(parsed) == parses
