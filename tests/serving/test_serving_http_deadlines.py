"""Deadlines and refusals over HTTP: which header fields say when, and what is answered."""

import asyncio
import json
from dataclasses import replace

import pytest

from ridgeline.errors import NotFound, Overloaded, Unavailable
from serving.dataplane import DataPlane
from serving.protocol.http_app import http_app
from serving.registry import Registry

pytestmark = pytest.mark.anyio
MAX_REQUEST_BYTES = 10_000


@pytest.fixture
async def dataplane(repository, models, settings):
    repository.add("identity", models.identity())
    registry = Registry(settings)
    await registry.load()
    yield DataPlane(registry)
    await registry.close(drain_seconds=60)


@pytest.fixture
def client(dataplane, asgi):
    return asgi(http_app(dataplane, max_request_bytes=MAX_REQUEST_BYTES))


def _body(*rows, **table) -> bytes:
    flat = [number for row in rows for number in row]
    tensor = {"name": "x", "datatype": "FP32", "shape": [len(rows), 2], "data": flat}
    return json.dumps({"inputs": [tensor], **table}).encode()


async def _infer(client, body: bytes, *, model: str = "identity", **options):
    return await client.call("POST", f"/v2/models/{model}/infer", chunks=[body], **options)


async def _until_waiting(batcher, count: int) -> None:
    while batcher.waiting_requests != count:
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("headers", "timeout_ms"),
    [
        ({}, None),
        ({"ridgeline-timeout-ms": "250"}, 250),
        ({"ridgeline-timeout-ms": "0.5"}, 0.5),
        ({"x-envoy-expected-rq-timeout-ms": "40"}, 40),
        ({"Ridgeline-Timeout-Ms": "30", "X-Envoy-Expected-Rq-Timeout-Ms": "40"}, 30),
        ({"Ridgeline-Timeout-Ms": "50", "X-Envoy-Expected-Rq-Timeout-Ms": "40"}, 40),
    ],
)
async def test_the_deadline_is_the_earliest_that_the_header_fields_say(
    client, dataplane, monkeypatch, headers, timeout_ms
):
    asked = []
    infer = dataplane.infer

    async def remember(request):
        asked.append(request.deadline_ns)
        return await infer(replace(request, deadline_ns=None))

    monkeypatch.setattr(dataplane, "infer", remember)
    monkeypatch.setattr("serving.protocol.http_inference.time.monotonic_ns", lambda: 7_000)

    assert (await _infer(client, _body([1, 2]), headers=headers)).status == 200

    assert asked == [None if timeout_ms is None else 7_000 + timeout_ms * 1_000_000]


@pytest.mark.parametrize("timeout", ["1e30", "1e308", "9" * 300])
async def test_a_client_may_say_that_it_waits_for_ever(client, timeout):
    answer = await _infer(client, _body([1, 2]), headers={"ridgeline-timeout-ms": timeout})

    assert answer.status == 200


@pytest.mark.parametrize("name", ["ridgeline-timeout-ms", "x-envoy-expected-rq-timeout-ms"])
@pytest.mark.parametrize("timeout", ["-1", "soon", "", "nan", "inf", "1s", "x" * 1_000])
async def test_a_timeout_that_is_none_is_refused(client, name, timeout):
    answer = await _infer(client, _body([1, 2]), headers={name: timeout})

    assert answer.status == 400
    assert f"{name} must be milliseconds, not negative, received '" in answer.json["error"]
    assert len(answer.json["error"]) < 200


async def test_a_deadline_that_has_passed_already_is_answered_504(client):
    answer = await _infer(client, _body([1, 2]), headers={"ridgeline-timeout-ms": "0"})

    assert answer.status == 504
    assert answer.json["error"].startswith("model 'identity'")


@pytest.mark.parametrize(
    ("wait_ns", "seconds", "milliseconds"),
    [(0, "1", "1"), (1, "1", "1"), (1_000_001, "1", "2"), (10**9, "1", "1000"),
     (1_000_000_001, "2", "1001"), (30 * 10**9, "30", "30000")],
)  # fmt: skip
@pytest.mark.parametrize(("error", "status"), [(Overloaded, 429), (Unavailable, 503)])
async def test_a_refusal_says_when_to_try_again(
    client, dataplane, monkeypatch, error, status, wait_ns, seconds, milliseconds
):
    async def refuse(_request):
        raise error("come again", retry_after_ns=wait_ns)

    monkeypatch.setattr(dataplane, "infer", refuse)

    answer = await _infer(client, _body([1, 2]))

    assert (answer.status, answer.json) == (status, {"error": "come again"})
    assert answer.headers["retry-after"] == seconds
    assert answer.headers["retry-after-ms"] == milliseconds


@pytest.mark.parametrize("error", [Overloaded("full"), Unavailable("stopping"), NotFound("no")])
async def test_who_does_not_know_when_to_try_again_says_nothing(
    client, dataplane, monkeypatch, error
):
    async def refuse(_request):
        raise error

    monkeypatch.setattr(dataplane, "infer", refuse)

    answer = await _infer(client, _body([1, 2]))

    assert "retry-after" not in answer.headers
    assert "retry-after-ms" not in answer.headers


@pytest.mark.parametrize(("status_codes", "status"), [("precise", 429), ("triton", 503)])
async def test_a_full_queue_is_told_as_the_settings_say(
    repository, models, settings, asgi, monkeypatch, status_codes, status
):
    repository.add("identity", models.identity())
    registry = Registry(replace(settings, status_codes=status_codes, max_queue_size=1))
    await registry.load()
    batcher = registry.find("identity").batcher
    client = asgi(http_app(DataPlane(registry), max_request_bytes=MAX_REQUEST_BYTES))
    with monkeypatch.context() as patch:
        patch.setattr(batcher, "_dispatch", lambda: None)
        waiting = asyncio.create_task(_infer(client, _body([1, 2])))
        await _until_waiting(batcher, 1)

        answer = await _infer(client, _body([1, 2]))

    assert answer.status == status
    assert "Exceeds maximum queue size of 1 " in answer.json["error"]
    assert int(answer.headers["retry-after"]) >= 1
    assert int(answer.headers["retry-after-ms"]) >= 1
    await registry.close(drain_seconds=60)
    assert (await waiting).status == 200
