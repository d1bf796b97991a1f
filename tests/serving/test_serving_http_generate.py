"""generate and generate_stream: flat JSON to tensors and back, events, and clients that go away."""

import asyncio
from types import SimpleNamespace

import numpy as np
import orjson
import pytest

from ridgeline.errors import NotFound, Overloaded
from ridgeline.model import ModelSpec, TensorSpec
from serving.dataplane import DataPlane
from serving.protocol.http_app import http_app
from serving.request import InferResponse
from serving.settings import ServeSettings

pytestmark = pytest.mark.anyio
TEXT, COUNT = TensorSpec("text", "BYTES", (1,)), TensorSpec("count", "INT32", (1,))
NUMBERS, PAIRS = TensorSpec("numbers", "FP32", (-1,)), TensorSpec("pairs", "FP32", (-1, 2))


class Words:
    """The words of `text`, one an answer; then an error where the request wants one."""

    def __init__(self):
        self.requests, self.closed = [], asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()

    async def stream(self, request):
        self.requests.append(request)
        try:
            for word in request.inputs["text"].ravel()[0].split():
                await self.gate.wait()
                yield _answer(request, text=np.array([word], np.object_))
            if request.parameters.get("fails"):
                raise Overloaded("enough")
            yield _answer(request)
        finally:
            self.closed.set()


class Echo(Words):
    """Its inputs."""

    async def stream(self, request):
        self.requests.append(request)
        yield _answer(request, **request.inputs)


def _answer(request, **outputs):
    return InferResponse(request.model_name, "1", outputs, id=request.id)


class Registry:
    loaded, generation, settings = True, 0, ServeSettings()

    def __init__(self):
        self.models = {
            "words": (Words(), ModelSpec("words", 0, (TEXT,), (TEXT,))),
            "echo": (Echo(), ModelSpec("echo", 4, (NUMBERS, COUNT), (NUMBERS,))),
            "pairs": (Echo(), ModelSpec("pairs", 0, (PAIRS,), (PAIRS,))),
        }

    def find(self, name, /, *, version=""):  # noqa: ARG002 - the real one's
        if name not in self.models:
            raise NotFound(f"Request for unknown model: {name!r} is not found")
        scheduler, spec = self.models[name]
        return SimpleNamespace(scheduler=scheduler, loaded=SimpleNamespace(spec=spec))


@pytest.fixture
async def registry():
    return Registry()


@pytest.fixture
async def post(registry, asgi):
    client = asgi(http_app(DataPlane(registry), max_request_bytes=10_000))

    async def post(path, body, **what):
        data = body if isinstance(body, bytes) else orjson.dumps(body)
        return await client.call("POST", f"/v2/models/{path}", chunks=[data], **what)

    return post


def _events(answer):
    assert answer.headers["content-type"].startswith("text/event-stream")
    parts = answer.body.split(b"\n\n")
    assert parts.pop() == b""
    assert all(part.startswith(b"data: ") for part in parts)
    return [orjson.loads(part.removeprefix(b"data: ")) for part in parts]


async def test_one_answer_is_flat_json(post):
    answer = await post("words/generate", {"text": "one", "id": "7"})

    assert answer.status == 200
    assert answer.json == {"id": "7", "model_name": "words", "model_version": "1", "text": "one"}


async def test_fields_become_tensors_or_parameters(post, registry):
    body = {"numbers": [1, 2.5], "count": 3, "temperature": 0.5, "parameters": {"seed": 1}}

    answer = await post("echo/versions/1/generate", body)

    assert answer.json["numbers"] == [1.0, 2.5]
    assert answer.json["count"] == 3
    [request] = registry.models["echo"][0].requests
    assert request.inputs["numbers"].shape == (1, 2)
    assert request.inputs["count"].dtype == np.int32
    assert request.model_version == "1"
    assert request.parameters == {"temperature": 0.5, "seed": 1}


async def test_a_free_axis_takes_what_is_there(post, registry):
    answer = await post("pairs/generate", {"pairs": [1, 2, 3, 4]})

    assert answer.json["pairs"] == [1, 2, 3, 4]
    assert registry.models["pairs"][0].requests[0].inputs["pairs"].shape == (2, 2)


async def test_the_header_gives_a_deadline(post, registry):
    await post("words/generate", {"text": "a"}, headers={"Ridgeline-Timeout-Ms": "60000"})

    assert registry.models["words"][0].requests[0].deadline_ns is not None


@pytest.mark.parametrize("text", ["", "two words"])
async def test_generate_wants_exactly_one_answer(post, text):
    answer = await post("words/generate", {"text": text})

    assert answer.status == 400
    assert "exactly 1 response" in answer.json["error"]


@pytest.mark.parametrize("name", ["generate", "generate_stream"])
@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("nobody", {}, 404, "unknown model"),
        ("words", b"{", 400, "not valid JSON"),
        ("words", [1], 400, "must be a JSON object"),
        ("words", {"text": 5}, 400, "does not fit BYTES"),
        ("words", {"text": None}, 400, "does not fit BYTES"),
        ("words", {"text": ["a", "b"]}, 400, "proper shape"),
        ("words", {"text": [{"a": 1}]}, 400, "does not fit BYTES"),
        ("words", {"text": "a", "more": [1]}, 400, "parameter 'more' has invalid type"),
        ("words", {"text": "a", "more": None}, 400, "parameter 'more' has invalid type"),
        ("words", b'{"text": "a", "parameters": {"x": {}}}', 400, "parameter 'x'"),
        ("words", {"text": "a", "parameters": 1}, 400, "'parameters' must be an object"),
        ("words", {"text": "a", "id": 5}, 400, "'id' must be a text"),
        ("words", {"text": "a", "priority": -1}, 400, "priority"),
        ("pairs", {"pairs": [1, 2, 3]}, 400, "proper shape"),
        ("echo", {"count": 1.5, "numbers": 1}, 400, "does not fit INT32"),
        ("words", b" " * 20_000, 413, "larger"),
    ],
)
async def test_bad_input_has_a_defined_answer(post, name, path, body, status, words):
    answer = await post(f"{path}/{name}", body)

    assert (answer.status, words in answer.json["error"]) == (status, True), answer.json


@pytest.mark.parametrize("count", [0, 1, 3])
async def test_every_answer_is_an_event(post, count):
    answer = await post("words/generate_stream", {"text": " ".join("abc"[:count]), "id": "q"})

    assert answer.status == 200
    assert [event["text"] for event in _events(answer)] == list("abc"[:count])
    assert all(event["id"] == "q" for event in _events(answer))


async def test_an_error_before_the_first_event_is_a_status(post):
    answer = await post("words/generate_stream", {"text": "", "fails": True})

    assert (answer.status, answer.json) == (429, {"error": "enough"})


async def test_an_error_behind_an_event_is_the_last_event(post):
    answer = await post("words/generate_stream", {"text": "a b", "fails": True})

    assert [event.get("text", event.get("error")) for event in _events(answer)] == [
        "a",
        "b",
        "enough",
    ]


@pytest.mark.parametrize("name", ["generate", "generate_stream"])
async def test_a_client_that_goes_away_ends_the_work(post, registry, name):
    model, gone = registry.models["words"][0], asyncio.Event()
    model.gate.clear()
    calling = asyncio.create_task(post(f"words/{name}", {"text": "a b"}, gone=gone))
    while not model.requests:
        await asyncio.sleep(0)

    gone.set()

    await model.closed.wait()
    await calling


async def test_a_client_that_goes_away_between_events_ends_the_work(registry):
    model, gone = registry.models["words"][0], asyncio.Event()
    body = orjson.dumps({"text": "a b c"})
    sent = []

    async def receive():
        if not sent and not model.requests:
            return {"type": "http.request", "body": body, "more_body": False}
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)
        if message.get("body"):
            model.gate.clear()
            gone.set()

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v2/models/words/generate_stream",
        "query_string": b"",
        "headers": [],
        "server": ("test", 80),
    }
    await http_app(DataPlane(registry), max_request_bytes=10_000)(scope, receive, send)

    assert model.closed.is_set()
    assert sum(bool(message.get("body")) for message in sent) == 1
